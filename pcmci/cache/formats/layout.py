"""What a file format has to offer: arrays in whole chunks of rows, each under a checksum.

Zarr and HDF5 differ in nothing but this. Everything a store means (status, journal, resuming) is
written once, above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np

from pcmci.errors import StoreError
from pcmci.remote.url import Place

CHECKSUM_BYTES = 4
"""Both crc32c and Fletcher-32 follow the chunk as four bytes, little-endian."""


@dataclass(frozen=True)
class Layout:
    """An array and how it is cut: `rows` rows a chunk, the last one padded up to that.

    dtype: as numpy spells it, with its byte order: `<f2`.
    """

    shape: tuple[int, ...]
    dtype: str
    rows: int

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        return (self.rows, *self.shape[1:])

    @cached_property
    def chunk_bytes(self) -> int:
        """Of one chunk with its padding, without its checksum."""
        return prod(self.chunk_shape) * np.dtype(self.dtype).itemsize

    @property
    def chunks(self) -> int:
        """How many chunks cover all rows."""
        return -(-self.shape[0] // self.rows)

    @cached_property
    def row_bytes(self) -> int:
        return self.chunk_bytes // self.rows

    @property
    def fill(self) -> float | int:
        """What was never written reads as: NaN where the type has it, so that it is noticed."""
        return float("nan") if np.dtype(self.dtype).kind == "f" else 0

    def span(self, chunk: int) -> slice:
        """The rows of a chunk, without its padding."""
        return slice(chunk * self.rows, min((chunk + 1) * self.rows, self.shape[0]))

    def padded(self, rows: np.ndarray) -> np.ndarray:
        """A whole chunk that begins with `rows`; the rest is fill."""
        if len(rows) == self.rows:
            return np.ascontiguousarray(rows, self.dtype)
        block = np.full(self.chunk_shape, self.fill, self.dtype)
        block[: len(rows)] = rows
        return block

    def empty(self, chunk: int) -> np.ndarray:
        """Room for the rows of a chunk, without its padding."""
        span = self.span(chunk)
        return np.empty((span.stop - span.start, *self.shape[1:]), self.dtype)


class ChunkError(StoreError):
    """A chunk cannot be read back as it was written."""

    def __init__(self, path: Place, array: str, chunk: int, problem: str) -> None:
        self.path, self.array, self.chunk, self.problem = path, array, chunk, problem
        super().__init__(f"{path} is damaged: chunk {chunk} of {array} {problem}")

    def naming(self, ids: Sequence[str], chunks: int = 1) -> StoreError:
        """The same, with the videos hurt; chunks: how many are damaged, this being the first."""
        more = f" (and {chunks - 1} more chunks)" if chunks > 1 else ""
        others = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        return StoreError(
            f"{self}{more}; videos hurt: {', '.join(ids[:3])}{others}. "
            f"pcmci store verify {self.path} names all, pcmci extract --repair computes them again"
        )


class Chunks(Protocol):
    """An open file of one format. Reading is safe from several threads, writing from one.

    requests: how many reads side by side are worth it where each is a request that is waited for;
    1 for files.

    Every method raises StoreError with one line for what the file system or the library says.
    """

    @property
    def path(self) -> Place: ...

    @property
    def requests(self) -> int: ...

    @classmethod
    def create(cls, path: Place, layouts: Mapping[str, Layout]) -> None:
        """Make the file with all its arrays; nothing may be at `path`."""
        ...

    def __init__(self, path: Place, writable: bool = False) -> None: ...

    def layout(self, array: str) -> Layout:
        """As the file has it. Raises StoreError where the array is absent or not of our making."""
        ...

    def stored(self, array: str) -> set[int]:
        """The chunks that exist."""
        ...

    def read(self, array: str, chunk: int, out: np.ndarray) -> None:
        """Read a whole chunk into `out` (contiguous, of `Layout.empty`'s shape and type).

        Raises ChunkError where the chunk is missing, cut short or does not match its checksum.
        """
        ...

    def read_rows(self, array: str, chunk: int, first: int, out: np.ndarray) -> None:
        """Read rows of a chunk, from its row `first`, into `out`; the checksum is not checked.

        Raises ChunkError where the chunk is missing or cut short.
        """
        ...

    def write(self, array: str, chunk: int, rows: np.ndarray) -> None:
        """Write a whole chunk from its rows. Readers see it, and it is on disk, after `sync`."""
        ...

    def sync(self) -> None:
        """Bring everything written to the disk itself."""
        ...

    def leftovers(self) -> list[Path]:
        """Files of writes that were cut off. They do no harm; the next write removes them."""
        ...

    def close(self) -> None: ...
