"""Features on their way from a store to the device, batch by batch.

Two sources with one face: `ResidentFeatures` holds everything on the device, `StreamedFeatures`
reads chunks in a shuffled order through a buffer, for stores that do not fit. Both give every
video once an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import psutil
import torch
from torch import Tensor

if TYPE_CHECKING:
    from pcmci.cache.store import Store

WEIGHTS = "weights"
"""The S~ of the frozen embeddings, beside the store's own `vlm` and `video`."""


@dataclass(frozen=True)
class Batch:
    """rows: [B] rows of the store. vlm: [B, L, D]. video: [B, Lv, Dv]. weights: [B, N, L] or None.
    All but the rows are float32 on the device. Of S runs: [S, ...] everything."""

    rows: np.ndarray
    vlm: Tensor
    video: Tensor
    weights: Tensor | None


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
) -> Features:
    """Resident where the rows fit into `memory` bytes (default: what the device has to spare),
    streamed otherwise.

    rows: [m] the rows that will ever be asked for. weights: [n, views, N, L] S~, or None.
    readers: runs that read at the same time; a streamed one has a buffer of its own.
    """
    arrays: dict[str, _Source] = {name: _StoreArray(store, name) for name in ("vlm", "video")}
    if weights is not None:
        arrays[WEIGHTS] = _MemoryArray(weights)
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
        self._views = self._arrays["vlm"].shape[1]

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
            yield Batch(order[part], arrays["vlm"], arrays["video"], arrays.get(WEIGHTS))


class StreamedFeatures:
    """Chunks in a shuffled order, mixed in a buffer of as many as the memory holds three times:
    one buffer is being used, the next is read, and what was left over is joined to it."""

    kind = "streamed"

    def __init__(
        self, arrays: dict[str, _Source], chunk_rows: int, device: torch.device, memory: int
    ) -> None:
        self._arrays = arrays
        self._device = device
        self._chunk_rows = chunk_rows
        self._views = arrays["vlm"].views
        row_bytes = sum(array.row_bytes for array in arrays.values())
        self._chunks_a_buffer = max(1, memory // (3 * chunk_rows * row_bytes))

    def batches(
        self, rows: np.ndarray, batch_size: int, rng: np.random.Generator | None = None
    ) -> Iterator[Batch]:
        buffers = self._plan(rows, rng)
        left: dict[str, np.ndarray] = {}
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, buffers[0], rng)
            for following in [*buffers[1:], None]:
                loaded = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._read, following, rng)
                if left:
                    loaded = {key: np.concatenate([left[key], loaded[key]]) for key in loaded}
                whole = len(loaded["rows"])
                if following is not None:  # batches cross the borders of buffers
                    whole -= whole % batch_size
                for start in range(0, whole, batch_size):
                    yield self._to_device(loaded, slice(start, min(start + batch_size, whole)))
                left = {key: array[whole:] for key, array in loaded.items()}

    def _plan(self, rows: np.ndarray, rng: np.random.Generator | None) -> list[np.ndarray]:
        chunk_of = rows // self._chunk_rows
        if rng is None:
            step = self._chunks_a_buffer * self._chunk_rows
            return [rows[i : i + step] for i in range(0, len(rows), step)]
        chunks = rng.permutation(np.unique(chunk_of))
        step = self._chunks_a_buffer
        return [rows[np.isin(chunk_of, chunks[i : i + step])] for i in range(0, len(chunks), step)]

    def _read(self, rows: np.ndarray, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        # Whole chunks in their order are the fastest to read; videos are mixed afterwards. Reads of
        # buffers follow each other in one thread, so that what is drawn is reproducible.
        order = np.arange(len(rows)) if rng is None else rng.permutation(len(rows))
        views = _draw_views(len(rows), self._views, rng)
        read = {name: array.read(rows)[order, views] for name, array in self._arrays.items()}
        return {"rows": rows[order], **read}

    def _to_device(self, loaded: dict[str, np.ndarray], part: slice) -> Batch:
        pin = self._device.type == "cuda"
        arrays = {}
        for name in self._arrays:
            tensor = torch.from_numpy(loaded[name][part])
            tensor = tensor.pin_memory() if pin else tensor
            arrays[name] = tensor.to(self._device, non_blocking=pin).float()
        return Batch(loaded["rows"][part], arrays["vlm"], arrays["video"], arrays.get(WEIGHTS))


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


class _MemoryArray:
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
