"""Predictions of nothing, with everything that a score must cope with."""

from __future__ import annotations

import numpy as np

from pcmci.heads.scoring.metrics import coprediction
from pcmci.heads.scoring.predictions import LabelPredictions, Predictions

TEST, VAL, TASKS, STEPS = 30, 10, 4, 6
ABSENT = [3, 17, 33]
"""Two test videos and a validation video without features."""


def make(seed: int = 0, *, unlabelled_last: bool = False) -> Predictions:
    """40 videos, scored on 4 tasks and 6 steps of which `idle` is in all and the last in none."""
    rng = np.random.default_rng(seed)
    m = TEST + VAL
    present = np.ones(m, dtype=bool)
    present[ABSENT] = False
    steps = (rng.random((m, STEPS)) < 0.4).astype(np.uint8)
    steps[:, 0], steps[:, -1] = 1, 0

    def logits(n: int) -> np.ndarray:
        values = rng.normal(size=(m, n)).astype(np.float32)
        return np.where(present[:, None], values, -np.inf).astype(np.float32)

    train = (rng.random((50, STEPS)) < 0.4).astype(np.uint8)
    return Predictions(
        ids=np.array([f"video {row}" for row in range(m)]),
        splits=np.array(["test"] * TEST + ["val"] * VAL),
        sessions=np.array([f"session {row // 2}" for row in range(m)]),
        present=present,
        labels={
            "activity": LabelPredictions(
                names=tuple(f"task {n}" for n in range(TASKS)),
                background=(),
                unlabelled_last=False,
                logits=logits(TASKS),
                target=rng.integers(0, TASKS, m).astype(np.int32),
                q_train=np.zeros((0, 0)),
            ),
            "steps": LabelPredictions(
                names=("idle", "cut", "pour", "stir", "fry", "rest"),
                background=("idle",),
                unlabelled_last=unlabelled_last,
                logits=logits(STEPS),
                target=steps,
                q_train=coprediction(train),
            ),
        },
    )
