"""HDF5, one file: every chunk has its place from the beginning, with its Fletcher-32 behind it.

h5py makes the file with all chunks allocated, and any HDF5 program reads it. From then on nothing
but the bytes of chunks changes, in place and without the library: there is no index, no free space
and no superblock in flux, so a process killed at any moment can tear only the chunk it was writing,
and the journal still holds that one. The format is that of HDF5 1.10, the first that has checksums
on all of its own structure: an older one follows a damaged address to a stretch of zeros, and for
zeros Fletcher-32 is 0. (A newer format cannot be opened after its writer was killed; here no writer
has it open.) Reading goes past the library too: it takes 1.2 to 1.8 times as long as `np.fromfile`,
and holds one lock for all threads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numcodecs.fletcher32 import Fletcher32  # type: ignore[import-untyped]

from pcmci.cache.disk import writing
from pcmci.cache.formats.layout import CHECKSUM_BYTES, ChunkError, Layout
from pcmci.errors import StoreError
from pcmci.remote.url import Place

# What h5py raises for a file whose structure is damaged.
_LIBRARY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True)
class _Places:
    """An array, and where in the file its chunks begin."""

    layout: Layout
    offsets: dict[int, int]


class Hdf5Chunks:
    """A chunk is a fixed stretch of the file. It always exists, as NaN or 0 until it is written."""

    requests = 1

    def __init__(self, path: Place, writable: bool = False) -> None:
        path = Path(str(path))
        self.path = path
        self._codec = Fletcher32()
        self._arrays: dict[str, _Places] = {}
        self._strange: dict[str, str] = {}
        try:
            with h5py.File(path, "r") as file:
                file.visititems(self._visit)
            self._file = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except IsADirectoryError:
            raise StoreError(f"{path} is not a feature store: it is a folder") from None
        except _LIBRARY_ERRORS as error:
            raise StoreError(f"{path} cannot be opened as HDF5: {_first_line(error)}") from error

    @classmethod
    def create(cls, path: Place, layouts: Mapping[str, Layout]) -> None:
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        try:
            with h5py.File(path, "x", libver="v110") as file:
                for array, layout in layouts.items():
                    file.create_dataset(
                        array,
                        shape=layout.shape,
                        dtype=layout.dtype,
                        chunks=layout.chunk_shape,
                        fillvalue=layout.fill,
                        fletcher32=True,
                        dcpl=early.copy(),
                    )
        except _LIBRARY_ERRORS as error:
            raise StoreError(f"{path} cannot be written: {_first_line(error)}") from error

    def layout(self, array: str) -> Layout:
        return self._place(array).layout

    def stored(self, array: str) -> set[int]:
        return set(self._place(array).offsets)

    def read(self, array: str, chunk: int, out: np.ndarray) -> None:
        layout = self.layout(array)
        raw = np.empty(layout.chunk_bytes + CHECKSUM_BYTES, np.uint8)
        self._read_at(array, chunk, 0, raw)
        flat = out.reshape(-1).view(np.uint8)
        try:
            flat[:] = np.asarray(self._codec.decode(raw))[: flat.nbytes]
        except RuntimeError:
            raise ChunkError(self.path, array, chunk, "does not match its checksum") from None

    def read_rows(self, array: str, chunk: int, first: int, out: np.ndarray) -> None:
        self._read_at(array, chunk, first * self.layout(array).row_bytes, out)

    def write(self, array: str, chunk: int, rows: np.ndarray) -> None:
        raw = memoryview(self._codec.encode(self.layout(array).padded(rows)))
        offset = self._place(array).offsets[chunk]
        with writing(self.path):
            while raw:
                written = os.pwrite(self._file, raw, offset)
                raw, offset = raw[written:], offset + written

    def sync(self) -> None:
        with writing(self.path):
            os.fsync(self._file)

    def leftovers(self) -> list[Path]:
        return []

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _read_at(self, array: str, chunk: int, offset: int, out: np.ndarray) -> None:
        offsets = self._place(array).offsets
        if chunk not in offsets:
            raise ChunkError(self.path, array, chunk, "is missing")
        try:
            got = os.preadv(self._file, [out.data], offsets[chunk] + offset)
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            raise ChunkError(self.path, array, chunk, problem) from error
        if got != out.nbytes:
            raise ChunkError(self.path, array, chunk, "is cut short")

    def _place(self, array: str) -> _Places:
        if array in self._strange:
            raise StoreError(f"{self.path}: {array} is damaged: {self._strange[array]}")
        if array not in self._arrays:
            raise StoreError(f"{self.path} is not a feature store: it has no {array}")
        return self._arrays[array]

    def _visit(self, array: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            try:
                self._arrays[array] = _parse_dataset(item)
            except _LIBRARY_ERRORS as error:
                self._strange[array] = _first_line(error)


def _parse_dataset(dataset: Any) -> _Places:
    """Raises ValueError for anything but an array of our making."""
    shape, rows, properties = dataset.shape, dataset.chunks, dataset.id.get_create_plist()
    # h5py maps unusual types to the nearest one; `==` compares all their bits.
    if dataset.id.get_type() != h5py.h5t.py_create(dataset.dtype, logical=False):
        raise ValueError("its type is not a plain number")
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if filters != [h5py.h5z.FILTER_FLETCHER32]:
        raise ValueError(f"its filters are {filters}, not Fletcher-32 alone")
    if rows is None or rows[1:] != shape[1:]:
        raise ValueError(f"chunks {rows} do not cut {shape} along the first axis")
    layout = Layout(tuple(shape), dataset.dtype.str, rows[0])
    stored: list[Any] = []
    dataset.id.chunk_iter(stored.append)
    offsets: dict[int, int] = {}
    for chunk in stored:
        number, uneven = divmod(chunk.chunk_offset[0], layout.rows)
        if uneven or any(chunk.chunk_offset[1:]) or chunk.filter_mask or number in offsets:
            raise ValueError(f"its index holds an impossible chunk at {chunk.chunk_offset}")
        if chunk.size != layout.chunk_bytes + CHECKSUM_BYTES:
            raise ValueError(f"its chunk {number} has {chunk.size} bytes")
        offsets[number] = chunk.byte_offset
    return _Places(layout, offsets)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
