"""What the features of a store are like: a pass over all of them, block by block.

The numbers show what went wrong in an extraction and raised no error: a split that was made with
other weights, films that are black, vectors of zeros. Videos that are in `train` and in another
split too are found by `copies`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pcmci.cache.schema import FEATURES
from pcmci.cache.store import Store
from pcmci.cache.upkeep.copies import Copies, find_copies

BLOCK_BYTES = 16 * 2**20
"""Of features in float16, held once a thread of dask."""

PIECE_BYTES = 2**18
"""Of a block, taken to float64 at a time: what then stays in a core's cache."""

ALIKE = 1e-3
"""Half precision rounds by as much: tokens that differ by less are the same."""

UNUSUAL = 6
"""Standard deviations, estimated from the median deviation, which outliers do not move."""


@dataclass(frozen=True)
class SplitStats:
    """The features that one encoder gave for one split.

    videos: how many the split has. done: of these, with features; the numbers are of them, and None
        where there are none.
    mean, sd: of all numbers. norm, norm_min, norm_max: of tokens, their mean and range.
    zero: ids of videos with a token that is all zeros. still: of videos whose tokens are all the
        same, as those of a black film. unusual: of videos whose mean norm is more than 6 robust
        standard deviations off the median of all videos.
    """

    encoder: str
    split: str
    videos: int
    done: int
    mean: float | None
    sd: float | None
    norm: float | None
    norm_min: float | None
    norm_max: float | None
    zero: tuple[str, ...]
    still: tuple[str, ...]
    unusual: tuple[str, ...]


@dataclass(frozen=True)
class StoreStats:
    """`features`: one for each encoder and split. `copies`: what is in `train` and elsewhere."""

    features: tuple[SplitStats, ...]
    copies: Copies


class Videos(NamedTuple):
    """What is kept of each of m videos; of one without features, NaN.

    mean, variance: [m] float64, of its numbers. norm, norm_min, norm_max: [m] float64, of its
    tokens. still: [m] bool. pooled: [m, D] float32, the mean of its tokens over all views.
    """

    mean: np.ndarray
    variance: np.ndarray
    norm: np.ndarray
    norm_min: np.ndarray
    norm_max: np.ndarray
    still: np.ndarray
    pooled: np.ndarray


def store_stats(store: Store, above: float = 0.98) -> StoreStats:
    """Read every feature once, each video checked against its checksum.

    above: see `find_copies`. In memory at a time: a block a thread, and of every video the mean of
    its tokens. The work is dask's, on whatever scheduler is set.
    Raises StoreError naming the chunks and videos that are damaged.
    """
    import dask

    tasks = {
        array: [
            dask.delayed(describe)(block)
            for block in store.to_dask(array, block_bytes=BLOCK_BYTES).to_delayed().ravel()
        ]
        for array in FEATURES
    }
    (blocks,) = dask.compute(tasks)
    seen = {array: _joined(blocks.pop(array)) for array in FEATURES}
    features = [one for array in FEATURES for one in _by_split(store, array, seen[array])]
    return StoreStats(
        tuple(features), find_copies(store, {a: seen[a].pooled for a in FEATURES}, above)
    )


def describe(block: np.ndarray) -> Videos:
    """block: [m, views, L, D] float16, m at least 1."""
    rows = max(1, PIECE_BYTES * len(block) // block.nbytes)
    return _joined([_describe(block[k : k + rows]) for k in range(0, len(block), rows)])


def _describe(piece: np.ndarray) -> Videos:
    tokens = piece.reshape(len(piece), -1, piece.shape[-1]).astype(np.float64)  # [m, views * L, D]
    pooled = tokens.mean(1)
    norms = np.linalg.norm(tokens, axis=2)
    off = np.linalg.norm(tokens - pooled[:, None], axis=2)
    still = (off <= ALIKE * norms).all(1) & (tokens.shape[1] > 1)
    return Videos(
        tokens.mean((1, 2)), tokens.var((1, 2)),
        norms.mean(1), norms.min(1), norms.max(1), still, pooled.astype(np.float32),
    )  # fmt: skip


def _joined(parts: list[Videos]) -> Videos:
    return Videos(*map(np.concatenate, zip(*parts, strict=True)))


def _by_split(store: Store, encoder: str, seen: Videos) -> list[SplitStats]:
    unusual = _unusual(seen.norm, store.done_rows)

    def ids(rows: np.ndarray, chosen: np.ndarray) -> tuple[str, ...]:
        return tuple(store.ids[row] for row in rows[chosen[rows]].tolist())

    found = []
    for split in dict.fromkeys(store.splits):
        rows = store.rows(split, done=True)
        numbers = _numbers(seen, rows) if len(rows) else dict.fromkeys(NUMBERS)
        found.append(
            SplitStats(
                encoder, split, len(store.rows(split)), len(rows), **numbers,
                zero=ids(rows, seen.norm_min == 0),
                still=ids(rows, seen.still),
                unusual=ids(rows, unusual),
            )
        )  # fmt: skip
    return found


NUMBERS = ("mean", "sd", "norm", "norm_min", "norm_max")


def _numbers(seen: Videos, rows: np.ndarray) -> Mapping[str, float]:
    """rows: at least one. Every video has as many numbers as the others, so means can be averaged;
    the variance is that within videos and that between their means."""
    means = seen.mean[rows]
    values = (
        means.mean(),
        np.sqrt(seen.variance[rows].mean() + means.var()),
        seen.norm[rows].mean(),
        seen.norm_min[rows].min(),
        seen.norm_max[rows].max(),
    )
    return dict(zip(NUMBERS, map(float, values), strict=True))


def _unusual(norm: np.ndarray, done: np.ndarray) -> np.ndarray:
    """[n] whether a video's mean norm is far off. norm: [n]. done: the rows that have one."""
    if not len(done):
        return np.zeros(len(norm), bool)
    median = np.median(norm[done])
    sd = 1.4826 * np.median(np.abs(norm[done] - median))  # of a normal distribution
    return np.abs(norm - median) > UNUSUAL * max(sd, ALIKE * median)
