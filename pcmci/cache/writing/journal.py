"""An append-only file beside a store: what was written and is not yet in its chunk.

A record is in the journal before `StoreWriter.put` returns, so a killed process loses nothing that
was accepted. The journal is also the writer's buffer: a chunk is put together from its records, in
whatever order they came, and no features wait in memory.

    file    = header record*
    header  = magic[16] fingerprint[32] nonce[8] checksum[4]
    record  = checksum[4] payload bytes[8] row[8] kind[1] reason bytes[2] reason features

Checksums are chained: each continues from the one before it. So the first record that is torn, or
left from an earlier life of the file, ends the journal; it cannot be taken for a valid one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from pcmci.cache.disk import delete, writing
from pcmci.cache.nearby import beside
from pcmci.cache.schema import Status
from pcmci.errors import StoreError

_MAGIC = b"pcmci journal 1\n"
_HEADER = struct.Struct("<16s32s8sI")
_RECORD = struct.Struct("<IQQBH")
_CHUNK = 255
"""The kind of the record that says: from here on, chunk `row` is being overwritten."""

COMPACT_BYTES = 64 * 2**20
"""A journal larger than this is rewritten when most of it is no longer needed."""


@dataclass(frozen=True)
class Entry:
    """What became of a row. features: where they lie in the journal; 0 bytes for none."""

    status: Status
    reason: str
    offset: int
    bytes: int


class Journal:
    """entries: the newest record of each row that is not yet forgotten.

    chunks: those that were being overwritten; every row of theirs that is not pending has its
    entry, so that they can be rebuilt without being read.
    """

    def __init__(self, path: Path, fingerprint: str, sync_seconds: float = 5.0) -> None:
        """Replays what is there and cuts off a torn tail.

        sync_seconds: the first record after so long waits until all are on the disk itself
        (0: every record). That is for power cuts; against a killed process the page cache is
        enough.
        Raises StoreError where the journal belongs to another store.
        """
        self.entries: dict[int, Entry] = {}
        self.chunks: set[int] = set()
        self._path = path
        self._fingerprint = bytes.fromhex(fingerprint)
        self._sync_seconds = sync_seconds
        self._synced = time.monotonic()
        self._end = self._checksum = 0
        with writing(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._replay()
        except BaseException:
            os.close(self._file)
            raise

    def append(
        self, row: int, status: Status, reason: str = "", features: Sequence[np.ndarray] = ()
    ) -> None:
        """features: contiguous arrays.

        Raises StoreError where the disk is full; the journal is then as before.
        """
        text = reason.encode(errors="replace")
        offset = self._write(row, int(status), text, features)
        self.entries[row] = Entry(status, reason, offset, sum(part.nbytes for part in features))

    def begin(self, chunk: int) -> None:
        """Say that a chunk is about to be overwritten. All its rows must have been appended."""
        self._write(chunk, _CHUNK, b"", ())
        self.chunks.add(chunk)

    def read(self, row: int, out: Sequence[np.ndarray]) -> None:
        """The features of a row, into arrays of the shapes that were appended."""
        entry = self.entries[row]
        if os.preadv(self._file, [part.data for part in out], entry.offset) != entry.bytes:
            raise StoreError(f"{self._path} is cut short")

    def forget(self, rows: Iterable[int]) -> None:
        """These rows are safe in their chunk."""
        for row in rows:
            self.entries.pop(row, None)
        if not self.entries:
            self._restart()
            self.sync()
            return
        needed = sum(entry.bytes for entry in self.entries.values())
        if self._end > max(COMPACT_BYTES, 2 * needed):
            self._compact()

    def sync(self) -> None:
        """Wait until every record is on disk."""
        with writing(self._path):
            os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Remove the file if nothing in it is needed."""
        if not self.entries:
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1

    def _write(self, row: int, kind: int, reason: bytes, features: Sequence[np.ndarray]) -> int:
        """Append a record; returns where its features begin."""
        payload = len(reason) + sum(part.nbytes for part in features)
        head = _RECORD.pack(0, payload, row, kind, len(reason))[4:] + reason
        checksum = google_crc32c.extend(self._checksum, head)
        for part in features:
            checksum = google_crc32c.extend(checksum, part)
        record: list[Any] = [_bytes(checksum), head, *(part.data for part in features)]
        size = _RECORD.size + payload
        try:
            with writing(self._path):
                if os.pwritev(self._file, record, self._end) != size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if time.monotonic() - self._synced >= self._sync_seconds:
                self.sync()
        except StoreError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise
        begin = self._end + _RECORD.size + len(reason)
        self._end += size
        self._checksum = checksum
        return begin

    def _restart(self) -> None:
        """An empty journal. The nonce makes what may lie behind its end worthless."""
        header = _HEADER.pack(_MAGIC, self._fingerprint, os.urandom(8), 0)[:-4]
        self._checksum = google_crc32c.value(header)
        with writing(self._path):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, header + _bytes(self._checksum), 0)
        self._end = _HEADER.size
        self.entries.clear()
        self.chunks.clear()

    def _replay(self) -> None:
        raw = os.pread(self._file, _HEADER.size, 0)
        if len(raw) < _HEADER.size or _bytes(google_crc32c.value(raw[:-4])) != raw[-4:]:
            return self._restart()  # torn before the first record
        magic, fingerprint, _, self._checksum = _HEADER.unpack(raw)
        if magic != _MAGIC or fingerprint != self._fingerprint:
            raise StoreError(f"{self._path} belongs to another store: move it away")
        self._end = _HEADER.size
        while self._replay_record():
            pass
        os.ftruncate(self._file, self._end)

    def _replay_record(self) -> bool:
        head = os.pread(self._file, _RECORD.size, self._end)
        if len(head) < _RECORD.size:
            return False
        stored, size, row, kind, reason_bytes = _RECORD.unpack(head)
        begin = self._end + _RECORD.size
        if begin + size > os.fstat(self._file).st_size:
            return False
        payload = os.pread(self._file, size, begin)
        checksum = google_crc32c.extend(google_crc32c.extend(self._checksum, head[4:]), payload)
        if checksum != stored:
            return False
        if kind == _CHUNK:
            self.chunks.add(row)
        else:
            reason = payload[:reason_bytes].decode(errors="replace")
            self.entries[row] = Entry(
                Status(kind), reason, begin + reason_bytes, size - reason_bytes
            )
        self._checksum = checksum
        self._end = begin + size
        return True

    def _compact(self) -> None:
        """Copy what is still needed into a new file, which then takes this one's place."""
        path = beside(self._path, ".new")
        delete(path)
        small = Journal(path, self._fingerprint.hex(), self._sync_seconds)
        for row, entry in self.entries.items():
            features = np.empty(entry.bytes, np.uint8)
            self.read(row, [features])
            small.append(row, entry.status, entry.reason, [features] if entry.bytes else [])
        small.sync()
        with writing(self._path):
            path.replace(self._path)
        os.close(self._file)
        self._file, self._end, self._checksum = small._file, small._end, small._checksum
        self.entries, self.chunks = small.entries, small.chunks


def _bytes(checksum: int) -> bytes:
    return checksum.to_bytes(4, "little")
