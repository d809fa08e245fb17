"""From Zarr to HDF5 and back, to a bucket and back, equal to the last bit; and a store that takes
no damaged videos to one that does."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from pcmci.cache.contents import DOCUMENTS, array_layouts, documents, read_head
from pcmci.cache.formats.choose import exists, file_format, open_chunks
from pcmci.cache.formats.layout import Layout
from pcmci.cache.nearby import JOURNAL, nearby
from pcmci.cache.replaced import FAIL
from pcmci.cache.schema import FEATURES, StoreSpec
from pcmci.cache.store import Store, building, open_store
from pcmci.errors import StoreError
from pcmci.remote.url import Place, Url, place


def convert(
    source: str | Path | Url,
    target: str | Path | Url,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Copy a store into the format of `target`'s suffix: features, statuses, reasons, spec, text.

    `target` appears whole, or not at all. progress: called with (chunks copied, of how many).
    Raises StoreError where `target` exists, or a chunk of `source` is damaged.
    """
    target = place(target)
    file_format(target)
    if exists(target):
        raise StoreError(f"{target} exists already; name another target, or delete it first")
    with open_store(source) as store:
        _copy(store, target, {}, progress)


def stored_spec(path: Place) -> StoreSpec:
    """Of a store that may be damaged elsewhere. Raises StoreError."""
    with contextlib.closing(open_chunks(path)) as chunks:
        return read_head(chunks)[0]


def allowing(path: Place, spec: StoreSpec, damaged: str) -> StoreSpec:
    """The spec that a store of `spec` can be given (`allow_damaged`) where its frames may be
    replaced: its own, but for `damaged`. Never the other way, and not in a bucket, where a store
    cannot take another's place at once."""
    if spec.damaged == FAIL and not isinstance(path, Url):
        return dataclasses.replace(spec, damaged=damaged)
    return spec


def allow_damaged(path: Place, damaged: str) -> None:
    """Make a store over into one whose spec says `damaged`; all that it holds stays.

    The new one takes the old one's place whole, or not at all. Raises StoreError where a chunk is
    damaged, or the store is being written.
    """
    with open_store(path) as store:
        spec = allowing(path, store.spec, damaged)
        _copy(store, path, {"spec": documents(spec, store.table)["spec"]}, overwrite=True)


def _copy(
    store: Store,
    target: Place,
    instead: Mapping[str, np.ndarray],
    progress: Callable[[int, int], None] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """All of a store; `instead`: documents that are others in the copy."""
    chunks = store.chunks
    layouts = array_layouts(store.spec, len(store), store.chunk_rows)
    layouts |= {name: chunks.layout(name) for name in DOCUMENTS}
    layouts |= {n: Layout(text.shape, "|u1", len(text)) for n, text in instead.items()}
    done = set((store.done_rows // store.chunk_rows).tolist())
    todo = [
        (name, chunk)
        for name, layout in layouts.items()
        for chunk in range(layout.chunks)
        if name not in FEATURES or chunk in done
    ]
    with building(target, layouts, overwrite=overwrite) as copy:
        if overwrite:  # nobody can write it now, but somebody may have since it was opened
            _check_unchanged(store)
        for count, (name, chunk) in enumerate(todo, 1):
            if name in instead:
                block = instead[name]
            elif name in FEATURES:  # checked against the videos' own checksums
                block = store.read(name, layouts[name].span(chunk))
            else:
                block = layouts[name].empty(chunk)
                chunks.read(name, chunk, block)
            copy.write(name, chunk, block)
            if progress:
                progress(count, len(todo))


def _check_unchanged(store: Store) -> None:
    with Store(store.path) as now:
        same = now.content_digest == store.content_digest
    if not same or nearby(store.path, JOURNAL).exists():
        raise StoreError(f"{store.path} was written to meanwhile: try again")
