"""Whether a store's one writer is known by a file of this machine or by an object in a bucket."""

from __future__ import annotations

from pcmci.cache.writing.lease import Lease
from pcmci.cache.writing.lock import Lock, WriterLock
from pcmci.remote.url import Place, Url


def writer_lock(store: Place) -> Lock:
    """By file or, under a URL, by an object. Raises StoreLocked where somebody else has it."""
    if isinstance(store, Url):
        return Lease(store)
    return WriterLock(store)
