"""What a reviewer would ask to see beside the method, from the same cached features.

Zero-shot CLIP, a linear probe, an MLP, and how wide a decoder without stages has to be to have as
many parameters as one with all three. Where something is chosen, `val` chooses it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier

from pcmci.cache.store import open_store
from pcmci.errors import PcmciError
from pcmci.heads.config import STAGES, ModelConfig
from pcmci.heads.scoring.metrics import class_average_precision
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.training.fit import build_model

ZERO_SHOT = "zero-shot CLIP"
"""Its logits are cosines: they rank, but no probability comes from them."""

TEMPERATURE = 0.05
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
DECAYS = (0.01, 0.1, 1.0)
HIDDEN = 512


def baselines(store_path: Path, like: Predictions, seeds: int) -> dict[str, list[Predictions]]:
    """Name -> predictions, one a seed where there is something random.

    like: those of any run on the store; the same videos are predicted. Raises PcmciError for a
    store in which a video has no features: runs leave it out, so the comparison would not be equal.
    """
    with open_store(store_path) as store:
        if len(store.done_rows) != len(store):
            raise PcmciError(
                f"{store_path}: {len(store) - len(store.done_rows)} videos are missing"
            )
        rows = np.arange(len(store))
        vlm = store.read("vlm", rows)[:, 0].astype(np.float32)
        video = store.read("video", rows)[:, 0].astype(np.float32).mean(1)
        text = {labels: store.text(labels) for labels in ("activity", "steps")}
        splits = np.array(store.splits)
        targets = {"activity": store.activity, "steps": store.steps}

    def predicted(logits: dict[str, np.ndarray]) -> Predictions:
        scored = splits != "train"
        labels = {
            name: replace(like.labels[name], logits=logits[name][scored].astype(np.float32))
            for name in logits
        }
        return replace(like, labels=labels)

    both = np.concatenate([video, vlm.mean(1)], 1)
    return {
        ZERO_SHOT: [predicted(zero_shot(vlm, text))],
        "linear probe on the mean of `video`": [
            predicted({name: linear_probe(video, t, splits) for name, t in targets.items()})
        ],
        "MLP on the means of both": [
            predicted({name: mlp(both, t, splits, seed) for name, t in targets.items()})
            for seed in range(seeds)
        ],
    }


def zero_shot(vlm: np.ndarray, text: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """[n, N] logits a label set: an activity is seen all the time (mean over frames), a step at
    some time (the best frame). vlm: [n, L, D]. text: [N, D]."""
    unit = vlm / np.linalg.norm(vlm, axis=-1, keepdims=True)
    cosines = {
        labels: unit @ (t / np.linalg.norm(t, axis=-1, keepdims=True)).T
        for labels, t in text.items()
    }
    return {
        "activity": cosines["activity"].mean(1) / TEMPERATURE,
        "steps": cosines["steps"].max(1) / TEMPERATURE,
    }


def linear_probe(x: np.ndarray, target: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """[n, N] logits of a logistic regression. x: [n, D]. target: [n] or [n, N]."""
    x, train = standardised(x, splits), splits == "train"

    def logits(strength: float) -> np.ndarray:
        model = LogisticRegression(C=strength, max_iter=2000)
        model = model if target.ndim == 1 else OneVsRestClassifier(model)
        return model.fit(x[train], target[train]).decision_function(x)

    return best_on_val([logits(strength) for strength in STRENGTHS], target, splits)


def mlp(x: np.ndarray, target: np.ndarray, splits: np.ndarray, seed: int) -> np.ndarray:
    """[n, N] logits of one hidden layer. x: [n, D]. target: [n] or [n, N]."""
    x, train = standardised(x, splits), splits == "train"

    def logits(decay: float) -> np.ndarray:
        model = MLPClassifier(HIDDEN, alpha=decay, max_iter=300, random_state=seed)
        p = model.fit(x[train], target[train]).predict_proba(x).clip(1e-7, 1 - 1e-7)
        return np.log(p) if target.ndim == 1 else np.log(p / (1 - p))

    return best_on_val([logits(decay) for decay in DECAYS], target, splits)


def standardised(x: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """By the training videos' mean and standard deviation."""
    mean, std = x[splits == "train"].mean(0), x[splits == "train"].std(0)
    return (x - mean) / (std + 1e-6)


def best_on_val(logits: list[np.ndarray], target: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """The logits with the best Acc, or mAP, on `val`."""
    val = splits == "val"

    def quality(found: np.ndarray) -> float:
        if target.ndim == 1:
            return float((found[val].argmax(1) == target[val]).mean())
        return float(np.nanmean(class_average_precision(found[val], target[val])))

    return max(logits, key=quality)


def as_many_parameters(text: np.ndarray, video_width: int, feedforward: int) -> int:
    """The feed-forward width at which a model without stages has as many parameters as one with
    all three has at `feedforward`. text: [N, D]."""

    def parameters(order: tuple[str, ...], width: int) -> int:
        config = ModelConfig(order=order, feedforward=width)
        return build_model(config, text, video_width, seed=0).trained_parameters()

    missing = parameters(STAGES, feedforward) - parameters((), feedforward)
    each = parameters((), feedforward + 1) - parameters((), feedforward)
    return feedforward + round(missing / each)
