"""Where a head's voices disagree: a custom that they go by for different reasons may be broken.

The disagreement of E voices about a video is the generalised Jensen-Shannon divergence (Lin 1991)
of their distributions, all of the same weight,

    D(p_1 .. p_E) = H(mean_e p_e) - mean_e H(p_e),

divided by the logarithm of the lesser of E and the number of outcomes, which is the most that it
can be: 0 where all say the same, 1 where each is certain of something else. One label a video: of
the softmax over labels. Several: the mean over labels of that of a label's yes and no.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from pcmci.heads.scoring.predictions import LabelPredictions, Predictions
from pcmci.heads.scoring.scores import HEADLINE, score_split, sigmoid, softmax

BINS = 10
"""Of a curve."""


def divergence(p: np.ndarray) -> np.ndarray:
    """D of the module's text. p: [..., E, K] distributions over K outcomes. Returns [...], NaN
    where one holds a NaN."""
    voices, outcomes = p.shape[-2:]
    if voices < 2:
        raise ValueError(f"{voices} voices have nobody to disagree with")
    gap = _entropy(p.mean(-2)) - _entropy(p).mean(-1)
    return np.clip(gap / np.log(max(2, min(voices, outcomes))), 0, 1)  # rounding


def disagreement(said: np.ndarray, *, one_label: bool) -> np.ndarray:
    """[m] from 0 to 1. said: logits [m, E, N]. NaN for a video without, and for all where there are
    no two voices."""
    there = np.isfinite(said).all((1, 2))
    found = np.full(len(said), np.nan)
    if said.shape[1] < 2:
        return found
    if one_label:
        found[there] = divergence(softmax(said[there]))
    else:
        yes = sigmoid(said[there]).transpose(0, 2, 1)
        found[there] = divergence(np.stack([yes, 1 - yes], axis=-1)).mean(-1)
    return found


def curve(
    disagreement: np.ndarray, score: Callable[[np.ndarray], float | None], bins: int = BINS
) -> list[dict[str, Any]]:
    """A score against disagreement: the videos from the least to the most, in bins of as many.

    disagreement: [n], NaN for a video that is left out. score: of the videos of these places [k];
    None where it is undefined. Returns for each bin its `videos`, the mean `disagreement` and the
    `score`; fewer bins where there are fewer videos.
    """
    order = np.argsort(disagreement, kind="stable")
    order = order[: int(np.isfinite(disagreement).sum())]  # NaN is sorted to the end
    return [
        {
            "videos": len(part),
            "disagreement": float(disagreement[part].mean()),
            "score": score(part),
        }
        for part in np.array_split(order, min(bins, len(order)) or 1)
        if len(part)
    ]


def voices_report(predictions: Predictions, labels: str) -> dict[str, dict[str, Any]]:
    """What each voice of a label set is worth alone, split by split.

    Of each split the `score` that it is (Acc or mAP), and it by voice; where there are two voices
    or more, the mean `disagreement` and `curve`. Empty where there are none.
    """
    part, headline = predictions.labels[labels], HEADLINE[labels]

    def scored(part: LabelPredictions, rows: np.ndarray) -> float | None:
        alone = dataclasses.replace(predictions, labels={labels: part})
        return score_split(alone, rows, taus=()).get(headline)

    report: dict[str, dict[str, Any]] = {}
    places = np.arange(len(predictions.ids))
    for split in dict.fromkeys(predictions.splits.tolist()) if part.voices else ():
        chosen = predictions.splits == split
        found: dict[str, Any] = {"score": headline, "voices": {}}
        for e, voice in enumerate(part.voices):
            alone = dataclasses.replace(part, logits=part.said[:, e])
            found["voices"][voice] = scored(alone, chosen)
        if np.isfinite(part.disagreement[chosen]).any():
            found["disagreement"] = float(np.nanmean(part.disagreement[chosen]))
            among = np.where(chosen, part.disagreement, np.nan)
            found["curve"] = curve(among, lambda some: scored(part, np.isin(places, some)))
        report[split] = found
    return report


def _entropy(p: np.ndarray) -> np.ndarray:
    """In nats, along the last axis."""
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)
