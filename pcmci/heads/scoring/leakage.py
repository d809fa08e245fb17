"""What can be read off a representation: a linear probe of a confounder's value.

How well h, i or c is known from V, V^P, T', T*, V* or z says where in a head a confounder still is,
whether the answer goes by it or not. The probe is ridge regression of the value, one direction
each of +1 and -1, the largest of which is its guess: scikit-learn's RidgeClassifier, in closed form
and solved among videos, where these are fewer than numbers a video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FOLDS = 5
RIDGE = 1.0


@dataclass(frozen=True)
class Leakage:
    """How often the probe is right on videos that it was not fitted to, and how often one is that
    always says the commonest value; None, with a reason, where there is nothing to learn."""

    accuracy: float | None
    chance: float | None
    videos: int
    values: int
    why: str = ""


def leakage(
    representation: np.ndarray,
    values: Sequence[object] | np.ndarray,
    groups: Sequence[str] | np.ndarray | None = None,
    folds: int = FOLDS,
    ridge: float = RIDGE,
) -> Leakage:
    """Probe the values [n] from a representation [n, ...], whatever shape a video's has.

    Every number is divided by its standard deviation over the videos that are fitted. groups: [n]
    what must not be torn apart (a person, a session); each video by default. Videos whose
    representation is not finite are left out.
    """
    flat = np.asarray(representation, np.float64).reshape(len(representation), -1)
    names = np.array([str(value) for value in values])
    groups = np.arange(len(names)).astype(str) if groups is None else np.asarray(groups, str)
    if not len(flat) == len(names) == len(groups):
        raise ValueError(f"{len(flat)} videos, {len(names)} values and {len(groups)} groups")
    there = np.isfinite(flat).all(1)
    flat, names, groups = flat[there], names[there], groups[there]
    kinds, value = np.unique(names, return_inverse=True)
    parts, member = np.unique(groups, return_inverse=True)
    if len(kinds) < 2:
        return Leakage(None, None, len(names), len(kinds), "all videos have the same value")
    if len(parts) < folds:
        why = f"{len(parts)} groups of videos are fewer than {folds} folds"
        return Leakage(None, None, len(names), len(kinds), why)
    fold = np.random.default_rng(0).permutation(len(parts))[member] % folds
    right = np.zeros(len(names), bool)
    for one in range(folds):
        unseen = fold == one
        guess = ridge_classes(flat[~unseen], value[~unseen], flat[unseen], len(kinds), ridge)
        right[unseen] = guess == value[unseen]
    chance = float(np.bincount(value).max() / len(value))
    return Leakage(float(right.mean()), chance, len(names), len(kinds))


def ridge_classes(
    seen: np.ndarray, value: np.ndarray, unseen: np.ndarray, classes: int, ridge: float = RIDGE
) -> np.ndarray:
    """[m] the likeliest class of the unseen [m, D], by what was seen [n, D] of classes [n]."""
    middle, spread = seen.mean(0), seen.std(0)
    spread = np.where(spread > 0, spread, 1)
    x, new = (seen - middle) / spread, (unseen - middle) / spread
    y = np.where(np.arange(classes) == value[:, None], 1.0, -1.0)
    base = y.mean(0)
    if len(x) < x.shape[1]:
        scores = new @ (x.T @ np.linalg.solve(x @ x.T + ridge * np.eye(len(x)), y - base))
    else:
        scores = new @ np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ (y - base))
    return (scores + base).argmax(1)
