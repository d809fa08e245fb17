"""What the chosen runs say on the test split, in more detail than a score.

Tables `densities` (ODD over tau), `classes` (average precision), `pairs` (implausible ones),
`reliability`, `epochs` (training losses), `voices` and `disagreements` (what a head's voices are
worth alone, and a score against how far they are apart), and the co-prediction matrices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pcmci.heads.ablation.outcomes import Kept, Outcome, Row, number, predictions_of
from pcmci.heads.ablation.sweep import Variant
from pcmci.heads.config import STAGES
from pcmci.heads.scoring.metrics import TAU as HEADLINE_TAU
from pcmci.heads.scoring.metrics import (
    calibration_error,
    coprediction,
    implausible_pairs,
    reliability,
)
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.scoring.scores import Scores, class_ap, sigmoid, softmax
from pcmci.heads.training.run import Run

PAIRS = 20
"""Implausible pairs kept of each variant, the strongest."""

MOST_LABELS_OF_A_MATRIX = 200
"""With more labels, the co-prediction of the reference and one other variant is kept, not all."""


def details(
    kept: Mapping[str, Kept],
    scores: Mapping[int, dict[str, Scores]],
    taus: Sequence[float],
    reference: Variant,
) -> tuple[dict[str, list[Row]], dict[str, np.ndarray]]:
    """The tables by name, and the matrices. kept: label set -> the chosen runs."""
    tables: dict[str, list[Row]] = {"epochs": list(epochs(kept)), "reliability": []}
    matrices: dict[str, np.ndarray] = {}
    tables["voices"], tables["disagreements"] = list(voices(kept)), list(disagreements(kept))
    for labels, by_variant in kept.items():
        together = Copredictions.of(reference, list(by_variant))
        for variant, outcomes in by_variant.items():
            # of all tables at once: predictions of many labels are large
            seen = list(filter(None, map(predictions_of, outcomes)))
            if not seen:
                continue
            tables["reliability"] += reliabilities(labels, variant, seen)
            if labels == "steps":
                tables.setdefault("classes", []).extend(classes(variant, seen))
                together.add(variant, seen)
        if labels == "steps":
            tables["densities"] = list(densities(by_variant, scores, taus))
            tables["pairs"] = list(together.pairs())
            matrices = together.matrices
    return tables, matrices


def epochs(kept: Mapping[str, Kept]) -> Iterator[Row]:
    for labels, by_variant in kept.items():
        for variant, outcome, run in _runs(by_variant):
            for epoch, loss in enumerate(run.heads[labels]["loss"], start=1):
                yield {
                    "labels": labels, "variant": variant.name, "seed": outcome.trial.seed,
                    "epoch": epoch, "loss": loss,
                }  # fmt: skip


def _runs(by_variant: Kept) -> Iterator[tuple[Variant, Outcome, Run]]:
    for variant, outcomes in by_variant.items():
        for outcome in outcomes:
            if outcome and outcome.run:
                yield variant, outcome, outcome.run


def voices(kept: Mapping[str, Kept]) -> Iterator[Row]:
    """Of every run whose head has voices, split by split: the score of each alone, and (voice "")
    their mean disagreement and a mediator's purity, where there is one."""
    for row, facts, split, found in _heard(kept):
        worth = [(found["score"], voice, value) for voice, value in found["voices"].items()]
        worth.append(("disagreement", "", found.get("disagreement")))
        worth.append(("purity", "", facts.get("purity", {}).get(split)))
        for name, voice, value in worth:
            if voice or value is not None:
                yield {**row, "score": name, "voice": voice, "value": value}


def disagreements(kept: Mapping[str, Kept]) -> Iterator[Row]:
    """A row a point of a run's curve of the score against disagreement."""
    for row, _, _, found in _heard(kept):
        for place, point in enumerate(found.get("curve", ())):
            yield {
                **row, "score": found["score"], "bin": place, "videos": point["videos"],
                "disagreement": point["disagreement"], "value": point["score"],
            }  # fmt: skip


def _heard(
    kept: Mapping[str, Kept],
) -> Iterator[tuple[Row, Mapping[str, Any], str, Mapping[str, Any]]]:
    """How its row begins, the facts of its label set, the split and what `voices_report` found."""
    for labels, by_variant in kept.items():
        for variant, outcome, run in _runs(by_variant):
            facts = run.heads[labels]
            for split, found in facts.get("voices", {}).items():
                row = {
                    "labels": labels, "variant": variant.name, "seed": outcome.trial.seed,
                    "split": split,
                }  # fmt: skip
                yield row, facts, split, found


def densities(
    by_variant: Kept, scores: Mapping[int, dict[str, Scores]], taus: Sequence[float]
) -> Iterator[Row]:
    for variant, outcome, _ in _runs(by_variant):
        for split, values in scores[id(outcome)].items():
            for tau in taus:
                name = f"ODD@{tau:.4g}"
                if split != "val" and name in values:
                    yield {
                        "variant": variant.name, "seed": outcome.trial.seed, "split": split,
                        "tau": tau, "odd": values[name], "truth": values[f"{name} truth"],
                        "implausible": values[f"{name} implausible"],
                    }  # fmt: skip


def shown_split(predictions: Predictions) -> str:
    """`test`, or the first split that did not choose."""
    splits = [split for split in dict.fromkeys(predictions.splits.tolist()) if split != "val"]
    return "test" if "test" in splits or not splits else splits[0]


def classes(variant: Variant, seen: Sequence[Predictions]) -> Iterator[Row]:
    """The average precision of every step, the mean over seeds."""
    rows = [one.splits == shown_split(one) for one in seen]
    parts = [one.labels["steps"] for one in seen]
    means = np.mean([class_ap(*one) for one in zip(parts, rows, strict=True)], axis=0)
    positive = parts[-1].target[rows[-1]].sum(0)
    for name, ap, count in zip(parts[-1].names, means, positive, strict=True):
        yield {
            "variant": variant.name, "class": name, "positive videos": int(count),
            "AP": number(ap),
        }  # fmt: skip


def reliabilities(labels: str, variant: Variant, seen: Sequence[Predictions]) -> Iterator[Row]:
    """Of all seeds together. For activities: how often the likeliest is right; for steps: how
    often a step with this probability is there."""
    pairs = [_confidence(labels, one) for one in seen]
    confidence, correct = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    means, shares, counts = reliability(confidence, correct)
    error = calibration_error(means, shares, counts)
    for place, (mean, share, count) in enumerate(zip(means, shares, counts, strict=True)):
        if count:
            yield {
                "labels": labels, "variant": variant.name, "bin": place,
                "confidence": float(mean), "correct": float(share), "count": int(count),
                "calibration error": error,
            }  # fmt: skip


def _confidence(labels: str, seen: Predictions) -> tuple[np.ndarray, np.ndarray]:
    part = seen.labels[labels]
    rows = (seen.splits == shown_split(seen)) & seen.present
    logits, target = part.logits[rows], part.target[rows]
    if labels == "activity":
        logits, target = logits[target >= 0], target[target >= 0]
        p = softmax(logits) if len(logits) else logits
        return p.max(1, initial=0), p.argmax(1) == target
    return sigmoid(logits).ravel(), target.astype(bool).ravel()


@dataclass
class Copredictions:
    """Q, the mean over seeds, of the variants, the truth and the training labels; and the
    implausible pairs of each variant.

    whole: variants whose matrix is kept however many labels there are. matrices: see `Results`.
    """

    whole: Sequence[Variant]
    matrices: dict[str, np.ndarray] = field(default_factory=dict)
    _above: dict[Variant, dict[tuple[int, int], float]] = field(default_factory=dict)

    @classmethod
    def of(cls, reference: Variant, variants: Sequence[Variant]) -> Copredictions:
        """The reference's stays, and the paper's own order's or, without it, the last's."""
        own = next((v for v in variants if v.order == STAGES), variants[-1])
        return cls([reference, own])

    def add(self, variant: Variant, seen: Sequence[Predictions]) -> None:
        found = []
        for one in seen:
            part = one.labels["steps"]
            videos = (one.splits == shown_split(one)) & one.present
            if not videos.any() or len(part.names) < 2:
                continue
            found.append(coprediction(sigmoid(part.logits[videos])))
            if "truth" not in self.matrices:
                self.matrices["names"] = np.array(part.names)
                self.matrices["truth"] = coprediction(part.target[videos]).astype(np.float32)
                self.matrices["train"] = part.q_train.astype(np.float32)
        if not found:
            return
        q = np.mean(found, axis=0)
        if variant in self.whole or len(q) <= MOST_LABELS_OF_A_MATRIX:
            self.matrices[f"q/{variant.name}"] = q.astype(np.float32)
        pairs = np.argwhere(implausible_pairs(q, part.q_train, HEADLINE_TAU)).tolist()
        self._above[variant] = {(i, j): float(q[i, j]) for i, j in pairs}

    def pairs(self) -> Iterator[Row]:
        """The strongest of each variant."""
        return _pairs(self._above, self.matrices)


def _pairs(
    above: Mapping[Variant, Mapping[tuple[int, int], float]], matrices: Mapping[str, np.ndarray]
) -> Iterator[Row]:
    """Of each variant its strongest pairs, and those that most variants share."""
    shared = Counter(pair for pairs in above.values() for pair in pairs)
    common = {pair for pair, _ in shared.most_common(PAIRS)}
    for variant, pairs in above.items():
        strongest = sorted(pairs, key=lambda pair: -pairs[pair])
        for pair in [p for k, p in enumerate(strongest) if k < PAIRS or p in common]:
            i, j = pair
            yield {
                "variant": variant.name,
                "predicted": str(matrices["names"][i]),
                "given": str(matrices["names"][j]),
                "q": pairs[pair],
                "q_train": number(matrices["train"][pair]),
                "q_truth": number(matrices["truth"][pair]),
                "pairs": len(pairs),
                "variants with it": shared[pair],
            }
