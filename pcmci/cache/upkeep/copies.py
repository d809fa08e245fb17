"""Videos that are in `train` and in another split too, perhaps encoded anew.

Films from the web are uploaded more than once. A test video that was trained on is scored too well.

A video is its tokens' mean. The features of all films point nearly the same way: raw cosines of
different films are above 0.6 with CLIP and come to 0.99 with random weights, so no one threshold
would do. Hence the mean of all videos is taken off before the cosine. And the likeness of two
videos is the lower of their two cosines, the VLM's and the video encoder's: films of the same place
look alike to one of them, and seldom to both.

Measured with random encoders on real clips that were encoded anew, at half the size or to a sixth
of the bytes and less: 0.995 to 1, where different clips come to 0.745. Trained features feel
compression more: the kitchen's encoders, on these clips which they were not made for, give half of
the copies 0.99 and more, the worst 0.69. In the kitchen world, where all films show one room and
none is a copy, the nearest of 600 come to 0.976; hence 0.98 where nothing is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pcmci.cache.store import Store

TRAIN = "train"

TEST_ROWS, TRAIN_ROWS = 1024, 4096
"""Of one block of cosines: 16 MB, whatever the store's size."""


@dataclass(frozen=True)
class Pair:
    """A video, and the one of `train` that is most like it.

    alike: the lower of the cosines `vlm` and `video`. among: how many of `train` reach the
    threshold, this one too.
    """

    id: str
    split: str
    train: str
    alike: float
    vlm: float
    video: float
    among: int


@dataclass(frozen=True)
class SplitCopies:
    """A split against `train`: its videos, how alike the nearest in `train` are, how many of its
    videos have one that reaches the threshold."""

    split: str
    videos: int
    median: float
    highest: float
    copies: int


@dataclass(frozen=True)
class Copies:
    """above: the threshold. compared: a split each, none where there is nothing to compare, which
    `missing` then explains. pairs: all that reach the threshold, the most alike first."""

    above: float
    compared: tuple[SplitCopies, ...]
    pairs: tuple[Pair, ...]
    missing: str = ""


def find_copies(store: Store, pooled: Mapping[str, np.ndarray], above: float) -> Copies:
    """The nearest in `train` of every video of another split.

    pooled: encoder -> [n, D] float32, the mean of each video's tokens. above: from which likeness
    on a pair is listed. Of two or three videos in all, the mean says little, and so does this.
    """
    done = store.done_rows
    in_train = np.array(store.splits)[done] == TRAIN
    train, others = done[in_train], done[~in_train]
    if not len(train) or not len(others):
        lacks = f"no video of {TRAIN}" if not len(train) else f"no video but of {TRAIN}"
        return Copies(above, (), (), f"nothing to compare: {lacks} has features")
    vectors = {name: _directions(vectors, done) for name, vectors in pooled.items()}
    of_train = {name: found[in_train] for name, found in vectors.items()}
    of_others = {name: found[~in_train] for name, found in vectors.items()}
    nearest, alike, among = _nearest(list(of_others.values()), list(of_train.values()), above)
    cosines = {
        name: np.einsum("md,md->m", found, of_train[name][nearest])
        for name, found in of_others.items()
    }
    pairs = [
        Pair(
            store.ids[others[k]], store.splits[others[k]], store.ids[train[nearest[k]]],
            float(alike[k]), **{name: float(c[k]) for name, c in cosines.items()},
            among=int(among[k]),
        )
        for k in np.argsort(-alike, kind="stable").tolist()
        if among[k]
    ]  # fmt: skip
    splits = np.array(store.splits)[others]
    compared = []
    for split in dict.fromkeys(splits.tolist()):
        mine = splits == split
        compared.append(
            SplitCopies(
                split, int(mine.sum()), float(np.median(alike[mine])), float(alike[mine].max()),
                int((among[mine] > 0).sum()),
            )
        )  # fmt: skip
    return Copies(above, tuple(compared), tuple(pairs))


def _directions(vectors: np.ndarray, done: np.ndarray) -> np.ndarray:
    """[m, D] of length 1 (0 for the mean itself): the rows `done`, seen from their mean."""
    seen = vectors[done]
    seen -= seen.mean(0, dtype=np.float64).astype(np.float32)
    seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return seen


def _nearest(
    others: list[np.ndarray], train: list[np.ndarray], above: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """others: [m, D] an encoder, train: [k, D]; all of length 1.

    Returns [m] each: the place in train of the most alike (the first of several), how alike, how
    many reach `above`.
    """
    m, k = len(others[0]), len(train[0])
    nearest, alike = np.zeros(m, int), np.full(m, -np.inf, np.float32)
    among = np.zeros(m, int)
    for a in range(0, m, TEST_ROWS):
        part = slice(a, a + TEST_ROWS)
        for b in range(0, k, TRAIN_ROWS):
            cosines = others[0][part] @ train[0][b : b + TRAIN_ROWS].T
            for mine, theirs in zip(others[1:], train[1:], strict=True):
                np.minimum(cosines, mine[part] @ theirs[b : b + TRAIN_ROWS].T, out=cosines)
            np.minimum(cosines, 1, out=cosines)  # rounding
            best = cosines.argmax(1)
            highest = cosines[np.arange(len(best)), best]
            better = highest > alike[part]
            nearest[part] = np.where(better, b + best, nearest[part])
            alike[part] = np.maximum(highest, alike[part])
            among[part] += (cosines >= above).sum(1)
    return nearest, alike, among
