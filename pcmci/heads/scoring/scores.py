"""From predictions to the protocol's scores, each with the counts behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pcmci.heads.scoring.metrics import (
    TAU,
    class_average_precision,
    coprediction,
    implausible_density,
    mean_average_precision,
    off_diagonal_density,
    rank_last,
    top1_correct,
    undefined_pairs,
)
from pcmci.heads.scoring.predictions import LabelPredictions, Predictions

Scores = dict[str, float | int | None]

HEADLINE = {"activity": "Acc", "steps": "mAP"}
"""The score that a label set is judged by: validation chooses by it."""


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) in float64, 0 for -inf, without overflow."""
    return np.exp(-np.logaddexp(0, -logits.astype(np.float64)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(x) / sum exp(x) along the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def score(predictions: Predictions, taus: Sequence[float] = (TAU,)) -> dict[str, Scores]:
    """The scores of every split, percentages as fractions, None where one is undefined.

    `Acc` with its counts; `mAP` by all rules; for each tau `ODD@tau`, the truth's own, and the
    share of implausible pairs; `coverage`, videos with features / videos of the split; of
    a store that takes damaged videos, how many have frames that stand in for others.
    """
    return {
        split: score_split(predictions, predictions.splits == split, taus)
        for split in dict.fromkeys(predictions.splits.tolist())
    }


def score_split(predictions: Predictions, rows: np.ndarray, taus: Sequence[float]) -> Scores:
    """The scores of the videos `rows` [m] bool."""
    present = predictions.present[rows]
    scores: Scores = {
        "videos": int(rows.sum()),
        "with features": int(present.sum()),
        "coverage": float(present.mean()) if rows.any() else None,
    }
    if predictions.replaced is not None:
        scores["with replaced frames"] = int((predictions.replaced[rows] > 0).sum())
    if "activity" in predictions.labels:
        scores |= _accuracy(predictions.labels["activity"], rows, present)
    if "steps" in predictions.labels:
        part = predictions.labels["steps"]
        scores |= _precision(part, rows)
        scores |= _densities(part, rows & predictions.present, taus)
    return scores


def why_undefined(scores: Mapping[str, Any], name: str) -> str:
    """Why a score of one split is not there, in words; "" where it is.

    scores: of the split, as `score` has them. name: as `mAP`, or `ODD@0.6`.
    """
    if scores.get(name) is not None:
        return ""
    if name.startswith("Acc"):
        return "no video has an activity label"
    if name.startswith("mAP w/o"):
        return f"no step but {name.removeprefix('mAP w/o ')} has a positive video"
    if name.startswith("mAP"):
        return "no step has a positive video"
    if not scores.get("with features"):
        return "no video has features"
    return "there are fewer than two steps"


def undefined(scores: Mapping[str, Scores], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """split -> name -> why that score is not there; splits of which all are there are left out."""
    found = {
        split: {name: why for name in names if (why := why_undefined(values, name))}
        for split, values in scores.items()
    }
    return {split: reasons for split, reasons in found.items() if reasons}


def class_ap(part: LabelPredictions, rows: np.ndarray) -> np.ndarray:
    """[N] the average precision of every step over the videos `rows` [m] bool."""
    logits, target = part.logits[rows], part.target[rows]
    if part.unlabelled_last:
        logits = rank_last(logits, target.sum(1) == 0)
    return class_average_precision(logits, target)


def _accuracy(part: LabelPredictions, rows: np.ndarray, present: np.ndarray) -> Scores:
    labelled = part.target[rows] >= 0
    correct = top1_correct(part.logits[rows], part.target[rows], present)[labelled]
    return {
        "Acc": float(correct.mean()) if len(correct) else None,
        "Acc correct": int(correct.sum()),
        "Acc videos": len(correct),
    }


def _precision(part: LabelPredictions, rows: np.ndarray) -> Scores:
    ap = class_ap(part, rows)
    rules = mean_average_precision(ap, part.names, part.background)
    defined = {name: None if math.isnan(value) else value for name, value in rules.items()}
    return {**defined, "mAP classes": int((~np.isnan(ap)).sum())}


def _densities(part: LabelPredictions, rows: np.ndarray, taus: Sequence[float]) -> Scores:
    if len(part.names) < 2 or not rows.any() or not taus:
        return {}
    q = coprediction(sigmoid(part.logits[rows]))
    q_true = coprediction(part.target[rows])
    scores: Scores = {"ODD undefined pairs": undefined_pairs(q)}
    for tau in taus:
        name = f"ODD@{tau:.4g}"
        scores[name] = off_diagonal_density(q, tau)
        scores[f"{name} truth"] = off_diagonal_density(q_true, tau)
        scores[f"{name} implausible"] = implausible_density(q, part.q_train, tau)
    return scores
