"""Make a damaged store one that is whole again, with fewer videos done.

What is hurt becomes pending, so that an extraction computes just that again; nothing is guessed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pcmci.cache.contents import read_chunk, read_head
from pcmci.cache.formats.choose import check_exists, open_chunks
from pcmci.cache.formats.layout import ChunkError, Chunks
from pcmci.cache.nearby import JOURNAL, nearby
from pcmci.cache.schema import FEATURES, Status, StoreSpec
from pcmci.cache.store import check_same
from pcmci.cache.upkeep.verify import Damage, verify
from pcmci.cache.writing.journal import Journal
from pcmci.cache.writing.one_writer import writer_lock
from pcmci.errors import StoreError
from pcmci.remote.url import Place, Url, place

REPAIRABLE = ("status", "reasons", "checksums", *FEATURES)


def repair(
    path: str | Path | Url, spec: StoreSpec, text: Callable[[str], np.ndarray]
) -> list[Damage]:
    """Set the videos that are hurt to pending, and write text embeddings anew; returns what was
    found. A second time it finds nothing.

    spec: what the features are to be computed with. text: a name of `spec.texts` -> its embeddings
    [N, D]. May be cut off anywhere and begun again. Raises SpecMismatch for a store of another
    spec, StoreError where the store's table or structure is hurt: that cannot be mended.
    """
    path = place(path)
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
    with writer_lock(path) as lock, contextlib.closing(open_chunks(path, writable=True)) as chunks:
        stored, _ = read_head(chunks)
        check_same(path, stored, spec)
        rows = _set_pending(chunks, [d for d in found if not d.array.startswith("text/")])
        # Pending first: a video is never done without its features, whenever this is cut off.
        lock.check()
        chunks.sync()
        _forget(path, stored, rows)
        for damage in found:
            _write_again(chunks, damage, text)
        lock.check()
        chunks.sync()
    return found


def _set_pending(chunks: Chunks, found: list[Damage]) -> list[int]:
    """Rewrite the statuses of every chunk that is hurt; returns the rows that are pending now."""
    by_chunk: dict[int, list[Damage]] = {}
    for damage in found:
        if damage.chunk is not None:  # `repair` refuses the others
            by_chunk.setdefault(damage.chunk, []).append(damage)
    pending: list[int] = []
    for chunk, damages in by_chunk.items():
        status = chunks.layout("status").empty(chunk)
        try:
            read_chunk(chunks, "status", chunk, status)
        except ChunkError:  # which of them were done is not known any more
            status[:] = Status.PENDING
        if any(damage.array == "reasons" for damage in damages):
            status[np.isin(status, (Status.FAILED, Status.MISSING))] = Status.PENDING
        first = chunks.layout("status").span(chunk).start
        status[[row - first for damage in damages for row in damage.rows]] = Status.PENDING
        chunks.write("status", chunk, status)
        pending += (first + np.flatnonzero(status == Status.PENDING)).tolist()
    return pending


def _forget(path: Place, spec: StoreSpec, rows: list[int]) -> None:
    """A journal that says "done" of a row and has no features of it would undo the repair."""
    file = nearby(path, JOURNAL)
    if file.exists():
        with contextlib.closing(Journal(file, spec.fingerprint, 0)) as journal:
            for row in rows:
                if row in journal.entries and not journal.entries[row].bytes:
                    journal.append(row, Status.PENDING)


def _write_again(chunks: Chunks, damage: Damage, text: Callable[[str], np.ndarray]) -> None:
    """What can be read of a damaged chunk, with its right checksum; the rest is fill."""
    array, chunk = damage.array, damage.chunk
    assert chunk is not None
    if array.startswith("text/"):
        chunks.write(array, chunk, np.asarray(text(array.removeprefix("text/")), "<f4"))
    elif array in FEATURES:
        layout = chunks.layout(array)
        block = layout.empty(chunk)
        try:
            chunks.read_rows(array, chunk, 0, block)
        except ChunkError:  # then nothing of it is done any more
            block.fill(np.nan)
        block[[row - layout.span(chunk).start for row in damage.rows]] = np.nan
        chunks.write(array, chunk, block)
    elif array in ("status", "reasons"):
        chunks.write("reasons", chunk, np.zeros_like(chunks.layout("reasons").empty(chunk)))
    else:
        chunks.write(array, chunk, np.zeros_like(chunks.layout(array).empty(chunk)))
