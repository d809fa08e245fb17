"""Zarr v3, a folder: every chunk is a file of its own with its crc32c behind it.

zarr-python makes the arrays, and any Zarr v3 reader reads them. The chunks themselves pass straight
between file and array, since the way through zarr-python takes 1.5 to 3.6 times as long as
`np.fromfile` and this one about as long. There is no compressor: features shrink by 6 to 8 %.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from pcmci.cache.disk import sync_to_disk, writing
from pcmci.cache.formats.layout import CHECKSUM_BYTES, ChunkError, Layout
from pcmci.cache.schema import FEATURES
from pcmci.errors import StoreError
from pcmci.remote.url import Place

PARTIAL = ".partial"

OPEN_FILES = 384
"""Chunks that a reader keeps open: opening one takes as long as reading a video of it."""


class ZarrChunks:
    """A chunk is written under another name, brought to disk, and renamed: there whole or not."""

    requests = 1

    def __init__(self, path: Place, writable: bool = False) -> None:
        path = Path(str(path))
        if not (path / "zarr.json").is_file():
            raise StoreError(f"{path} is not a feature store: it has no zarr.json")
        self.path = path
        self._layouts: dict[str, Layout] = {}
        self._written: set[Path] = set()
        self._writable = writable
        self._files: dict[tuple[str, int], int] = {}

    @classmethod
    def create(cls, path: Place, layouts: Mapping[str, Layout]) -> None:
        import zarr
        from zarr.codecs import Crc32cCodec

        with writing(path):
            group = zarr.create_group(str(path), zarr_format=3)
            for array, layout in layouts.items():
                group.create_array(
                    array,
                    shape=layout.shape,
                    dtype=layout.dtype,
                    chunks=layout.chunk_shape,
                    fill_value=layout.fill,
                    filters=None,
                    compressors=[Crc32cCodec()],
                    chunk_key_encoding={"name": "default", "separator": "."},
                )

    def layout(self, array: str) -> Layout:
        if array not in self._layouts:
            self._layouts[array] = self._read_layout(array)
        return self._layouts[array]

    def stored(self, array: str) -> set[int]:
        names = [entry.name for entry in os.scandir(self.path / array)]
        return chunk_numbers(names, self.layout(array))

    def read(self, array: str, chunk: int, out: np.ndarray) -> None:
        rest = np.empty(self.layout(array).chunk_bytes - out.nbytes + CHECKSUM_BYTES, np.uint8)
        self._read_at(array, chunk, 0, out, rest)
        padding, stored = rest[:-CHECKSUM_BYTES], rest[-CHECKSUM_BYTES:]
        if crc32c(out, padding) != stored.tobytes():
            raise ChunkError(self.path, array, chunk, "does not match its checksum")

    def read_rows(self, array: str, chunk: int, first: int, out: np.ndarray) -> None:
        self._read_at(array, chunk, first * self.layout(array).row_bytes, out)

    def write(self, array: str, chunk: int, rows: np.ndarray) -> None:
        block = self.layout(array).padded(rows)
        target = self.path / self._name(array, chunk)
        partial = _partial(target)
        try:
            with writing(target), open(partial, "wb") as file:
                file.write(block.data)
                file.write(crc32c(block))
        except StoreError:
            partial.unlink(missing_ok=True)
            raise
        self._written.add(target)

    def sync(self) -> None:
        written, self._written = self._written, set()
        with writing(self.path):
            # Many at a time: the file system then brings many to disk with one commit of its own.
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(_sync_partial, written))
            for target in written:
                _partial(target).replace(target)
            for folder in {target.parent for target in written}:
                sync_to_disk(folder)

    def leftovers(self) -> list[Path]:
        return sorted(self.path.rglob(f"*{PARTIAL}"))

    def close(self) -> None:
        files, self._files = self._files, {}
        for file in files.values():
            os.close(file)

    def _read_at(self, array: str, chunk: int, offset: int, *out: np.ndarray) -> None:
        kept = self._files.get((array, chunk))
        try:
            file = self._open(array, chunk) if kept is None else kept
            try:
                got = os.preadv(file, [part.data for part in out], offset)
            finally:
                if kept is None:
                    self._keep(array, chunk, file)
        except FileNotFoundError:
            raise ChunkError(self.path, array, chunk, "is missing") from None
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            raise ChunkError(self.path, array, chunk, problem) from error
        if got != sum(part.nbytes for part in out):
            raise ChunkError(self.path, array, chunk, "is cut short")

    def _open(self, array: str, chunk: int) -> int:
        return os.open(f"{self.path}/{self._name(array, chunk)}", os.O_RDONLY | os.O_CLOEXEC)

    def _keep(self, array: str, chunk: int, file: int) -> None:
        """Close a file, or keep it for the next read. What is kept stays until the end: another
        thread may be reading from it. A writer replaces its files, and keeps none."""
        if self._writable or array not in FEATURES or len(self._files) >= OPEN_FILES:
            os.close(file)
        elif self._files.setdefault((array, chunk), file) != file:
            os.close(file)  # another thread was first

    def _name(self, array: str, chunk: int) -> str:
        return chunk_name(array, chunk, self.layout(array))

    def _read_layout(self, array: str) -> Layout:
        path = self.path / array / "zarr.json"
        try:
            return parse_layout(json.loads(path.read_bytes()))
        except FileNotFoundError:
            raise StoreError(f"{self.path} is not a feature store: it has no {array}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} is damaged: {error}") from error


def chunk_name(array: str, chunk: int, layout: Layout) -> str:
    """From the store on; c.7.0.0.0 is the eighth chunk of an array of four axes."""
    return f"{array}/c.{chunk}" + ".0" * (len(layout.shape) - 1)


def chunk_numbers(names: Iterable[str], layout: Layout) -> set[int]:
    """Of those names in an array's folder that are a chunk's."""
    parts = [name.split(".") for name in names]
    return {int(p[1]) for p in parts if len(p) == 1 + len(layout.shape) and p[1].isdecimal()}


def parse_layout(meta: dict[str, Any]) -> Layout:
    """Raises ValueError, KeyError or TypeError for anything but an array of our making."""
    shape, rows = meta["shape"], meta["chunk_grid"]["configuration"]["chunk_shape"]
    dtype = np.dtype(meta["data_type"]).newbyteorder("<")
    codecs = [codec["name"] for codec in meta["codecs"]]
    endian = meta["codecs"][0].get("configuration", {}).get("endian", "little")
    keys = meta["chunk_key_encoding"]
    if codecs != ["bytes", "crc32c"] or endian != "little":
        raise ValueError(f"codecs {codecs} ({endian}) are not bytes (little), crc32c")
    if keys["name"] != "default" or keys["configuration"]["separator"] != ".":
        raise ValueError(f"chunk keys {keys} are not c.0.0")
    if len(rows) != len(shape) or rows[1:] != shape[1:] or rows[0] < 1:
        raise ValueError(f"chunks {rows} do not cut {shape} along the first axis")
    return Layout(tuple(shape), dtype.str, rows[0])


def crc32c(*parts: np.ndarray) -> bytes:
    value = 0
    for part in parts:
        value = google_crc32c.extend(value, part)
    return value.to_bytes(CHECKSUM_BYTES, "little")


def _partial(target: Path) -> Path:
    return target.with_name(target.name + PARTIAL)


def _sync_partial(target: Path) -> None:
    sync_to_disk(_partial(target))
