"""Which videos of a split a run got wrong, the most confident first; from its saved predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcmci.errors import UsageError
from pcmci.heads.scoring.predictions import LabelPredictions, Predictions
from pcmci.heads.scoring.scores import sigmoid, softmax

THRESHOLD = 0.5
"""From which probability on a step counts as said."""


@dataclass(frozen=True)
class Answered:
    """A video with features whose labels are known, and what a run said of it.

    true, said: names of labels, of an activity one each. confidence: the probability of the
    likeliest activity. Of steps it is that of the worst mistake: of a step that is not there, or
    one minus that of a step that is; where all are right, the least that a step was decided with.
    """

    video: str
    true: tuple[str, ...]
    said: tuple[str, ...]
    confidence: float

    @property
    def wrong(self) -> bool:
        return set(self.true) != set(self.said)


def answered(predictions: Predictions, labels: str, split: str) -> list[Answered]:
    """All videos of a split that have features and labels, the most confident first.

    Raises UsageError for a label set that was not learned, and a split that was not scored.
    """
    if labels not in predictions.labels:
        raise UsageError(
            f"--labels {labels!r}: the run has learned {', '.join(predictions.labels)}"
        )
    if not (predictions.splits == split).any():
        scored = ", ".join(dict.fromkeys(predictions.splits.tolist()))
        raise UsageError(f"--split {split!r}: the run has scored {scored}")
    part = predictions.labels[labels]
    one_label = labels == "activity"
    here = (predictions.splits == split) & predictions.present
    if one_label:
        here &= part.target >= 0
    say = _of_activity if one_label else _of_steps
    found = [say(part, int(row), str(predictions.ids[row])) for row in np.flatnonzero(here)]
    return sorted(found, key=lambda one: -one.confidence)


def _of_activity(part: LabelPredictions, row: int, video: str) -> Answered:
    p = softmax(part.logits[row][None])[0]
    best = int(p.argmax())
    return Answered(
        video, (part.names[int(part.target[row])],), (part.names[best],), float(p[best])
    )


def _of_steps(part: LabelPredictions, row: int, video: str) -> Answered:
    p, there = sigmoid(part.logits[row].astype(np.float64)), part.target[row] > 0
    said = p >= THRESHOLD
    sure = np.where(said, p, 1 - p)
    wrong = said != there
    confidence = sure[wrong].max() if wrong.any() else sure.min()
    names = np.array(part.names)
    return Answered(
        video, tuple(names[there].tolist()), tuple(names[said].tolist()), float(confidence)
    )


def confusion(videos: list[Answered], names: tuple[str, ...]) -> np.ndarray:
    """[N, N] how many videos of each activity (row) were said to be each (column)."""
    place = {name: k for k, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    for one in videos:
        counts[place[one.true[0]], place[one.said[0]]] += 1
    return counts
