"""How pure a mediator is: whether it tells more of a video's unchanging looks than its labels do.

The front door needs a mediator that the confounder does not reach but through what it mediates. The
confounder is not known; but what persists in a video, mean_t V, is where it lives. So a ridge
regression predicts that from the true labels alone, and from labels and mediator, both on videos
that it was not fitted to:

    leak = (R2_both - R2_labels) / (1 - R2_labels),    purity = 1 - leak,

1 where the mediator adds nothing, 0 where it gives all of the rest away.
"""

from __future__ import annotations

import numpy as np

FOLDS = 5
DIRECTIONS = 8
"""Of mean_t V, those in which videos differ most."""
RIDGE = 1.0


def purity(mediator: np.ndarray, persistent: np.ndarray, labels: np.ndarray) -> float | None:
    """From 0 to 1. mediator: [n, N] posteriors. persistent: mean_t V [n, D]. labels: [n, M] of 0
    and 1. None for fewer than twice as many videos as folds, and where nothing varies."""
    if len(mediator) < 2 * FOLDS:
        return None
    varying = persistent.astype(np.float64) - persistent.mean(0)
    directions = np.linalg.svd(varying, full_matrices=False)[2][:DIRECTIONS]
    outcome = varying @ directions.T
    spread = outcome.std(0)
    outcome = outcome[:, spread > 1e-6 * spread.max(initial=0)]
    if not outcome.size:
        return None
    outcome = outcome / outcome.std(0)
    by_labels = _explained(labels, outcome)
    by_both = _explained(np.hstack([labels, mediator]), outcome)
    leak = (by_both - by_labels) / (1 - by_labels)
    return float(np.clip(1 - leak, 0, 1))


def _explained(inputs: np.ndarray, outcome: np.ndarray) -> float:
    """R2 on videos that the regression has not seen, the mean of all directions."""
    missed = total = 0.0
    for fold in range(FOLDS):
        unseen = np.arange(len(inputs)) % FOLDS == fold
        middle, base = inputs[~unseen].mean(0), outcome[~unseen].mean(0)
        x, y = inputs[~unseen] - middle, outcome[~unseen] - base
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
        error = outcome[unseen] - base - (inputs[unseen] - middle) @ weights
        missed += float((error**2).sum())
        total += float(((outcome[unseen] - base) ** 2).sum())
    return 1 - missed / total
