"""Read every byte of a store and say what is hurt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcmci.cache.contents import DIFFERS, checksum, read_chunk, read_head
from pcmci.cache.formats.choose import check_exists, open_chunks
from pcmci.cache.formats.layout import ChunkError, Chunks
from pcmci.cache.nearby import JOURNAL, beside, nearby
from pcmci.cache.replaced import FAIL
from pcmci.cache.schema import FEATURES, Status, StoreSpec, VideoTable
from pcmci.cache.writing.writer import recover
from pcmci.errors import StoreError
from pcmci.remote.url import Url, place


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


def verify(
    path: str | Path | Url, progress: Callable[[int, int], None] | None = None
) -> list[Damage]:
    """Read every chunk of every array. An empty list: all is well.

    What a killed writer left is committed first. Where spec or table are damaged nothing else can
    be made sense of, and they are all that is named. progress: called with (chunks, of how many).
    Raises StoreError where there is no store, or its structure is damaged.
    """
    path = place(path)
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
        # Where frames may have been replaced, a done video has a reason too.
        self._reasoned = [Status.FAILED, Status.MISSING]
        self._reasoned += [Status.DONE] * (spec.damaged != FAIL)
        self._status = np.zeros(len(table), np.uint8)
        self._checksums = np.zeros((len(table), len(FEATURES)), "<u4")
        self._texts = [f"text/{name}" for name in spec.texts]
        arrays = ("status", "checksums", "reasons", *self._texts, *FEATURES)
        self._total = sum(chunks.layout(array).chunks for array in arrays)
        self._seen = 0

    def run(self) -> Iterator[Damage]:
        yield from self._each("status", self._status_chunk)
        yield from self._each("checksums", self._checksums_chunk)
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
        damage = self._read(array, chunk, self._status[span], self._with(span, *Status))
        if damage:
            self._status[span] = Status.PENDING  # nothing more to say of these
        return damage

    def _checksums_chunk(self, array: str, chunk: int, span: slice) -> Damage | None:
        done = self._with(span, Status.DONE)
        damage = self._read(array, chunk, self._checksums[span], done)
        if damage:
            self._status[done] = Status.PENDING
        return damage

    def _reasons_chunk(self, array: str, chunk: int, span: slice) -> Damage | None:
        hurt = self._with(span, *self._reasoned)
        return self._read(array, chunk, self._chunks.layout(array).empty(chunk), hurt)

    def _text_chunk(self, array: str, chunk: int, span: slice) -> Damage | None:
        return self._read(array, chunk, self._chunks.layout(array).empty(chunk), np.array([], int))

    def _features_chunk(self, array: str, chunk: int, span: slice) -> Damage | None:
        done = self._with(span, Status.DONE)
        if not len(done) and chunk not in self._stored:
            return None
        block = self._chunks.layout(array).empty(chunk)
        damage = self._read(array, chunk, block, done)
        if damage:  # what can be read of it anyway
            try:
                self._chunks.read_rows(array, chunk, 0, block)
            except ChunkError:
                return damage
        k = FEATURES.index(array)
        hurt = [r for r in done if checksum(block[r - span.start]) != self._checksums[r, k]]
        if not hurt and not damage:
            return None
        problem = damage.problem if damage else DIFFERS
        return self._damage(
            ChunkError(self._chunks.path, array, chunk, problem), np.array(hurt, int)
        )

    def _read(self, array: str, chunk: int, out: np.ndarray, hurt: np.ndarray) -> Damage | None:
        """hurt: the rows that need this chunk."""
        try:
            read_chunk(self._chunks, array, chunk, out)
        except ChunkError as error:
            return self._damage(error, hurt)
        return None

    def _with(self, span: slice, *statuses: Status) -> np.ndarray:
        return span.start + np.flatnonzero(np.isin(self._status[span], statuses))

    def _damage(self, error: ChunkError, rows: np.ndarray) -> Damage:
        ids = tuple(self._ids[row] for row in rows)
        return Damage(error.array, error.chunk, error.problem, tuple(rows.tolist()), ids)


def _leftovers(chunks: Chunks) -> Iterator[Damage]:
    for path in chunks.leftovers():
        yield Damage(str(path), None, "is left from a write that was cut off", harmless=True)
    for suffix in (".new", ".old"):
        if not isinstance(chunks.path, Url) and (path := beside(chunks.path, suffix)).exists():
            yield Damage(str(path), None, "is left from a store that was begun", harmless=True)
    if (journal := nearby(chunks.path, JOURNAL)).exists():
        yield Damage(str(journal), None, "holds what is not committed yet", harmless=True)
