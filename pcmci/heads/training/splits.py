"""Which videos train, which choose, which are scored."""

from __future__ import annotations

import numpy as np

from pcmci.errors import UsageError

CARVE_SEED = 0
"""The validation split is the same for every run: seeds compare models, not splits."""

ROUNDED = 0.05
"""Each activity's share is rounded by itself, as long as all together are no further than this, of
what was asked for, from it."""


def training_splits(
    splits: np.ndarray,
    groups: np.ndarray,
    activity: np.ndarray,
    share: float,
) -> np.ndarray:
    """The splits [n] with a `val` split, where one is asked for or already there.

    splits, groups: [n] str, see `pcmci.cache.schema.VideoTable`. activity: [n] int, -1 for none.
    share: of the training videos; 0 leaves the splits as they are.
    By the protocol: whole groups (Breakfast's persons) where videos share one, else stratified by
    activity (COIN), else drawn (Charades). The share holds over all activities together. Raises
    UsageError where nothing would be left to train, and where there is a `val` split already.
    """
    train = np.flatnonzero(splits == "train")
    if share == 0:
        return splits
    if (splits == "val").any():
        raise UsageError(
            f"validation {share}: the data set has a val split of its own, which is used; leave "
            "it at 0"
        )
    rng = np.random.default_rng(CARVE_SEED)
    if len(set(groups[train])) < len(train):
        chosen = _whole_groups(train, groups[train], share, rng)
    else:
        chosen = _stratified(train, activity[train], share, rng)
    if not 0 < len(chosen) < len(train):
        raise UsageError(
            f"validation {share} of {len(train)} training videos sets {len(chosen)} aside; "
            "choose a share that leaves some on both sides"
        )
    carved = splits.copy()
    carved[chosen] = "val"
    return carved


def is_shared_out(
    splits: np.ndarray, groups: np.ndarray, activity: np.ndarray, share: float
) -> bool:
    """Whether `training_splits` shares videos out over all activities, where rounding each alone
    would miss the share. Runs that were made when that was all it did had another split."""
    train = np.flatnonzero(splits == "train")
    if share == 0 or (splits == "val").any() or len(set(groups[train])) < len(train):
        return False
    sizes = np.unique(activity[train], return_counts=True)[1]
    return _is_off(_rounded(sizes, share), sizes, share)


def _whole_groups(
    rows: np.ndarray, groups: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    names = rng.permutation(np.unique(groups))
    sizes = np.array([(groups == name).sum() for name in names])
    enough = int(np.searchsorted(sizes.cumsum(), share * len(rows))) + 1
    return rows[np.isin(groups, names[:enough])]


def _stratified(
    rows: np.ndarray, activity: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    labels = np.unique(activity)
    drawn = [rng.permutation(rows[activity == label]) for label in labels]
    sizes = np.array([len(of_label) for of_label in drawn], dtype=int)
    counts = _rounded(sizes, share)
    if _is_off(counts, sizes, share):
        counts = _shared_out(sizes, share, rng)
    chosen = [of_label[:count] for of_label, count in zip(drawn, counts, strict=True)]
    return np.sort(np.concatenate([rows[:0], *chosen]))


def _rounded(sizes: np.ndarray, share: float) -> np.ndarray:
    return np.array([round(share * size) for size in sizes.tolist()], dtype=int)


def _is_off(counts: np.ndarray, sizes: np.ndarray, share: float) -> bool:
    """Whether counts, each rounded by itself, miss the share of all."""
    wanted = share * int(sizes.sum())
    return bool(abs(int(counts.sum()) - wanted) > ROUNDED * wanted)


def _shared_out(sizes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """How many of each activity, [N] of [N], so that the share holds over all of them: what is
    whole of each one's own share, and of the rest one each of those that lack most of one, of an
    activity with a single video last (largest remainders)."""
    own = share * sizes
    counts = np.floor(own + 1e-9).astype(int)
    left = round(share * int(sizes.sum())) - int(counts.sum())
    lots = rng.permutation(len(sizes))
    order = lots[np.lexsort(((counts - own)[lots].round(9), (counts + 1 >= sizes)[lots]))]
    counts[order[:left]] += 1
    return counts
