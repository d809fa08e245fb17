"""Which videos train, which choose, which are scored."""

from __future__ import annotations

import numpy as np

from pcmci.errors import UsageError

CARVE_SEED = 0
"""The validation split is the same for every run: seeds compare models, not splits."""


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
    activity (COIN), else drawn (Charades). Raises UsageError where nothing would be left to train,
    and where there is a `val` split already.
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
    chosen = [rows[:0]]
    for label in np.unique(activity):
        of_label = rng.permutation(rows[activity == label])
        chosen.append(of_label[: round(share * len(of_label))])
    return np.sort(np.concatenate(chosen))
