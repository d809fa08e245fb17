"""The scores of the protocol: accuracy, average precision, co-prediction and ODD. numpy alone.

docs/protocol.md states the rules. Arrays are one row a video; scores are logits or
probabilities (any increasing function ranks alike). Every function raises ValueError for shapes
that do not fit.
"""

from __future__ import annotations

import numpy as np

TAU = 0.6
"""The paper's threshold of ODD."""

POSITIVES_A_PRODUCT = 256
"""Bounds the memory of `weighted_average_precision`."""


def top1_correct(logits: np.ndarray, target: np.ndarray, present: np.ndarray) -> np.ndarray:
    """[n] whether the best-scored label is the right one.

    logits: [n, N]. target: [n] int. present: [n] bool; a video without features is wrong.
    """
    _same_length(logits, target, present)
    return present & (logits.argmax(1) == target)


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Non-interpolated average precision of one class, in float64: sum (R_k - R_{k-1}) P_k.

    scores: [n]; -inf ranks last. positive: [n] bool. Videos with the same score are one step of
    the curve, as in scikit-learn, so that the result does not depend on their order.
    NaN where nothing is positive.
    """
    return float(weighted_average_precision(scores, positive, np.ones((1, len(scores))))[0])


def weighted_average_precision(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """[R] the average precision of one class where video v counts weights[r, v] times.

    scores, positive: [n], as for `average_precision`. weights: [R, n], 0 or more. NaN where no
    positive video has a weight.
    """
    _same_length(scores, positive, weights.T)
    weights = weights.astype(np.float64, copy=False)
    hits_of = np.flatnonzero(positive)
    gained = np.zeros(len(weights))
    # Few videos are positive: for each, the weights of what ranks at least as high are a product.
    for start in range(0, len(hits_of), POSITIVES_A_PRODUCT):
        some = hits_of[start : start + POSITIVES_A_PRODUCT]
        above = (scores[:, None] >= scores[some]).astype(np.float64)
        seen, hits = weights @ above, weights[:, hits_of] @ above[hits_of]
        precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
        gained += (weights[:, some] * precision).sum(1)
    total = weights[:, hits_of].sum(1)
    return np.divide(gained, total, out=np.full_like(gained, np.nan), where=total > 0)


def class_average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[N] the average precision of every class, NaN for a class without a positive video.

    scores, targets: [n, N].
    """
    if scores.shape != targets.shape:
        raise ValueError(f"scores {scores.shape} do not fit targets {targets.shape}")
    columns = range(targets.shape[1])
    return np.array([average_precision(scores[:, c], targets[:, c]) for c in columns])


def rank_last(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A copy of scores [n, N] in which `rows` [n] bool score -inf for every class."""
    return np.where(rows[:, None], -np.inf, scores)


def mean_average_precision(
    class_ap: np.ndarray, names: tuple[str, ...], background: tuple[str, ...] = ()
) -> dict[str, float]:
    """mAP by the protocol's three rules, from the AP a class [N] (NaN: no positive video).

    `mAP`: over the classes that have a positive video. `mAP/N` where a class has none: it counts
    0. `mAP w/o NAME` where a background label exists: the first rule without it.
    """
    _same_length(class_ap, np.array(names))
    filled = ~np.isnan(class_ap)
    result = {"mAP": _mean(class_ap[filled])}
    if not filled.all():
        result[f"mAP/{len(names)}"] = float(np.nan_to_num(class_ap).mean())
    if background:
        foreground = filled & ~np.isin(names, background)
        result[f"mAP w/o {'+'.join(background)}"] = _mean(class_ap[foreground])
    return result


def coprediction(probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Q [N, N] (eq. 12): Q_ij = P(action_i | action_j) = sum_v p_vi p_vj / sum_v p_vj.

    probabilities: [n, N] predicted (soft), or 0 and 1 (hard predictions, ground truth).
    weights: [n], how often each video counts; once by default.
    NaN in the columns of actions that are never predicted.
    """
    p = probabilities.astype(np.float64)
    weighted = p if weights is None else p * weights[:, None]
    joint, marginal = p.T @ weighted, weighted.sum(0)
    return np.divide(joint, marginal, out=np.full_like(joint, np.nan), where=marginal > 0)


def off_diagonal_density(q: np.ndarray, tau: float = TAU) -> float:
    """ODD_tau(Q) (eq. 13): the share of the N(N-1) ordered pairs i != j with Q_ij > tau.

    q: [N, N]; an undefined (NaN) pair counts as not above tau, see `undefined_pairs`.
    """
    n = len(q)
    if q.shape != (n, n) or n < 2:
        raise ValueError(f"Q must be square and at least 2 x 2, not {q.shape}")
    return float(_pairs_above(q, tau).sum() / (n * (n - 1)))


def undefined_pairs(q: np.ndarray) -> int:
    """How many off-diagonal pairs of Q [N, N] are undefined."""
    return int((np.isnan(q) & ~np.eye(len(q), dtype=bool)).sum())


def implausible_pairs(q: np.ndarray, q_train: np.ndarray, tau: float = TAU) -> np.ndarray:
    """[N, N] bool: above tau in the prediction's Q and not in that of the training labels."""
    _same_length(q, q_train)
    return _pairs_above(q, tau) & ~_pairs_above(q_train, tau)


def implausible_density(q: np.ndarray, q_train: np.ndarray, tau: float = TAU) -> float:
    """The share of the N(N-1) ordered pairs that are implausible."""
    n = len(q)
    return float(implausible_pairs(q, q_train, tau).sum() / (n * (n - 1)))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _pairs_above(q: np.ndarray, tau: float) -> np.ndarray:
    return (np.nan_to_num(q, nan=-np.inf) > tau) & ~np.eye(len(q), dtype=bool)


def _same_length(first: np.ndarray, *others: np.ndarray) -> None:
    for other in others:
        if len(other) != len(first):
            raise ValueError(f"{len(first)} rows do not fit {len(other)} rows")


def reliability(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a reliability diagram draws: mean confidence, share that is correct, count, a bin.

    confidence: [n] from 0 to 1. correct: [n] bool. Bins of equal width, each with its upper edge
    and the first with 0 too. Returns three [bins]; NaN in the first two where a bin is empty.
    """
    _same_length(confidence, correct)
    edges = np.linspace(0, 1, bins + 1)
    member = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(member, minlength=bins)
    empty = np.full(bins, np.nan)
    means = [
        np.divide(np.bincount(member, values, bins), count, out=empty.copy(), where=count > 0)
        for values in (confidence, correct.astype(np.float64))
    ]
    return means[0], means[1], count


def calibration_error(confidence: np.ndarray, share: np.ndarray, count: np.ndarray) -> float:
    """The expected calibration error: the mean distance between confidence and share, weighted by
    the count of each bin, from what `reliability` returned. NaN where nothing was counted."""
    filled = count > 0
    if not filled.any():
        return float("nan")
    distance = np.abs(confidence - share)[filled]
    return float(np.average(distance, weights=count[filled]))
