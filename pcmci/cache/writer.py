"""The only way to change a store: one writer, which loses nothing that it accepted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np

from pcmci.cache.chunks import ChunkError, beside, check_exists, open_chunks
from pcmci.cache.contents import (
    check_stored,
    decode_reason,
    encode_reason,
    read_head,
    read_status,
)
from pcmci.cache.journal import Journal
from pcmci.cache.lock import StoreLocked, WriterLock
from pcmci.cache.schema import FEATURES, Status
from pcmci.errors import StoreError, VideoError


class StoreWriter:
    """Takes videos in any order and commits each chunk once none of its videos is pending.

    What `put`, `fail`, `missing` and `reset` were given is in the journal when they return. To
    commit a chunk means: its features, then its reasons and statuses (done means on disk), then the
    journal forgets it. Before a chunk with anything in it is overwritten, all of it is in the
    journal, so that one torn in place is rebuilt without being read.

    spec, table: what the store was made for. status: [n] uint8, with what is not yet committed.
    Use from one thread at a time.
    """

    def __init__(self, path: str | Path, *, sync_seconds: float = 5.0) -> None:
        """Locks the store and finishes what a killed writer had begun.

        sync_seconds: see `Journal`. Raises StoreLocked while another process writes, StoreError
        where the store is damaged.
        """
        self.path = Path(path)
        self._waiting: set[int] = set()
        with contextlib.ExitStack() as opening:
            check_exists(self.path)
            opening.enter_context(WriterLock(self.path))
            self._chunks = open_chunks(self.path, writable=True)
            opening.callback(self._chunks.close)
            self.spec, self.table = read_head(self._chunks)
            journal = beside(self.path, ".journal")
            self._journal = Journal(journal, self.spec.fingerprint, sync_seconds)
            opening.callback(self._journal.close)
            self._replay()
            self._open = opening.pop_all()

    @property
    def pending(self) -> np.ndarray:
        """Rows that nothing is known of yet, ascending."""
        return self.rows(Status.PENDING)

    @property
    def counts(self) -> dict[Status, int]:
        """Videos by status."""
        return {status: int((self.status == status).sum()) for status in Status}

    def rows(self, status: Status) -> np.ndarray:
        """Rows of that status, ascending."""
        return np.flatnonzero(self.status == status)

    def put(self, row: int, vlm: np.ndarray, video: np.ndarray) -> None:
        """A video's features, [views, L, D] and [views, Lv, Dv], stored as float16.

        Raises VideoError, with the reason to record, for values that are not finite or too large
        for float16; StoreError for another shape, a row that is not pending, a full disk.
        """
        self._check_pending(row)
        features = [self._half(row, *pair) for pair in zip(FEATURES, (vlm, video), strict=True)]
        self._journal.append(row, Status.DONE, features=features)
        self._became(row, Status.DONE)

    def fail(self, row: int, reason: str) -> None:
        """A video that cannot be encoded. Of the reason, 200 bytes are kept."""
        self._check_pending(row)
        self._journal.append(row, Status.FAILED, reason)
        self._became(row, Status.FAILED, reason)

    def missing(self, row: int, reason: str = "") -> None:
        """A video that is not on disk."""
        self._check_pending(row)
        self._journal.append(row, Status.MISSING, reason)
        self._became(row, Status.MISSING, reason)

    def reset(self, rows: Iterable[int]) -> None:
        """Make rows pending again, whatever they were."""
        for row in map(int, rows):
            if self.status[row] != Status.PENDING:
                self._journal.append(row, Status.PENDING)
                self._became(row, Status.PENDING)

    def close(self) -> None:
        """Commit everything, chunks that are not complete too."""
        waiting, self._waiting = sorted(self._waiting), set()
        with self._open:
            for chunk in waiting:
                self._commit(chunk)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After an error the store may refuse again (a full disk): the first error is the one to
        # tell, and the journal keeps what could not be committed.
        with contextlib.suppress(StoreError) if error else contextlib.nullcontext():
            self.close()

    def _replay(self) -> None:
        entries, torn = self._journal.entries, self._journal.chunks
        self._layout = self._chunks.layout("status")
        self._committed = read_status(self._chunks, self.table.ids, torn)
        check_stored(self._chunks, self.table.ids, self._committed)
        self.status = self._committed.copy()
        self._reasons = self._read_reasons(torn)
        for row, entry in list(entries.items()):
            self._became(row, entry.status, entry.reason, commit=False)
        for chunk in sorted(self._waiting):
            self._commit_if_complete(chunk)

    def _read_reasons(self, torn: set[int]) -> dict[int, str]:
        """Of the rows that have one."""
        reasons: dict[int, str] = {}
        layout = self._chunks.layout("reasons")
        without = (Status.PENDING, Status.DONE)
        for chunk in set((np.flatnonzero(~np.isin(self.status, without)) // layout.rows).tolist()):
            block = layout.empty(chunk)
            try:
                self._chunks.read("reasons", chunk, block)
            except ChunkError as error:
                if chunk not in torn:
                    raise error.naming(self.table.ids[layout.span(chunk)]) from error
                continue
            first = layout.span(chunk).start
            reasons |= {first + i: decode_reason(block[i]) for i in np.flatnonzero(block[:, 0])}
        return reasons

    def _check_pending(self, row: int) -> None:
        if self.status[row] != Status.PENDING:
            status = Status(self.status[row]).name.lower()
            raise StoreError(f"video {self.table.ids[row]} is {status} already: reset it first")

    def _half(self, row: int, array: str, features: np.ndarray) -> np.ndarray:
        expected = self._chunks.layout(array).shape[1:]
        if features.shape != expected:
            raise StoreError(
                f"{array} features of video {self.table.ids[row]} have shape "
                f"{list(features.shape)}, the store holds {list(expected)}"
            )
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(features, "<f2")
        if _any_not_finite(half):
            if not np.isfinite(features).all():
                raise VideoError(f"the {array} encoder gave NaN or infinity")
            largest = float(np.abs(features).max())
            raise VideoError(
                f"the {array} encoder gave {largest:g}, more than float16 holds (65504)"
            )
        return half

    def _became(self, row: int, status: Status, reason: str = "", commit: bool = True) -> None:
        self.status[row] = status
        self._reasons.pop(row, None)
        if reason:
            self._reasons[row] = reason
        chunk = row // self._layout.rows
        self._waiting.add(chunk)
        if commit:
            self._commit_if_complete(chunk)

    def _commit_if_complete(self, chunk: int) -> None:
        if (self.status[self._layout.span(chunk)] != Status.PENDING).all():
            self._commit(chunk)

    def _commit(self, chunk: int) -> None:
        """Bring a chunk up to date on disk. May be cut off anywhere and begun again."""
        span = self._layout.span(chunk)
        rows = range(span.start, span.stop)
        entries, status = self._journal.entries, self.status[span]
        undone = (self._committed[span] == Status.DONE) & (status != Status.DONE)
        rewrite = bool(undone.any()) or any(r in entries and entries[r].bytes for r in rows)
        self._journal_rest(chunk, rows, rewrite)
        self._journal.begin(chunk)
        if rewrite:
            for array, block in self._assembled(chunk, rows).items():
                self._chunks.write(array, chunk, block)
            self._chunks.sync()
        reasons = np.stack([encode_reason(self._reasons.get(row, "")) for row in rows])
        self._chunks.write("reasons", chunk, reasons)
        self._chunks.write("status", chunk, status)
        self._chunks.sync()
        self._journal.forget(rows)
        self._committed[span] = status
        self._waiting.discard(chunk)

    def _journal_rest(self, chunk: int, rows: range, rewrite: bool) -> None:
        """Journal what the chunk holds already, features only where they will be overwritten."""
        entries = self._journal.entries
        known = [row for row in rows if self.status[row] != Status.PENDING]
        done = {row for row in known if self.status[row] == Status.DONE}
        bare = {row for row in done if row not in entries or not entries[row].bytes}
        blocks = []
        if rewrite and bare:
            blocks = [self._chunks.layout(array).empty(chunk) for array in FEATURES]
            try:
                for array, block in zip(FEATURES, blocks, strict=True):
                    self._chunks.read(array, chunk, block)
            except ChunkError as error:
                raise error.naming([self.table.ids[row] for row in sorted(bare)]) from error
        old = [row for row in known if row not in entries or (blocks and row in bare)]
        for row in old:
            features = [block[row - rows.start] for block in blocks] if row in bare else []
            self._journal.append(
                row, Status(self.status[row]), self._reasons.get(row, ""), features
            )
        if old:
            self._journal.sync()  # a power cut must not take what was safe before

    def _assembled(self, chunk: int, rows: range) -> dict[str, np.ndarray]:
        """The chunk's features from the journal, NaN for every video without any."""
        blocks = {array: self._chunks.layout(array).empty(chunk) for array in FEATURES}
        for i, row in enumerate(rows):
            places = [block[i] for block in blocks.values()]
            if self.status[row] == Status.DONE:
                self._journal.read(row, places)
            else:
                for place in places:
                    place.fill(np.nan)
        return blocks


def recover(path: Path) -> None:
    """Finish what a killed writer left in the journal, unless somebody is writing right now.

    Raises StoreError where the store is too damaged for that.
    """
    if beside(path, ".journal").exists():
        with contextlib.suppress(StoreLocked):
            StoreWriter(path).close()


def _any_not_finite(half: np.ndarray) -> bool:
    # Three times as fast as isfinite: in NaN and infinity all five exponent bits are set.
    return bool(((half.view(np.uint16) & 0x7C00) == 0x7C00).any())
