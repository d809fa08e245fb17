"""Zarr v3 in a bucket: every chunk is an object, with the name and the bytes it has in a folder.

So a store that was copied there, or from there, is the same store, and zarr-python reads it. A PUT
replaces an object whole: there is never half a chunk. There is no rename, and what makes the
objects a store is the group's own `zarr.json`: a new store gets it last, and one that is replaced
loses it first. A process killed in between leaves objects that are no store; the next creation
deletes them.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pcmci.cache.disk import reaching
from pcmci.cache.formats.layout import CHECKSUM_BYTES, ChunkError, Layout
from pcmci.cache.formats.zarr import ZarrChunks, chunk_name, chunk_numbers, crc32c, parse_layout
from pcmci.errors import StoreError, UsageError
from pcmci.remote import objects
from pcmci.remote.failure import NotThere
from pcmci.remote.url import Place, Url

REQUESTS = 16
"""Side by side: a request is mostly waiting."""

WAITING_BYTES = 64 * 2**20
"""Of chunks that wait for `sync`; with more they go to the server at once."""

GROUP = "zarr.json"


class ObjectChunks:
    """What cannot be read for want of a network is a StoreError and no ChunkError: only what the
    server says is damage, or a repair would compute again what is well."""

    requests = REQUESTS

    def __init__(self, path: Place, writable: bool = False) -> None:
        if not isinstance(path, Url):
            raise UsageError(f"{path} is no URL")
        self.path: Url = path
        self._layouts: dict[str, Layout] = {}
        self._waiting: dict[Url, bytes] = {}
        self._waiting_bytes = 0

    def check_ours(self, arrays: Iterable[str]) -> None:
        """Raises StoreError where objects are that no store of these arrays has: without its group
        it cannot be told from a folder of the same name."""
        ours = {GROUP, *(array.partition("/")[0] for array in arrays)}
        with reaching():
            others = (name for name, _ in objects.files(self.path))
            other = next((name for name in others if name.partition("/")[0] not in ours), None)
        if other is not None:
            raise StoreError(
                f"{self.path} holds what is no part of a store ({other}): name another place, or "
                "replace all of it with --overwrite"
            )

    @classmethod
    def create(cls, path: Place, layouts: Mapping[str, Layout]) -> None:
        """All but the group's `zarr.json`, which `announce` writes."""
        chunks = cls(path)
        chunks.remove()
        arrays = _descriptions(layouts)
        del arrays[GROUP]
        with reaching():
            _upload({chunks.path / name: raw for name, raw in arrays.items()})

    def announce(self) -> None:
        """Now it is a store."""
        with reaching():
            objects.write(self.path / GROUP, _descriptions({})[GROUP])

    def remove(self) -> None:
        """Delete every object, that which makes it a store first."""
        with reaching():
            objects.delete([self.path / GROUP])
            objects.delete([url for _, url in objects.files(self.path)])

    def layout(self, array: str) -> Layout:
        if array not in self._layouts:
            self._layouts[array] = self._read_layout(array)
        return self._layouts[array]

    def stored(self, array: str) -> set[int]:
        with reaching():
            return chunk_numbers(objects.names(self.path / array), self.layout(array))

    def read(self, array: str, chunk: int, out: np.ndarray) -> None:
        with self._missing(array, chunk):
            raw = objects.read(self._url(array, chunk))
        if len(raw) != self.layout(array).chunk_bytes + CHECKSUM_BYTES:
            raise ChunkError(self.path, array, chunk, "is cut short")
        block = np.frombuffer(raw, np.uint8)
        if crc32c(block[:-CHECKSUM_BYTES]) != raw[-CHECKSUM_BYTES:]:
            raise ChunkError(self.path, array, chunk, "does not match its checksum")
        out.reshape(-1).view(np.uint8)[:] = block[: out.nbytes]

    def read_rows(self, array: str, chunk: int, first: int, out: np.ndarray) -> None:
        begin = first * self.layout(array).row_bytes
        with self._missing(array, chunk):
            raw = objects.read_range(self._url(array, chunk), begin, out.nbytes)
        if len(raw) != out.nbytes:
            raise ChunkError(self.path, array, chunk, "is cut short")
        out.reshape(-1).view(np.uint8)[:] = np.frombuffer(raw, np.uint8)

    def write(self, array: str, chunk: int, rows: np.ndarray) -> None:
        block = self.layout(array).padded(rows)
        self._waiting[self._url(array, chunk)] = block.tobytes() + crc32c(block)
        self._waiting_bytes += block.nbytes
        if self._waiting_bytes >= WAITING_BYTES:
            self.sync()

    def sync(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        with reaching():
            _upload(waiting)

    def leftovers(self) -> list[Path]:
        return []

    def close(self) -> None:
        self._waiting = {}

    def _url(self, array: str, chunk: int) -> Url:
        return self.path / chunk_name(array, chunk, self.layout(array))

    @contextlib.contextmanager
    def _missing(self, array: str, chunk: int) -> Iterator[None]:
        try:
            with reaching():
                yield
        except StoreError as error:
            if isinstance(error.__cause__, NotThere):
                raise ChunkError(self.path, array, chunk, "is missing") from error
            raise

    def _read_layout(self, array: str) -> Layout:
        url = self.path / array / GROUP
        try:
            with reaching():
                return parse_layout(json.loads(objects.read(url)))
        except StoreError as error:
            if isinstance(error.__cause__, NotThere):
                raise StoreError(
                    f"{self.path} is not a feature store: it has no {array}"
                ) from error
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{url} is damaged: {error}") from error


@contextlib.contextmanager
def building_objects(
    path: Url, layouts: Mapping[str, Layout], check: Callable[[], None]
) -> Iterator[ObjectChunks]:
    """Make a store, which is one when the block has ended. What was there is deleted first.

    check: raises where the right to write was lost.
    """
    try:
        ObjectChunks.create(path, layouts)
        chunks = ObjectChunks(path, writable=True)
        yield chunks
        chunks.sync()
        check()
        chunks.announce()
    except BaseException:
        with contextlib.suppress(StoreError):
            check()
            ObjectChunks(path).remove()
        raise


def _descriptions(layouts: Mapping[str, Layout]) -> dict[str, bytes]:
    """Every `zarr.json` as a store in a folder has it."""
    with tempfile.TemporaryDirectory(prefix="pcmci-") as folder:
        local = Path(folder) / "store.zarr"
        ZarrChunks.create(local, layouts)
        return {str(file.relative_to(local)): file.read_bytes() for file in local.rglob(GROUP)}


def _upload(contents: Mapping[Url, bytes]) -> None:
    with ThreadPoolExecutor(REQUESTS) as pool:
        list(pool.map(lambda one: objects.write(*one), contents.items()))
