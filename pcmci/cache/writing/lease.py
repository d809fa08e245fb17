"""One writer at a time in a bucket: an object that its owner has to renew.

The object `<store>.lock` is made, renewed and taken over by conditional writes alone, so that of
two who try one succeeds. On its own machine an owner also holds a file lock, which dies with it:
who gets that one need not wait for the lease of a dead process. Elsewhere a lease counts until it
was not renewed for STALE seconds by the server's clock; its owner stops writing long before.

The journal, which lies on the owner's machine, is valid for the store as that owner left it: it is
thrown away where somebody else has held the lease since.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pcmci.cache.disk import writing
from pcmci.cache.nearby import JOURNAL, beside, nearby
from pcmci.cache.writing.lock import StoreLocked, WriterLock
from pcmci.errors import RemoteError
from pcmci.remote import objects
from pcmci.remote.failure import Conflict, NotThere
from pcmci.remote.url import Url

BEAT = 30.0
"""Seconds from one renewal to the next."""

STALE = 300.0
"""Seconds without a renewal after which others may write."""

SAFE = 150.0
"""Seconds without a renewal after which the owner stops: well before STALE, since a write that has
begun may take `objects.RETRY_SECONDS`."""


class Lease:
    """The right to write a store, from its making until `release`."""

    def __init__(self, store: Url) -> None:
        """Raises StoreLocked naming the owner, also where the server refuses."""
        self._store, self._url = store, beside(store, ".lock")
        self._id, self._lost = uuid.uuid4().hex, ""
        self._journal = nearby(store, JOURNAL)
        folder = self._journal.parent
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._machine = _machine(folder)
        self._local = WriterLock(nearby(store, ""), shown=store)
        try:
            self._begin(nearby(store, ".owner"))
        except BaseException:
            self._local.release()
            raise
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises StoreLocked where somebody else may be writing by now."""
        if self._lost:
            raise StoreLocked(
                f"{self._store} was taken over by {self._lost}; nothing more is written"
            )
        if (silent := _now() - self._renewed) > SAFE:
            raise StoreLocked(
                f"{self._store}: its lock could not be renewed for {silent:.0f} s, another process "
                "may write it; nothing more is written"
            )

    def release(self) -> None:
        """Give it back. While a journal is left it stays, to be found as one's own later."""
        if self._end.is_set():
            return
        self._end.set()
        self._thread.join()
        with contextlib.suppress(RemoteError):
            if not self._lost and not self._journal.exists():
                self._renew()  # then nobody takes it over before it is deleted
                if not self._lost:
                    objects.delete([self._url])
        self._local.release()

    def _begin(self, owners: Path) -> None:
        """Take the lease, and keep the journal where the last owner was of this machine.

        owners: ids, one a line, of which the last owner's may be. Ours is there before it may be
        in the bucket, so that a kill at any moment leaves the journal valid.
        """
        earlier = owners.read_text().split() if owners.exists() else []
        with writing(owners):
            _write_lines(owners, [*earlier, self._id])
        before = self._acquire()
        with writing(owners):
            if before not in earlier:
                self._journal.unlink(missing_ok=True)
            _write_lines(owners, [self._id])

    def _acquire(self) -> str:
        """Returns the id of who held the lease before, or an empty string."""
        before = ""
        try:
            for _ in range(3):
                self._renewed = _now()
                with contextlib.suppress(Conflict):
                    self._version = objects.write_new(self._url, self._content())
                    return before
                try:
                    raw, facts = objects.read_with_facts(self._url)
                except NotThere:
                    continue  # released just now
                owner = _parse(raw)
                if owner["id"] == self._id:  # our own, written though its answer was lost
                    self._version = facts.version
                    return before
                age = (datetime.now(UTC) - facts.modified).total_seconds()
                if owner["machine"] != self._machine and age < STALE:
                    raise StoreLocked(
                        f"{self._store} is being written by {owner['who']}, heard of {age:.0f} s "
                        f"ago; after {STALE:.0f} s without a word it may be taken over"
                    )
                before = owner["id"]
                with contextlib.suppress(Conflict):
                    self._version = objects.write_over(self._url, self._content(), facts.version)
                    return before
        except RemoteError as error:
            raise StoreLocked(f"{self._store} cannot be locked: {error.reason}") from error
        raise StoreLocked(f"{self._store} is being taken over by another process")

    def _beat(self) -> None:
        while not self._end.wait(BEAT) and not self._lost:
            with contextlib.suppress(RemoteError):  # `check` says when that lasts too long
                self._renew()

    def _renew(self) -> None:
        began = _now()
        try:
            self._version = objects.write_over(self._url, self._content(), self._version)
        except (Conflict, NotThere):
            owner, version = {"id": "", "who": "somebody who deleted its lock"}, {}
            with contextlib.suppress(NotThere):
                raw, facts = objects.read_with_facts(self._url)
                owner, version = _parse(raw), facts.version
            if owner["id"] != self._id:
                self._lost = owner["who"]
                return
            self._version = version
        self._renewed = began

    def _content(self) -> bytes:
        """Never the same twice: versions are told apart by a hash of it."""
        content = {
            "id": self._id,
            "who": f"process {os.getpid()} on {socket.gethostname()}",
            "machine": self._machine,
            "renewed": datetime.now(UTC).isoformat(),
        }
        return json.dumps(content, indent=1).encode()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _parse(raw: bytes) -> dict[str, str]:
    """id, who and machine; of something else's content none that is ours."""
    try:
        found: dict[str, Any] = json.loads(raw)
        return {name: str(found[name]) for name in ("id", "who", "machine")}
    except (ValueError, KeyError, TypeError):
        return {"id": "?", "who": "another process", "machine": "?"}


def _machine(folder: Path) -> str:
    """The same for processes that share this folder's file locks: one system, one file."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    facts = os.stat(folder)
    return f"{boot} {facts.st_dev} {facts.st_ino}"


def _now() -> float:
    """Seconds that go on while a laptop sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _write_lines(path: Path, lines: list[str]) -> None:
    new = beside(path, ".new")
    new.write_text("".join(f"{line}\n" for line in lines))
    new.replace(path)
