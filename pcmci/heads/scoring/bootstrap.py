"""How sure a difference between two settings is: a paired bootstrap over sessions.

Videos of one session (one person's performance, filmed by several cameras) tell the same story:
sessions are drawn, not videos. Both settings are scored on the same draws. Where a setting has
several seeds, they are drawn as well, so that the interval holds what another seed would change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from pcmci.errors import PcmciError
from pcmci.heads.scoring.metrics import (
    TAU,
    coprediction,
    off_diagonal_density,
    rank_last,
    top1_correct,
    weighted_average_precision,
)
from pcmci.heads.scoring.predictions import LabelPredictions, Predictions
from pcmci.heads.scoring.scores import sigmoid

RESAMPLES = 2000
COVERED = 0.95
ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval, as fractions."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether it has ends: not where a draw had nothing to score."""
        return not math.isnan(self.low)

    @property
    def excludes_zero(self) -> bool:
        """Whether all of the interval lies on one side of 0, by more than a rounding error."""
        return self.low > ROUNDING or self.high < -ROUNDING


def session_weights(sessions: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """[1 + R, n] how often each video counts: once each, then in R draws of as many sessions.

    sessions: [n] str.
    """
    names, member = np.unique(sessions, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return np.vstack([np.ones((1, len(sessions))), counts[:, member]])


def resampled_accuracy(
    part: LabelPredictions, rows: np.ndarray, present: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """[R] Acc of the videos `rows` [m] bool under weights [R, rows.sum()]; NaN for a draw without
    labels."""
    labelled = part.target[rows] >= 0
    correct = top1_correct(part.logits[rows], part.target[rows], present[rows])[labelled]
    weights = weights[:, labelled]
    right, total = weights @ correct, weights.sum(1)
    return np.divide(right, total, out=np.full_like(right, np.nan), where=total > 0)


def resampled_precision(
    part: LabelPredictions, rows: np.ndarray, present: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """[R] mAP, likewise: over the classes that have a positive video in the draw."""
    logits, target = part.logits[rows], part.target[rows]
    if part.unlabelled_last:
        logits = rank_last(logits, target.sum(1) == 0)
    ap = np.stack(
        [
            weighted_average_precision(logits[:, c], target[:, c], weights)
            for c in range(target.shape[1])
        ]
    )
    total, classes = np.nansum(ap, axis=0), (~np.isnan(ap)).sum(0)
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)


def resampled_density(
    part: LabelPredictions, rows: np.ndarray, present: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """[R] ODD at the paper's tau, likewise: of the videos that have features. NaN for a label set
    of one, which has no pairs."""
    if len(part.names) < 2:
        return np.full(len(weights), np.nan)
    there = present[rows]
    p = sigmoid(part.logits[rows][there])
    return np.array([off_diagonal_density(coprediction(p, w[there]), TAU) for w in weights])


Resampled = Callable[[LabelPredictions, np.ndarray, np.ndarray, np.ndarray], np.ndarray]

SCORES: dict[str, tuple[str, Resampled]] = {
    "Acc": ("activity", resampled_accuracy),
    "mAP": ("steps", resampled_precision),
    f"ODD@{TAU:.4g}": ("steps", resampled_density),
}
"""Score -> the label set that it is of, and how it is resampled."""


class Bootstrap:
    """One split's draws of sessions, for any number of settings that were scored on it.

    sessions: the different ones, sorted. Two splits with the same sessions (a test and its shifted
    twins) have the same draws.
    Raises PcmciError where predictions are of other videos than those it began with.
    """

    def __init__(
        self, first: Predictions, split: str, resamples: int = RESAMPLES, seed: int = 0
    ) -> None:
        rows = first.splits == split
        if not rows.any():
            raise PcmciError(f"no video of split {split!r} was predicted")
        self.split = split
        self.sessions = np.unique(first.sessions[rows])
        self._ids = first.ids[rows]
        self._weights = session_weights(first.sessions[rows], resamples, seed)

    def scores(self, runs: Sequence[Predictions], score: str) -> np.ndarray:
        """[S, 1 + R] a score of S runs (seeds): on the videos themselves, then on each draw."""
        labels, resampled = SCORES[score]
        each = []
        for predictions in runs:
            rows = predictions.splits == self.split
            if not np.array_equal(predictions.ids[rows], self._ids):
                raise PcmciError(f"runs that are compared scored other videos of {self.split!r}")
            part = predictions.labels[labels]
            each.append(resampled(part, rows, predictions.present, self._weights))
        return np.stack(each)


def interval(values: np.ndarray, seed: int = 0) -> Interval:
    """The mean over seeds with its interval over sessions and seeds.

    values: [S, 1 + R] of `Bootstrap.scores`, or a difference of two such arrays (seed by seed; a
    setting with one run is compared with each seed of the other). In every draw of sessions the
    seeds are drawn too. With one seed the interval knows nothing of what another would have done.
    An interval of which a draw is undefined has NaN ends.
    """
    value, drawn = float(values[:, 0].mean()), values[:, 1:]
    if np.isnan(drawn).any():
        return Interval(value, math.nan, math.nan)
    chosen = np.random.default_rng(seed).integers(len(drawn), size=drawn.shape)
    means = np.take_along_axis(drawn, chosen, axis=0).mean(0)
    tail = 100 * (1 - COVERED) / 2
    low, high = np.percentile(means, (tail, 100 - tail))
    return Interval(value, float(low), float(high))


def differences(
    predictions: Mapping[str, Sequence[Predictions | None]],
    reference: str,
    resamples: int = RESAMPLES,
    progress: bool = False,
    scores: Sequence[str] = tuple(SCORES),
) -> dict[str, dict[str, dict[str, Interval]]]:
    """Score -> setting -> split -> how much higher than the reference, for every score that was
    predicted and every split but `val`, which chose. A split on which the score is undefined is
    left out.

    predictions: setting (an order) -> its runs, one a seed, in the same order of seeds, None for a
    run that failed; the reference is one of them. Only seeds that both have are compared; a
    setting without one is left out.
    """
    first = next((run for run in predictions[reference] if run), None)
    if first is None:
        return {}
    splits = [split for split in dict.fromkeys(first.splits.tolist()) if split != "val"]
    draws = {split: Bootstrap(first, split, resamples) for split in splits}
    scores = [score for score in scores if SCORES[score][0] in first.labels]
    # the reference first: the others are compared with it
    settings = [reference, *(setting for setting in predictions if setting != reference)]
    found: dict[str, dict[str, dict[str, Interval]]] = {score: {} for score in scores}
    jobs = [(score, setting) for score in scores for setting in settings]
    base: dict[str, np.ndarray] = {}
    seeds_of_base: list[int] = []
    for score, setting in tqdm(jobs, "bootstrap", leave=False, disable=not progress):
        seeds = [seed for seed, run in enumerate(predictions[setting]) if run]
        runs = [run for run in predictions[setting] if run]
        if setting == reference:
            base = {split: draws[split].scores(runs, score) for split in splits}
            seeds_of_base = seeds
            continue
        of_both = [seed for seed in seeds if seed in seeds_of_base]
        if not of_both:
            continue
        mine, its = ([all_.index(s) for s in of_both] for all_ in (seeds, seeds_of_base))
        compared = {
            split: draws[split].scores(runs, score)[mine] - base[split][its] for split in splits
        }
        found[score][setting] = {
            split: interval(values)
            for split, values in compared.items()
            if not np.isnan(values[:, 0]).any()
        }
    return found
