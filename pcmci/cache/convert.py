"""From Zarr to HDF5 and back, to a bucket and back, equal to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pcmci.cache.chunks import exists, file_format
from pcmci.cache.contents import DOCUMENTS, array_layouts
from pcmci.cache.schema import FEATURES
from pcmci.cache.store import building, open_store
from pcmci.errors import StoreError
from pcmci.remote.url import Url, place


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
        chunks = store.chunks
        layouts = array_layouts(store.spec, len(store), store.chunk_rows)
        layouts |= {name: chunks.layout(name) for name in DOCUMENTS}
        done = set((store.done_rows // store.chunk_rows).tolist())
        todo = [
            (name, chunk)
            for name, layout in layouts.items()
            for chunk in range(layout.chunks)
            if name not in FEATURES or chunk in done
        ]
        with building(target, layouts) as copy:
            for count, (name, chunk) in enumerate(todo, 1):
                if name in FEATURES:  # checked against the videos' own checksums
                    block = store.read(name, layouts[name].span(chunk))
                else:
                    block = layouts[name].empty(chunk)
                    chunks.read(name, chunk, block)
                copy.write(name, chunk, block)
                if progress:
                    progress(count, len(todo))
