"""What one variable does to a head's answers, measured on twins that differ in it alone.

Accuracy on a shifted split has a ceiling and mixes two things, how far a head goes by a confounder
and how often that tips the answer. Twins give the first video by video (Pearl 2001, the controlled
direct effect; Vig et al. 2020 measure it in networks by the same counterfactual pairs):

    CDE = mean over v of margin(z(v), y(v)) - margin(z(v'), y(v)),

v' the twin of v, z the logits, y the truth of *v*, over the videos whose variable does differ. In
logits: 0 where the variable does nothing, above 0 where a custom that held spoke for the truth.
With causal twins (another performance and all else the same) the same mean is the effect of what is
done, and

    shortcut ratio = CDE of a confounder / effect of the cause

has no scale: a head whose logits are twice as large has the same one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from pcmci.heads.scoring.bootstrap import Interval, interval, session_weights
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.scoring.twins import CAUSE, Twins, find_twins, variable_of

RESAMPLES = 1000
KEPT = 0.1
"""The share of the causal effect that a head may lose and still count as keeping it."""
ROUNDING = 1e-9
"""Logits that are no difference."""


@dataclass(frozen=True)
class Effect:
    """What a variable does, of S runs (seeds) on n pairs of twins.

    cde: in logits. flips: the share of answers that change. Both with 95 % intervals over sessions
        and, where there are several, seeds; None where nothing was counted, and `why` says so.
    videos: pairs that count: both have features, there is a truth, the variable differs.
    pairs: n. runs: S.
    changes: [S, n] of the margin. flipped: [S, n] the share of a video's answers that change.
    counted: [n] bool. sessions: [n] str.
    """

    cde: Interval | None
    flips: Interval | None
    videos: int
    pairs: int
    runs: int
    why: str = ""
    changes: np.ndarray = field(repr=False, default_factory=lambda: np.zeros((1, 0)))
    flipped: np.ndarray = field(repr=False, default_factory=lambda: np.zeros((1, 0)))
    counted: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0, bool))
    sessions: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0, str))

    def to_dict(self) -> dict[str, Any]:
        """As metrics.json has it: numbers, and None for what is not there."""
        return {
            "cde": shown_interval(self.cde),
            "flips": shown_interval(self.flips),
            "videos": self.videos,
            "pairs": self.pairs,
            "why": self.why,
        }


@dataclass(frozen=True)
class Ratio:
    """A quotient of effects, None where it cannot be computed; `why` says so."""

    value: Interval | None
    why: str = ""


@dataclass(frozen=True)
class Removal:
    """Whether a head removes a confounder, against a control that has the same information.

    cde: the head's CDE less the control's. cause: the head's causal effect less (1 - KEPT) of the
    control's; None without causal twins. lowers, keeps: what the intervals say; None where one
    cannot say. removes: both. How much is left is what `cde` says.
    """

    cde: Interval
    cause: Interval | None
    lowers: bool | None
    keeps: bool | None

    @property
    def removes(self) -> bool | None:
        """None where it cannot be told."""
        if self.lowers is None or (self.lowers and self.keeps is None):
            return None
        return self.lowers and bool(self.keeps)


def margin(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[..., n] how far the truth is ahead, in logits.

    One label a video, truth [n] int: its logit less the largest other one (the multi-class margin
    of Crammer and Singer 2001), above 0 exactly where it is recognised.
    Several, truth [n, N] of 0 and 1: the mean logit of those that are there less the mean logit of
    those that are not, which is the mean over all pairs of one that is and one that is not (the
    pairs of ranking by Elisseeff and Weston 2001). A constant added to all logits changes neither.

    logits: [..., n, N]. NaN for a video without a truth (-1; no label or all of them), without
    features (-inf), and where N is 1.
    """
    logits = np.asarray(logits, np.float64)
    n, labels = logits.shape[-2:]
    if len(truth) != n:
        raise ValueError(f"{n} videos do not fit {len(truth)} truths")
    there = np.isfinite(logits).all(-1)
    logits = np.where(there[..., None], logits, 0)
    if truth.ndim == 1:
        known = (truth >= 0) & (labels > 1)
        right = np.arange(labels) == truth[:, None]
        its = np.where(right, logits, -np.inf).max(-1)
        other = np.where(right, -np.inf, logits).max(-1)
        far = np.where(known, its, 0) - np.where(known, other, 0)
    else:
        right = truth.astype(bool)
        count = right.sum(1)
        known = (count > 0) & (count < labels)
        its = (logits * right).sum(-1) / np.maximum(count, 1)
        far = its - (logits * ~right).sum(-1) / np.maximum(labels - count, 1)
    return np.where(known & there, far, np.nan)


def answers_changed(
    logits: np.ndarray, twin_logits: np.ndarray, *, one_label: bool = True
) -> np.ndarray:
    """[..., n] the share of a video's answers that its twin changes: of one label, 1 where the
    likeliest is another; of several, the share of labels that one has above 1/2 and the other not.

    logits, twin_logits: [..., n, N].
    """
    if one_label:
        return (logits.argmax(-1) != twin_logits.argmax(-1)).astype(np.float64)
    return ((logits > 0) != (twin_logits > 0)).mean(-1)


def direct_effect(
    logits: np.ndarray,
    twin_logits: np.ndarray,
    truth: np.ndarray,
    differs: np.ndarray | None = None,
    sessions: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Effect:
    """The effect of what differs between videos and their twins; of a confounder or, with causal
    twins, of the cause.

    logits, twin_logits: [n, N], or [S, n, N] of S runs; -inf without features. truth: of the
    videos, [n] int or [n, N] of 0 and 1. differs: [n] bool, where the variable does; all by
    default. sessions: [n] str, what is resampled; each video by default. resamples: 0 for no
    interval. Raises ValueError for shapes that do not fit.
    """
    logits, twin_logits = (x if x.ndim == 3 else x[None] for x in (logits, twin_logits))
    if logits.shape != twin_logits.shape:
        raise ValueError(f"logits {logits.shape} do not fit those of the twins {twin_logits.shape}")
    n = logits.shape[1]
    differs = np.ones(n, bool) if differs is None else np.asarray(differs, bool)
    sessions = np.arange(n).astype(str) if sessions is None else np.asarray(sessions, str)
    if len(differs) != n or len(sessions) != n:
        raise ValueError(f"{n} videos, {len(differs)} `differs` and {len(sessions)} sessions")
    changes = margin(logits, truth) - margin(twin_logits, truth)
    defined = np.isfinite(changes).all(0)
    counted = defined & differs
    if not counted.any():
        if not n:
            why = "no video has a twin"
        elif not differs.any():
            why = "no twin differs from its video"
        else:
            why = "no pair whose variable differs has features and a truth"
        return Effect(None, None, 0, n, len(logits), why)
    one_label = truth.ndim == 1
    flipped = answers_changed(logits, twin_logits, one_label=one_label)
    changes = np.where(counted, changes, 0)
    return Effect(
        _mean(changes, counted, sessions, resamples, seed),
        _mean(flipped, counted, sessions, resamples, seed),
        int(counted.sum()),
        n,
        len(logits),
        "",
        changes,
        flipped,
        counted,
        sessions,
    )


def twin_effects(
    runs: Sequence[Predictions],
    labels: str,
    same: Collection[str] = (),
    resamples: int = RESAMPLES,
) -> dict[str, Effect]:
    """Split of twins -> its effect, of runs (seeds) of one head on the same videos.

    labels: `activity` or `steps`. same: ids of twins in which nothing differs from their videos
    after all, which do not count. Empty where nothing has a twin. Raises ValueError for runs that
    scored other videos.
    """
    first = runs[0]
    if not all(np.array_equal(run.ids, first.ids) for run in runs):
        raise ValueError("runs that are taken together scored other videos")
    logits = np.stack([run.labels[labels].logits for run in runs])
    truth = first.labels[labels].target

    def effect(twins: Twins) -> Effect:
        return direct_effect(
            logits[:, twins.rows],
            logits[:, twins.twin_rows],
            truth[twins.rows],
            ~np.isin(first.ids[twins.twin_rows], list(same)),
            first.sessions[twins.rows],
            resamples,
        )

    found = find_twins(first.ids.tolist(), first.splits.tolist())
    return {split: effect(twins) for split, twins in found.items()}


def effects_report(
    effects: Mapping[str, Effect], resamples: int = RESAMPLES
) -> dict[str, dict[str, Any]]:
    """Split -> what is known of its effect, as metrics.json has it: `Effect.to_dict`, what
    `differs`, and of a confounder its `ratio` to the cause, or in `no ratio` why there is none."""
    cause = next((one for split, one in effects.items() if variable_of(split) == CAUSE), None)
    report = {}
    for split, effect in effects.items():
        found = {"differs": variable_of(split), **effect.to_dict()}
        if found["differs"] != CAUSE:
            without = Ratio(None, "there are no causal twins (a split called cause)")
            ratio = shortcut_ratio(effect, cause, resamples) if cause else without
            found |= {"ratio": shown_interval(ratio.value), "no ratio": ratio.why}
        report[split] = found
    return report


def effect_difference(
    head: Effect, control: Effect, resamples: int = RESAMPLES, seed: int = 0, *, share: float = 1.0
) -> Interval:
    """The head's CDE less `share` of the control's, paired: the same videos, sessions and seeds.

    Videos that count for both are compared. A control of one run is compared with each of the
    head's. Raises ValueError where the two are of other videos or seeds, or nothing is counted.
    """
    drawn = _drawn_difference(head, control, resamples, seed, share)
    return _interval(drawn, resamples, seed)


def shortcut_ratio(
    confounder: Effect, cause: Effect, resamples: int = RESAMPLES, seed: int = 0
) -> Ratio:
    """The CDE of a confounder over the effect of the cause, both of the same runs on twins of the
    same videos; its interval draws sessions and seeds for both at once. None where one of the two
    was not measured, and where the cause's effect cannot be told from 0: nothing to divide by."""
    for effect, what in ((confounder, "confounder"), (cause, "cause")):
        if effect.cde is None:
            return Ratio(None, f"no effect of the {what}: {effect.why}")
    assert cause.cde is not None  # for the type checker
    if not cause.cde.value > 0 or (cause.cde.known and cause.cde.low <= 0):
        return Ratio(None, "what is done has no effect that can be told from 0")
    if not np.array_equal(confounder.sessions, cause.sessions):
        return Ratio(None, "the two were measured on other videos")
    top, bottom = (_drawn(effect, resamples, seed) for effect in (confounder, cause))
    value = float(top[:, 0].mean() / bottom[:, 0].mean())
    top, bottom = top[:, 1:], bottom[:, 1:]
    if not top.size or np.isnan(top).any() or np.isnan(bottom).any():
        return Ratio(Interval(value, np.nan, np.nan))
    chosen = np.random.default_rng(seed).integers(len(top), size=top.shape)
    means = [np.take_along_axis(x, chosen % len(x), axis=0).mean(0) for x in (top, bottom)]
    if (means[1] <= 0).any():
        return Ratio(Interval(value, np.nan, np.nan))
    low, high = np.percentile(means[0] / means[1], (2.5, 97.5))
    return Ratio(Interval(value, float(low), float(high)))


def removal(
    head: Effect,
    control: Effect,
    cause: Effect | None = None,
    control_cause: Effect | None = None,
    kept: float = KEPT,
    resamples: int = RESAMPLES,
) -> Removal:
    """Whether a head removes a confounder: its CDE is below 1 - `kept` of that of a control with
    the same information, by all of the interval and without being turned round beyond it, and what
    is done keeps more than that share of the control's effect, by all of the interval (a test of
    non-inferiority). So a head that merely says everything more softly never passes: the share by
    which it lowers the one, it loses of the other.

    head, control: the CDE of each. cause, control_cause: of each the effect of what is done; of a
    control in which that cannot be told from 0 there is nothing to keep, and `keeps` is None.
    """
    below = effect_difference(head, control, resamples)
    clearly = effect_difference(head, control, resamples, share=1 - kept)
    lowers = None
    if clearly.known and head.cde and control.cde:
        lowers = clearly.high < -ROUNDING and abs(head.cde.value) < abs(control.cde.value)
    left, keeps = None, None
    if cause and control_cause and cause.cde and control_cause.cde:
        left = effect_difference(cause, control_cause, resamples, share=1 - kept)
        if left.known and control_cause.cde.low > 0:
            keeps = left.low > ROUNDING
    return Removal(below, left, lowers, keeps)


def shown_interval(found: Interval | None) -> dict[str, float | None] | None:
    """For JSON: None for an end that is not there."""
    if found is None:
        return None
    low, high = (found.low, found.high) if found.known else (None, None)
    return {"value": found.value, "low": low, "high": high}


def _mean(
    values: np.ndarray, counted: np.ndarray, sessions: np.ndarray, resamples: int, seed: int
) -> Interval:
    return _interval(_means(values, counted, sessions, resamples, seed), resamples, seed)


def _interval(drawn: np.ndarray, resamples: int, seed: int) -> Interval:
    """Without ends where nothing was drawn."""
    if not resamples:
        return Interval(float(drawn[:, 0].mean()), np.nan, np.nan)
    return interval(drawn, seed)


def _means(
    values: np.ndarray, counted: np.ndarray, sessions: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """[S, 1 + R] as `Bootstrap.scores`; NaN for a draw without a video that counts."""
    weights = _weights(tuple(sessions.tolist()), resamples, seed)[:, counted]
    total = weights.sum(1)
    sums = values[:, counted] @ weights.T
    return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)


@lru_cache(maxsize=4)
def _weights(sessions: tuple[str, ...], resamples: int, seed: int) -> np.ndarray:
    """The same for every effect on the twins of a split: drawn once."""
    return session_weights(np.array(sessions), resamples, seed)


def _drawn(effect: Effect, resamples: int, seed: int) -> np.ndarray:
    return _means(effect.changes, effect.counted, effect.sessions, resamples, seed)


def _drawn_difference(
    head: Effect, control: Effect, resamples: int, seed: int, share: float
) -> np.ndarray:
    if not np.array_equal(head.sessions, control.sessions):
        raise ValueError("effects that are compared are of other videos")
    if head.runs != control.runs and 1 not in (head.runs, control.runs):
        raise ValueError(f"{head.runs} runs cannot be paired with {control.runs}")
    both = head.counted & control.counted
    if not both.any():
        raise ValueError("effects that are compared have no video in common")
    changes = head.changes - share * control.changes
    return _means(changes, both, head.sessions, resamples, seed)
