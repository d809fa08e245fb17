"""A store's features as a lazy dask.array, which any scheduler computes, also on other machines.

The graph holds no store and no features, only a path and the digest of what lies there: whoever
computes opens the store itself, and refuses one that is another by now.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pcmci.cache.formats.layout import Chunks
from pcmci.errors import StoreError
from pcmci.remote.url import Place

if TYPE_CHECKING:
    import dask.array

OPEN_STORES = 4
"""Kept open by a process, since opening one reads its whole table of videos."""


class Features(Protocol):
    """What is asked of a store here. See `pcmci.cache.store.Store`."""

    path: Place
    chunks: Chunks
    chunk_rows: int

    def __len__(self) -> int: ...

    @property
    def content_digest(self) -> str: ...

    def read(self, array: str, rows: Any = None, view: int | None = None) -> np.ndarray: ...


Open = Callable[[str], Features]
"""Opens the store at a path. A graph names it, so it has to be a module's function."""

_opened: dict[tuple[str, str], Features] = {}
_opening = threading.Lock()


def lazy_array(
    store: Features, open_again: Open, array: str, view: int | None, block_bytes: int
) -> dask.array.Array:
    """See `Store.to_dask`. open_again: how whoever computes opens the store."""
    import dask.array
    from dask.base import tokenize

    if block_bytes < 1:
        raise StoreError(f"block_bytes {block_bytes} must be at least 1")
    none = store.read(array, slice(0), view)  # [0, views, L, D] or [0, L, D]; or an error
    row = none.shape[1:]
    chunk_bytes = store.chunk_rows * prod(row) * none.itemsize
    rows = min(len(store), store.chunk_rows * max(1, block_bytes // chunk_bytes))
    # Whoever computes may be in another folder.
    path = store.path.absolute() if isinstance(store.path, Path) else store.path
    shape = (len(store), *row)
    source = _Source(str(path), store.content_digest, open_again, array, view, shape, none.dtype)
    # Not of the path: a copy of the store has the same numbers.
    token = tokenize(source.digest, array, view, rows)
    # Inlined: a task holds what it reads from, and waits for no other that would pass it on.
    return dask.array.from_array(
        source, (rows, *row), f"pcmci-{array}-{token}",
        meta=none, asarray=False, inline_array=True,
    )  # fmt: skip


@dataclass(frozen=True)
class _Source:
    """What dask takes for an array: it has a shape, and reads when it is indexed.

    path, digest: of the store. open: how it is opened. array, view: as in `Store.read`.
    """

    path: str
    digest: str
    open: Open
    array: str
    view: int | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The rows are all that is read: dask lets what is cut out of a block reach to here."""
        rows, *others = index if isinstance(index, tuple) else (index,)
        if isinstance(rows, int | np.integer):
            return self._read([rows])[(0, *others)]
        return self._read(rows)[(slice(None), *others)]

    def _read(self, rows: Any) -> np.ndarray:
        store = self._store()
        try:
            return store.read(self.array, rows, self.view)
        except StoreError:
            # Damage, or was the store replaced since this process opened it? Then say that.
            with _opening:
                _opened.pop((self.path, self.digest), None)
            self._store()
            raise

    def _store(self) -> Features:
        """The store, opened once a process. Raises StoreError where it is another one by now."""
        key = self.path, self.digest
        with _opening:
            if key not in _opened:
                store = self.open(self.path)
                # Whoever still reads from one that was let go keeps it alive, and open.
                weakref.finalize(store, store.chunks.close)
                if store.content_digest != self.digest:
                    raise StoreError(
                        f"{self.path} has changed since to_dask was called; call it again on the "
                        "store as it is now"
                    )
                while len(_opened) >= OPEN_STORES:
                    del _opened[next(iter(_opened))]
                _opened[key] = store
            return _opened[key]
