"""Make a damaged store one that is whole again, with fewer videos done.

What is hurt becomes pending, so that an extraction computes just that again; nothing is guessed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pcmci.cache.chunks import ChunkError, Chunks, check_exists, open_chunks
from pcmci.cache.contents import read_chunk, read_head
from pcmci.cache.lock import WriterLock
from pcmci.cache.schema import FEATURES, Status, StoreSpec
from pcmci.cache.store import check_same
from pcmci.cache.verify import Damage, verify
from pcmci.errors import StoreError

REPAIRABLE = ("status", "reasons", "checksums", *FEATURES)


def repair(path: str | Path, spec: StoreSpec, text: Callable[[str], np.ndarray]) -> list[Damage]:
    """Set the videos that are hurt to pending, and write text embeddings anew; returns what was
    found. A second time it finds nothing.

    spec: what the features are to be computed with. text: label set -> its embeddings [N, D].
    May be cut off anywhere and begun again. Raises SpecMismatch for a store of another spec,
    StoreError where the store's table or structure is hurt: that cannot be mended.
    """
    path = Path(path)
    check_exists(path)
    found = [damage for damage in verify(path) if not damage.harmless]
    for damage in found:
        name = damage.array
        if damage.chunk is None or not (name in REPAIRABLE or name.startswith("text/")):
            raise StoreError(
                f"{path}: {damage}; that cannot be repaired, make the store anew: --overwrite"
            )
    if not found:
        return []
    with WriterLock(path), contextlib.closing(open_chunks(path, writable=True)) as chunks:
        stored, _ = read_head(chunks)
        check_same(path, stored, spec)
        for damage in found:
            _mend(chunks, damage, text)
        chunks.sync()
    return found


def _mend(chunks: Chunks, damage: Damage, text: Callable[[str], np.ndarray]) -> None:
    array, chunk = damage.array, damage.chunk
    assert chunk is not None  # `repair` refuses the others
    if array.startswith("text/"):
        chunks.write(array, chunk, np.asarray(text(array.removeprefix("text/")), "<f4"))
        return
    if array in FEATURES and not damage.rows:
        # No video is hurt, only what is between them: the same again, with its right checksum.
        block = chunks.layout(array).empty(chunk)
        chunks.read_rows(array, chunk, 0, block)
        chunks.write(array, chunk, block)
        return
    status = chunks.layout("status").empty(chunk)
    try:
        read_chunk(chunks, "status", chunk, status)
    except ChunkError:  # which of them were done is not known any more
        status[:] = Status.PENDING
    if array == "reasons":
        status[np.isin(status, (Status.FAILED, Status.MISSING))] = Status.PENDING
    first = chunks.layout("status").span(chunk).start
    status[[row - first for row in damage.rows]] = Status.PENDING
    # Pending first: a video is never done without its features, whenever this is cut off.
    chunks.write("status", chunk, status)
    if array in ("reasons", "checksums"):
        chunks.write(array, chunk, np.zeros_like(chunks.layout(array).empty(chunk)))
    if array == "status":
        reasons = np.zeros_like(chunks.layout("reasons").empty(chunk))
        chunks.write("reasons", chunk, reasons)
