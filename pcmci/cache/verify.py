"""Read every byte of a store and say what is hurt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcmci.cache.chunks import ChunkError, Chunks, beside, check_exists, open_chunks
from pcmci.cache.contents import read_head, read_status_chunk
from pcmci.cache.schema import FEATURES, Status, StoreSpec, VideoTable
from pcmci.cache.writer import recover
from pcmci.errors import StoreError


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    array, chunk: where, or the file's name and None. problem: in words.
    rows, ids: the videos that are hurt. harmless: nothing is lost, it is only worth knowing.
    """

    array: str
    chunk: int | None
    problem: str
    rows: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()
    harmless: bool = False

    def __str__(self) -> str:
        where = self.array if self.chunk is None else f"chunk {self.chunk} of {self.array}"
        hurt = f"; videos hurt: {', '.join(self.ids)}" if self.ids else ""
        return f"{where} {self.problem}{hurt}"


def verify(path: str | Path, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
    """Read every chunk of every array. An empty list: all is well.

    What a killed writer left is committed first. Where spec or table are damaged nothing else can
    be made sense of, and they are all that is named. progress: called with (chunks, of how many).
    Raises StoreError where there is no store, or its structure is damaged.
    """
    path = Path(path)
    check_exists(path)
    with contextlib.suppress(StoreError):  # what hinders it is found below
        recover(path)
    with contextlib.closing(open_chunks(path)) as chunks:
        try:
            spec, table = read_head(chunks)
        except ChunkError as error:
            return [Damage(error.array, error.chunk, error.problem)]
        return [*_Inspection(chunks, spec, table, progress).run(), *_leftovers(chunks)]


class _Inspection:
    def __init__(
        self,
        chunks: Chunks,
        spec: StoreSpec,
        table: VideoTable,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._chunks, self._ids, self._progress = chunks, table.ids, progress
        self._status = np.zeros(len(table), np.uint8)
        self._texts = [f"text/{name}" for name in spec.label_sets]
        arrays = ("status", "reasons", *self._texts, *FEATURES)
        self._total = sum(chunks.layout(array).chunks for array in arrays)
        self._seen = 0

    def run(self) -> Iterator[Damage]:
        yield from self._each("status", self._status_chunk)
        yield from self._each("reasons", self._reasons_chunk)
        for array in self._texts:
            yield from self._each(array, self._text_chunk)
        for array in FEATURES:
            self._stored = self._chunks.stored(array)
            yield from self._each(array, self._features_chunk)

    def _each(
        self, array: str, inspect: Callable[[str, int, slice], Damage | None]
    ) -> Iterator[Damage]:
        layout = self._chunks.layout(array)
        for chunk in range(layout.chunks):
            if found := inspect(array, chunk, layout.span(chunk)):
                yield found
            self._seen += 1
            if self._progress:
                self._progress(self._seen, self._total)

    def _status_chunk(self, array: str, chunk: int, span: slice) -> Damage | None:
        try:
            read_status_chunk(self._chunks, chunk, self._status[span])
        except ChunkError as error:
            self._status[span] = Status.PENDING  # nothing more to say of these
            return self._damage(error, np.arange(span.start, span.stop))
        return None

    def _reasons_chunk(self, array: str, chunk: int, span: slice) -> Damage | None:
        return self._read(array, chunk, span, (Status.FAILED, Status.MISSING))[1]

    def _text_chunk(self, array: str, chunk: int, span: slice) -> Damage | None:
        return self._read(array, chunk, slice(0), ())[1]

    def _features_chunk(self, array: str, chunk: int, span: slice) -> Damage | None:
        done = span.start + np.flatnonzero(self._status[span] == Status.DONE)
        if not len(done) and chunk not in self._stored:
            return None
        block, damage = self._read(array, chunk, span, (Status.DONE,))
        if damage is None:
            finite = np.isfinite(block[done - span.start]).all((1, 2, 3))
            if not finite.all():
                error = ChunkError(self._chunks.path, array, chunk, "holds NaN or infinity")
                return self._damage(error, done[~finite])
        return damage

    def _read(
        self, array: str, chunk: int, span: slice, hurt: tuple[Status, ...]
    ) -> tuple[np.ndarray, Damage | None]:
        """hurt: the statuses whose videos need this chunk."""
        block = self._chunks.layout(array).empty(chunk)
        try:
            self._chunks.read(array, chunk, block)
        except ChunkError as error:
            rows = np.arange(len(self._status))[span]
            return block, self._damage(error, rows[np.isin(self._status[span], hurt)])
        return block, None

    def _damage(self, error: ChunkError, rows: np.ndarray) -> Damage:
        ids = tuple(self._ids[row] for row in rows)
        return Damage(error.array, error.chunk, error.problem, tuple(rows.tolist()), ids)


def _leftovers(chunks: Chunks) -> Iterator[Damage]:
    for path in chunks.leftovers():
        yield Damage(str(path), None, "is left from a write that was cut off", harmless=True)
    for suffix in (".new", ".old"):
        if (path := beside(chunks.path, suffix)).exists():
            yield Damage(str(path), None, "is left from a store that was begun", harmless=True)
    if (journal := beside(chunks.path, ".journal")).exists():
        yield Damage(str(journal), None, "holds what is not committed yet", harmless=True)
