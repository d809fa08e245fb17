"""The work behind run folders: train, predict, score and write, label set by label set.

One learner makes one run, or a stack of runs that are trained together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.utils.tensorboard import SummaryWriter

from pcmci.cache.store import Store
from pcmci.errors import PcmciError
from pcmci.heads.features import Features, open_features
from pcmci.heads.frozen import frozen_weights
from pcmci.heads.ich import ICH
from pcmci.heads.metrics import coprediction
from pcmci.heads.model import PCMCI, ich_is_frozen
from pcmci.heads.predictions import LabelPredictions, Predictions
from pcmci.heads.recipe import Recipe
from pcmci.heads.scoring import score, score_split, sigmoid, softmax
from pcmci.heads.splits import training_splits
from pcmci.heads.training import (
    DivergedError,
    History,
    build_model,
    fit_together,
    predict_logits,
)
from pcmci.plain import plain_json

MARGINAL_ERROR = "transport marginal error"
"""The worst of all plans of a run, relative."""

HEADLINE = {"activity": "Acc", "steps": "mAP"}
"""The score that validation chooses by."""

OnEpoch = Callable[[str, int, list[float]], None]
"""Told after every epoch: the label set, the epoch from 1, the mean loss of each run."""


@dataclass
class _Found:
    """What one run found so far, by label set."""

    predictions: dict[str, LabelPredictions] = field(default_factory=dict)
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


class Learner:
    """recipes: of runs that can be stacked (the same `Recipe.stack_key`). memory: bytes for
    features. spare: where plans are kept if not beside the store. progress: whether the transport
    shows a bar.

    Raises PcmciError for a store without training or scored videos.
    """

    def __init__(
        self,
        store: Store,
        recipes: Sequence[Recipe],
        device: torch.device,
        memory: int | None = None,
        *,
        spare: Path | None = None,
        progress: bool = True,
        on_epoch: OnEpoch = lambda labels, epoch, losses: None,
    ) -> None:
        if len({recipe.stack_key for recipe in recipes}) != 1:
            raise ValueError("these runs cannot be stacked")
        self.store, self.recipes = store, recipes
        self.device, self.memory, self.spare = device, memory, spare
        self.progress, self.on_epoch = progress, on_epoch
        self.config, self.model_config = recipes[0].train, recipes[0].model
        self.precision = recipes[0].precision
        self.splits = training_splits(
            np.array(store.splits), np.array(store.groups), store.activity, self.config.validation
        )
        self.done = np.zeros(len(store), dtype=bool)
        self.done[store.done_rows] = True
        self.scored = np.flatnonzero(self.splits != "train")
        _check_something_there(self.splits, self.done)

    def learn(self, folders: Sequence[Path]) -> list[DivergedError | None]:
        """Write every run into its folder, which is there already; says which came to nothing (the
        folder of such a run is not to be kept)."""
        found = [_Found() for _ in self.recipes]
        failed: list[DivergedError | None] = [None] * len(self.recipes)
        with ExitStack() as open_boards:
            boards = [
                open_boards.enter_context(SummaryWriter(str(folder / "tensorboard")))
                for folder in folders
            ]
            for labels in self.config.labels:
                alive = [run for run, error in enumerate(failed) if error is None]
                if not alive:
                    break
                for run, error in zip(
                    alive, self._learn(labels, alive, found, boards), strict=True
                ):
                    failed[run] = error
        for run, error in enumerate(failed):
            if error is None:
                self._write(folders[run], self.recipes[run], found[run])
        return failed

    def _write(self, folder: Path, recipe: Recipe, found: _Found) -> None:
        predictions = self._predictions(found.predictions)
        metrics = {"scores": score(predictions), "heads": found.heads}
        record = recipe.record(self.store, self.device, stack=len(self.recipes))
        try:
            save_file(found.tensors, folder / "model.safetensors")
            predictions.save(folder / "predictions.npz")
            matrices = _matrices(predictions)
            np.savez(folder / "coprediction.npz", **matrices)  # type: ignore[arg-type]
            _write_json(folder / "metrics.json", metrics)
            _write_json(folder / "config.json", record)
        except SafetensorError as error:  # of a full disk, among others
            raise PcmciError(f"{folder.parent}: the run cannot be written: {error}") from error

    def _learn(
        self, labels: str, runs: list[int], found: list[_Found], boards: list[SummaryWriter]
    ) -> list[DivergedError | None]:
        began = time.perf_counter()
        store, config = self.store, self.config
        target = store.activity if labels == "activity" else store.steps
        train = np.flatnonzero((self.splits == "train") & self.done & self._labelled(labels))
        readable = self.scored[self.done[self.scored]]
        if len(train) == 0:
            raise PcmciError(f"no training video with features has {labels} labels")
        facts: dict[str, Any] = {}
        weights = None
        if "ich" in self.model_config.order and ich_is_frozen(self.model_config):
            frozen = frozen_weights(
                store, labels, self.model_config.transport, self.device, self.progress, self.spare
            )
            weights = frozen.weights
            facts[MARGINAL_ERROR] = frozen.marginal_error
        features = open_features(
            store, np.concatenate([train, readable]), weights, self.device, self.memory,
            readers=len(runs),
        )  # fmt: skip
        recipes = [self.recipes[run] for run in runs]
        models = [
            build_model(r.model, store.text(labels), store.spec.video.width, r.train.seed)
            for r in recipes
        ]
        dtype = torch.int64 if labels == "activity" else torch.float32
        targets = torch.from_numpy(np.asarray(target)).to(self.device, dtype)

        def predict(k: int) -> np.ndarray:
            logits = np.full((len(store), len(store.spec.labels(labels))), -np.inf, np.float32)
            logits[readable] = predict_logits(
                models[k], features, readable, config.batch_size, self.precision
            )
            return logits[self.scored]

        latest: dict[int, tuple[int, np.ndarray]] = {}

        def look(epoch: int, k: int) -> dict[str, float]:
            latest[k] = epoch, predict(k)
            return self._headlines(labels, latest[k][1])

        def on_epoch(epoch: int, losses: list[float]) -> None:
            for run, loss in zip(runs, losses, strict=True):
                boards[run].add_scalar(f"{labels}/loss", loss, epoch)
            self.on_epoch(labels, epoch, losses)

        histories = fit_together(
            models, features, train, targets, [recipe.train for recipe in recipes],
            precision=self.precision, look=look, on_epoch=on_epoch,
        )  # fmt: skip
        for k, (run, model, history) in enumerate(zip(runs, models, histories, strict=True)):
            if history.diverged:
                continue
            for epoch, seen in history.looks.items():
                for split, value in seen.items():
                    boards[run].add_scalar(f"{labels}/{HEADLINE[labels]} {split}", value, epoch)
            info = facts | self._facts(labels, model, features, history, len(train))
            ich = dict(model.stages.items()).get("ich")
            if isinstance(ich, ICH) and not ich.frozen:
                info[MARGINAL_ERROR] = float(ich.marginal_error)
            chosen_last = k in latest and latest[k][0] == history.chosen
            logits = latest[k][1] if chosen_last else predict(k)
            found[run].predictions[labels] = self._label_predictions(labels, logits)
            found[run].heads[labels] = info
            for name, tensor in model.state_dict().items():
                # a copy: in a stack these are parts of larger tensors
                found[run].tensors[f"{labels}.{name}"] = tensor.cpu().clone()
        seconds = (time.perf_counter() - began) / len(runs)
        for run, history in zip(runs, histories, strict=True):
            if not history.diverged:
                found[run].heads[labels]["seconds"] = seconds
        return [history.diverged for history in histories]

    def _labelled(self, labels: str) -> np.ndarray:
        """[n] bool: the videos that the label set says something about."""
        if labels == "activity":
            return self.store.activity >= 0
        if self.store.spec.labels("steps").unlabelled_last:
            return self.store.steps.sum(1) > 0
        return np.ones(len(self.store), dtype=bool)

    def _label_predictions(self, labels: str, logits: np.ndarray) -> LabelPredictions:
        label_set = self.store.spec.labels(labels)
        target = self.store.activity if labels == "activity" else self.store.steps
        return LabelPredictions(
            names=label_set.names,
            background=label_set.background,
            unlabelled_last=label_set.unlabelled_last,
            logits=logits,
            target=target[self.scored],
            q_train=self.q_train if labels == "steps" else np.zeros((0, 0)),
        )

    def _predictions(self, labels: dict[str, LabelPredictions]) -> Predictions:
        return Predictions(
            ids=np.array(self.store.ids)[self.scored],
            splits=self.splits[self.scored],
            sessions=np.array(self.store.sessions)[self.scored],
            present=self.done[self.scored],
            labels=labels,
        )

    @cached_property
    def q_train(self) -> np.ndarray:
        """[N, N] the co-prediction matrix of the training labels."""
        return coprediction(self.store.steps[self.splits == "train"])

    def _headlines(self, labels: str, logits: np.ndarray) -> dict[str, float]:
        """split -> headline score, of validation and test: what is looked at while training."""
        seen = self._predictions({labels: self._label_predictions(labels, logits)})
        headlines = {}
        for split in ("val", "test"):
            rows = seen.splits == split
            value = score_split(seen, rows, taus=()).get(HEADLINE[labels]) if rows.any() else None
            if value is not None:
                headlines[split] = float(value)
        return headlines

    def _facts(
        self, labels: str, model: PCMCI, features: Features, history: History, videos: int
    ) -> dict[str, Any]:
        trained = model.trained_parameters()
        frozen = self.store.spec.vlm.parameters + self.store.spec.video.parameters
        best = history.best("test")
        return {
            "trained parameters": trained,
            "trained share": trained / (trained + frozen),
            "training videos": videos,
            "features": features.kind,
            "chosen epoch": history.chosen,
            "chosen by": "validation" if history.best("val") else "last epoch",
            "best-on-test": None
            if best is None
            else {"score": HEADLINE[labels], "value": best[1], "epoch": best[0]},
            "loss": history.loss,
            "looks": {str(epoch): seen for epoch, seen in history.looks.items()},
        }


def _check_something_there(splits: np.ndarray, done: np.ndarray) -> None:
    counts = {name: int((splits == name).sum()) for name in dict.fromkeys(splits.tolist())}
    if not (done & (splits == "train")).any():
        raise PcmciError(f"the store has no training video with features (its splits: {counts})")
    if not (done & (splits != "train")).any():
        raise PcmciError(f"the store has no video to score (its splits: {counts})")


def _matrices(predictions: Predictions) -> dict[str, np.ndarray]:
    """The co-prediction matrices of the test split, predicted and true, with the names."""
    test = (predictions.splits == "test") & predictions.present
    matrices = {}
    for labels, part in predictions.labels.items():
        rows = test & (part.target >= 0) if labels == "activity" else test
        if not rows.any():
            continue
        logits, target = part.logits[rows], part.target[rows]
        if labels == "activity":
            p, target = softmax(logits), np.eye(len(part.names))[target]
        else:
            p = sigmoid(logits)
        matrices[f"{labels}/names"] = np.array(part.names)
        matrices[f"{labels}/q"] = coprediction(p)
        matrices[f"{labels}/q_truth"] = coprediction(target)
    return matrices


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(plain_json(text) + "\n")
