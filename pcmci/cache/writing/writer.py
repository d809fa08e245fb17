"""The only way to change a store: one writer, which loses nothing that it accepted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np

from pcmci.cache.contents import (
    DIFFERS,
    check_stored,
    checksum,
    encode_reason,
    read_by_chunk,
    read_features,
    read_head,
    stored_reasons,
)
from pcmci.cache.formats.choose import check_exists, exists, open_chunks
from pcmci.cache.formats.layout import ChunkError
from pcmci.cache.nearby import JOURNAL, nearby
from pcmci.cache.replaced import FAIL
from pcmci.cache.schema import FEATURES, Status
from pcmci.cache.writing.journal import Journal
from pcmci.cache.writing.lock import StoreLocked
from pcmci.cache.writing.one_writer import writer_lock
from pcmci.errors import StoreError, VideoError
from pcmci.remote.url import Place, Url, place

COMMIT_BYTES = 64 * 2**20
"""Complete chunks of so many bytes are committed, however little time has passed."""

# Compared for every video: numpy takes ten times as long over members of an enum.
PENDING, DONE = int(Status.PENDING), int(Status.DONE)


class StoreWriter:
    """Takes videos in any order and commits each chunk once none of its videos is pending.

    What `put`, `fail`, `missing` and `reset` were given is in the journal when they return. To
    commit chunks means: their features, then their reasons and statuses (done means on disk), then
    the journal forgets them. Before a chunk is overwritten, all that it will hold is in the
    journal, so that one torn in place is rebuilt without being read. Since waiting for the disk
    costs most, chunks that complete in quick succession are committed together.

    spec, table: what the store was made for. status: [n] uint8, with what is not yet committed.
    Use from one thread at a time.
    """

    def __init__(self, path: str | Path | Url, *, sync_seconds: float = 5.0) -> None:
        """Locks the store and takes over what a killed writer had accepted.

        sync_seconds: how often to wait for the disk, to commit and to bring the journal there: it
        is what a power cut may cost. 0: after every video.
        Raises StoreLocked while another process writes, StoreError where the store is damaged.
        """
        self.path: Place = place(path)
        self._sync_seconds = sync_seconds
        self._last = time.monotonic()
        self._waiting: set[int] = set()
        self._complete: set[int] = set()
        with contextlib.ExitStack() as opening:
            check_exists(self.path)
            self._lock = opening.enter_context(writer_lock(self.path))
            self._chunks = open_chunks(self.path, writable=True)
            opening.callback(self._chunks.close)
            self.spec, self.table = read_head(self._chunks)
            journal = nearby(self.path, JOURNAL)
            self._journal = Journal(journal, self.spec.fingerprint, sync_seconds)
            opening.callback(self._journal.close)
            self._chunk_bytes = sum(self._chunks.layout(array).chunk_bytes for array in FEATURES)
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

    def put(self, row: int, vlm: np.ndarray, video: np.ndarray, note: str = "") -> None:
        """A video's features, [views, L, D] and [views, Lv, Dv], stored as float16.

        note: of a damaged video (`pcmci.cache.replaced`), for a store whose spec allows those.

        Raises VideoError, with the reason to record, for values that are not finite or too large
        for float16; StoreError for another shape, a row that is not pending, a full disk.
        """
        self._check_pending(row)
        if note and self.spec.damaged == FAIL:
            raise StoreError(f"{self.path} takes no damaged videos: {self.table.ids[row]}, {note}")
        features = [self._half(row, *pair) for pair in zip(FEATURES, (vlm, video), strict=True)]
        self._journal.append(row, Status.DONE, note, features)
        self._became(row, Status.DONE, note)
        self._commit_if_due()

    def fail(self, row: int, reason: str) -> None:
        """A video that cannot be encoded. Of the reason, 200 bytes are kept."""
        self._check_pending(row)
        self._journal.append(row, Status.FAILED, reason)
        self._became(row, Status.FAILED, reason)
        self._commit_if_due()

    def missing(self, row: int, reason: str = "") -> None:
        """A video that is not on disk."""
        self._check_pending(row)
        self._journal.append(row, Status.MISSING, reason)
        self._became(row, Status.MISSING, reason)
        self._commit_if_due()

    def reset(self, rows: Iterable[int]) -> None:
        """Make rows pending again, whatever they were."""
        for row in map(int, rows):
            if self.status[row] != PENDING:
                self._journal.append(row, Status.PENDING)
                self._became(row, Status.PENDING)

    def close(self) -> None:
        """Commit everything, chunks that are not complete too."""
        waiting, self._waiting = self._waiting, set()
        with self._open:
            self._commit(waiting)

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
        entries, torn, ids = self._journal.entries, self._journal.chunks, self.table.ids
        self._layout = self._chunks.layout("status")
        self._committed = read_by_chunk(self._chunks, "status", ids, torn)
        check_stored(self._chunks, ids, self._committed)
        self.status = self._committed.copy()
        self._reasons = stored_reasons(
            self._chunks, ids, self._committed, torn, of_done=self.spec.damaged != FAIL
        )
        for row, entry in entries.items():
            self._became(row, entry.status, entry.reason)

    def _check_pending(self, row: int) -> None:
        if self.status[row] != PENDING:
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

    def _became(self, row: int, status: Status, reason: str = "") -> None:
        self.status[row] = status
        self._reasons.pop(row, None)
        if reason:
            self._reasons[row] = reason
        chunk = row // self._layout.rows
        self._waiting.add(chunk)
        if (self.status[self._layout.span(chunk)] != PENDING).all():
            self._complete.add(chunk)
        else:
            self._complete.discard(chunk)

    def _commit_if_due(self) -> None:
        self._lock.check()
        enough = len(self._complete) * self._chunk_bytes >= COMMIT_BYTES
        if self._complete and (enough or time.monotonic() - self._last >= self._sync_seconds):
            self._commit(self._complete)

    def _commit(self, chunks: Iterable[int]) -> None:
        """Bring chunks up to date on disk. May be cut off anywhere and begun again."""
        changed = {chunk: self._features_changed(chunk) for chunk in sorted(chunks)}
        if not changed:
            return
        self._lock.check()
        journalled = [self._journal_rest(chunk, rewrite) for chunk, rewrite in changed.items()]
        if any(journalled):
            self._journal.sync()  # a power cut must not take what was safe before
        for chunk in changed:
            self._journal.begin(chunk)
        for chunk in (chunk for chunk, rewrite in changed.items() if rewrite):
            self._write_features(chunk)
        self._chunks.sync()
        self._lock.check()
        for chunk in changed:
            rows = self._rows(chunk)
            reasons = np.stack([encode_reason(self._reasons.get(row, "")) for row in rows])
            self._chunks.write("reasons", chunk, reasons)
            self._chunks.write("status", chunk, self.status[self._layout.span(chunk)])
        self._chunks.sync()
        if not exists(self.path):  # an open file can be written long after it was removed
            raise StoreError(f"{self.path} is gone: somebody removed it, or its disk vanished")
        self._journal.forget(row for chunk in changed for row in self._rows(chunk))
        for chunk in changed:
            span = self._layout.span(chunk)
            self._committed[span] = self.status[span]
        self._waiting.difference_update(changed)
        self._complete.difference_update(changed)
        self._last = time.monotonic()

    def _rows(self, chunk: int) -> range:
        span = self._layout.span(chunk)
        return range(span.start, span.stop)

    def _features_changed(self, chunk: int) -> bool:
        """False where only reasons and statuses are new, as for videos that are missing."""
        entries, span = self._journal.entries, self._layout.span(chunk)
        undone = (self._committed[span] == DONE) & (self.status[span] != DONE)
        rows = self._rows(chunk)
        return bool(undone.any()) or any(row in entries and entries[row].bytes for row in rows)

    def _journal_rest(self, chunk: int, rewrite: bool) -> bool:
        """Journal what the chunk holds already, features only where they will be overwritten."""
        entries = self._journal.entries
        known = [row for row in self._rows(chunk) if self.status[row] != PENDING]
        bare = {
            row
            for row in known
            if self.status[row] == DONE and (row not in entries or not entries[row].bytes)
        }
        features = self._read_features(chunk, sorted(bare)) if rewrite and bare else {}
        old = [row for row in known if row not in entries or row in features]
        for row in old:
            status, reason = Status(self.status[row]), self._reasons.get(row, "")
            self._journal.append(row, status, reason, features.get(row, ()))
        return bool(old)

    def _read_features(self, chunk: int, rows: list[int]) -> dict[int, list[np.ndarray]]:
        """What the store holds of these rows. Raises StoreError naming those that are damaged."""
        checksums = self._chunks.layout("checksums").empty(chunk)
        features: dict[int, list[np.ndarray]] = {row: [] for row in rows}
        hurt: list[int] = []
        try:
            self._chunks.read("checksums", chunk, checksums)
            for k, array in enumerate(FEATURES):
                for row in rows:
                    out = np.empty((1, *self._chunks.layout(array).shape[1:]), "<f2")
                    expected = checksums[row - self._layout.span(chunk).start, k]
                    hurt += read_features(self._chunks, array, row, out, np.array([expected]))
                    features[row].append(out[0])
                if hurt:
                    raise ChunkError(self.path, array, chunk, DIFFERS)
        except ChunkError as error:
            raise error.naming([self.table.ids[row] for row in hurt or rows]) from error
        return features

    def _write_features(self, chunk: int) -> None:
        """From the journal; NaN for every video without any."""
        rows, first = self._rows(chunk), self._layout.span(chunk).start
        blocks = [self._chunks.layout(array).empty(chunk) for array in FEATURES]
        checksums = np.zeros((len(rows), len(FEATURES)), "<u4")
        for row in rows:
            features = [block[row - first] for block in blocks]
            if self.status[row] == DONE:
                self._journal.read(row, features)
                checksums[row - first] = [checksum(part) for part in features]
            else:
                for part in features:
                    part.fill(np.nan)
        for array, block in zip(FEATURES, blocks, strict=True):
            self._chunks.write(array, chunk, block)
        self._chunks.write("checksums", chunk, checksums)


def recover(path: Place) -> None:
    """Finish what a killed writer left in the journal, unless somebody is writing right now.

    Raises StoreError where the store is too damaged for that.
    """
    if nearby(path, JOURNAL).exists():
        with contextlib.suppress(StoreLocked):
            StoreWriter(path).close()


def _any_not_finite(half: np.ndarray) -> bool:
    # Three times as fast as isfinite: in NaN and infinity all five exponent bits are set.
    return bool(((half.view(np.uint16) & 0x7C00) == 0x7C00).any())
