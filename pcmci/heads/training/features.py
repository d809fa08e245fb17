"""Features on their way from a store to the device, batch by batch.

Two sources with one face: `ResidentFeatures` holds everything on the device, `StreamedFeatures`
reads chunks in a shuffled order through a buffer, for stores that do not fit. Both give every
video once an epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import psutil
import torch
from torch import Tensor

from pcmci.cache.schema import FEATURES

if TYPE_CHECKING:
    from pcmci.cache.store import Store

WEIGHTS = "weights"
"""The S~ of the frozen embeddings, beside the store's own `vlm` and `video`."""


@dataclass(frozen=True)
class Batch:
    """rows: [B] rows of the store. vlm: [B, L, D]. video: [B, Lv, Dv]. weights: [B, N, L] or None.
    All but the rows are float32 on the device; features that were not asked for are empty, [B, 0].
    Of S runs: [S, ...] everything."""

    rows: np.ndarray
    vlm: Tensor
    video: Tensor
    weights: Tensor | None = None

    @classmethod
    def of(cls, rows: np.ndarray, arrays: Mapping[str, Tensor]) -> Batch:
        """arrays: by name, as they were asked for."""
        nothing = next(iter(arrays.values())).new_empty((*rows.shape, 0))
        vlm, video = (arrays.get(name, nothing) for name in FEATURES)
        return cls(rows, vlm, video, arrays.get(WEIGHTS))


class Features(Protocol):
    """Batches of the rows asked for."""

    kind: str

    def batches(
        self, rows: np.ndarray, batch_size: int, rng: np.random.Generator | None = None
    ) -> Iterator[Batch]:
        """Every row once. With `rng`: in a random order, of each video a random view; without:
        in the given order, view 0 (the uniform sampling)."""
        ...


def open_features(
    store: Store,
    rows: np.ndarray,
    weights: np.ndarray | None,
    device: torch.device,
    memory: int | None = None,
    readers: int = 1,
    wanted: Sequence[str] = FEATURES,
) -> Features:
    """Resident where the rows fit into `memory` bytes (default: what the device has to spare),
    streamed otherwise.

    rows: [m] the rows that will ever be asked for. weights: [n, views, N, L] S~, or None.
    readers: runs that read at the same time; a streamed one has a buffer of its own. wanted: which
    of the store's features.
    """
    arrays: dict[str, _Source] = {name: _StoreArray(store, name) for name in wanted}
    if weights is not None:
        arrays[WEIGHTS] = MemoryArray(weights)
    needed = sum(len(rows) * array.row_bytes for array in arrays.values())
    budget = memory if memory is not None else _spare_memory(device)
    if needed <= budget:
        return ResidentFeatures(arrays, rows, device)
    return StreamedFeatures(arrays, store.chunk_rows, device, budget // readers)


def batches_of_runs(
    features: Features, rows: np.ndarray, batch_size: int, rngs: Sequence[np.random.Generator]
) -> Iterator[Batch]:
    """What `features.batches` gives each of S runs with its own `rng`, side by side [S, ...]."""
    if isinstance(features, ResidentFeatures):
        yield from features.batches_of_runs(rows, batch_size, rngs)
        return
    each = [features.batches(rows, batch_size, rng) for rng in rngs]
    for batches in zip(*each, strict=True):
        weights = [batch.weights for batch in batches if batch.weights is not None]
        yield Batch(
            np.stack([batch.rows for batch in batches]),
            torch.stack([batch.vlm for batch in batches]),
            torch.stack([batch.video for batch in batches]),
            torch.stack(weights) if weights else None,
        )


class ResidentFeatures:
    """Everything on the device, in the store's own float16."""

    kind = "resident"

    def __init__(self, arrays: dict[str, _Source], rows: np.ndarray, device: torch.device) -> None:
        self._device = device
        self._place = np.full(int(rows.max()) + 1, -1)
        self._place[rows] = np.arange(len(rows))
        self._arrays = {
            name: torch.from_numpy(array.read(rows)).to(device) for name, array in arrays.items()
        }
        self._views = next(iter(self._arrays.values())).shape[1]

    def batches(
        self, rows: np.ndarray, batch_size: int, rng: np.random.Generator | None = None
    ) -> Iterator[Batch]:
        order = rows if rng is None else rng.permutation(rows)
        yield from self._gathered(order, _draw_views(len(rows), self._views, rng), batch_size)

    def batches_of_runs(
        self, rows: np.ndarray, batch_size: int, rngs: Sequence[np.random.Generator]
    ) -> Iterator[Batch]:
        drawn = [(rng.permutation(rows), _draw_views(len(rows), self._views, rng)) for rng in rngs]
        order, views = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
        yield from self._gathered(order, views, batch_size)

    def _gathered(self, order: np.ndarray, views: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """order, views: [..., m]."""
        # One transfer of indices an epoch; every batch is then gathered on the device.
        places = torch.from_numpy(self._place[order]).to(self._device)
        on_device = torch.from_numpy(views).to(self._device)
        for start in range(0, order.shape[-1], batch_size):
            part = (..., slice(start, start + batch_size))
            at = places[part], on_device[part]
            arrays = {name: array[at].float() for name, array in self._arrays.items()}
            yield Batch.of(order[part], arrays)


class StreamedFeatures:
    """Chunks in a shuffled order, mixed in buffers of as many as a fourth of the memory holds: one
    is given out while the next is read. The rest is for what is made of them, and for what the C
    library keeps of those before (`keep_freed_memory`)."""

    kind = "streamed"

    def __init__(
        self, arrays: dict[str, _Source], chunk_rows: int, device: torch.device, memory: int
    ) -> None:
        self._arrays = arrays
        self._device = device
        self._chunk_rows = chunk_rows
        self._views = next(iter(arrays.values())).views
        row_bytes = sum(array.row_bytes for array in arrays.values())
        self._chunks_a_buffer = max(1, memory // (4 * chunk_rows * row_bytes))

    def batches(
        self, rows: np.ndarray, batch_size: int, rng: np.random.Generator | None = None
    ) -> Iterator[Batch]:
        buffers = self._plan(rows, rng)
        begun: dict[str, np.ndarray] = {}  # of a batch that crosses the border of two buffers
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, buffers[0], rng)
            for following in [*buffers[1:], None]:
                buffer = ahead.result()  # the one before is let go: there are never three
                if following is not None:
                    ahead = reader.submit(self._read, following, rng)
                size, missing = len(buffer.rows), batch_size - len(begun.get("rows", ()))
                borders = [0, *range(missing, size, batch_size), size]
                for start, stop in itertools.pairwise(borders):
                    taken = buffer.take(slice(start, stop))
                    if begun:
                        taken = {key: np.concatenate([begun[key], taken[key]]) for key in taken}
                    whole = len(taken["rows"]) == batch_size
                    begun = {} if whole else taken
                    if whole:
                        yield self._to_device(taken)
            if begun:
                yield self._to_device(begun)

    def _plan(self, rows: np.ndarray, rng: np.random.Generator | None) -> list[np.ndarray]:
        """The rows of each buffer, in the order in which they are read."""
        if rng is None:
            step = self._chunks_a_buffer * self._chunk_rows
            return [rows[i : i + step] for i in range(0, len(rows), step)]
        chunks, chunk_of = np.unique(rows // self._chunk_rows, return_inverse=True)
        buffer_of = np.empty(len(chunks), np.int64)
        buffer_of[rng.permutation(len(chunks))] = np.arange(len(chunks)) // self._chunks_a_buffer
        # Within a buffer chunks keep their order, which is the fastest to read.
        order = np.argsort(buffer_of[chunk_of], kind="stable")
        borders = np.flatnonzero(np.diff(buffer_of[chunk_of[order]])) + 1
        return np.split(rows[order], borders)

    def _read(self, rows: np.ndarray, rng: np.random.Generator | None) -> _Buffer:
        # Reads of buffers follow each other in one thread, so that what is drawn is reproducible.
        places = np.arange(len(rows)) if rng is None else rng.permutation(len(rows))
        views = _draw_views(len(rows), self._views, rng)
        arrays = {name: array.read(rows) for name, array in self._arrays.items()}
        return _Buffer(rows[places], places, views, arrays)

    def _to_device(self, taken: dict[str, np.ndarray]) -> Batch:
        pin = self._device.type == "cuda"
        arrays = {}
        for name in self._arrays:
            tensor = torch.from_numpy(taken[name])
            tensor = tensor.pin_memory() if pin else tensor
            arrays[name] = tensor.to(self._device, non_blocking=pin).float()
        return Batch.of(taken["rows"], arrays)


@dataclass(frozen=True)
class _Buffer:
    """Videos as they were read, and the order in which they are given.

    rows: [m] in that order. places: [m] where each lies in the arrays. views: [m] which one of it.
    arrays: name -> [m, views, ...].
    """

    rows: np.ndarray
    places: np.ndarray
    views: np.ndarray
    arrays: dict[str, np.ndarray]

    def take(self, part: slice) -> dict[str, np.ndarray]:
        """Copies of a part of the videos, one view each, and their `rows`."""
        at = self.places[part], self.views[part]
        return {"rows": self.rows[part], **{name: array[at] for name, array in self.arrays.items()}}


class _Source(Protocol):
    row_bytes: int
    views: int

    def read(self, rows: np.ndarray) -> np.ndarray: ...


class _StoreArray:
    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        encoder = getattr(store.spec, name)
        self.views = store.spec.sampling.views
        self.row_bytes = 2 * self.views * encoder.tokens * encoder.width

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self._store.read(self._name, rows)


class MemoryArray:
    """Features that lie in memory already. array: [n, views, ...]."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.views = array.shape[1]
        self.row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self._array[rows])


def _draw_views(n: int, views: int, rng: np.random.Generator | None) -> np.ndarray:
    if rng is None or views == 1:
        return np.zeros(n, dtype=np.int64)
    return rng.integers(views, size=n)


def _spare_memory(device: torch.device) -> int:
    """Bytes that features may take: 80 % of a GPU's free memory, half of the machine's."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(0.8 * free)
    return int(psutil.virtual_memory().available) // 2
