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

from pcmci.cache.replaced import FAIL
from pcmci.cache.store import Store
from pcmci.errors import PcmciError, UsageError
from pcmci.heads.catalogue import HEADS
from pcmci.heads.head import Head
from pcmci.heads.method.mediator import MEDIATOR
from pcmci.heads.method.transport import MARGINAL_ERROR
from pcmci.heads.scoring.disagreement import disagreement, voices_report
from pcmci.heads.scoring.effects import effects_report, twin_effects
from pcmci.heads.scoring.metrics import coprediction
from pcmci.heads.scoring.predictions import LabelPredictions, Predictions
from pcmci.heads.scoring.purity import purity
from pcmci.heads.scoring.scores import HEADLINE, score, score_split, sigmoid, softmax
from pcmci.heads.scoring.twins import find_twins
from pcmci.heads.training.features import Features, open_features
from pcmci.heads.training.fit import (
    KEPT,
    DivergedError,
    Heard,
    History,
    ask,
    build_model,
    fit_nothing,
    fit_together,
)
from pcmci.heads.training.frozen import frozen_weights
from pcmci.heads.training.recipe import Recipe
from pcmci.heads.training.splits import training_splits
from pcmci.heads.training.unchanged import unchanged_twins
from pcmci.plain import plain_json

OnEpoch = Callable[[str, int, list[float]], None]
"""Told after every epoch: the label set, the epoch from 1, the mean loss of each run."""


@dataclass
class _Found:
    """What one run found so far, by label set."""

    predictions: dict[str, LabelPredictions] = field(default_factory=dict)
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class _Task:
    """What there is to learn of one label set.

    train, readable: rows to train on, and rows to score that have features. targets: by row, on
    the device. facts: what is known before any training.
    """

    labels: str
    train: np.ndarray
    readable: np.ndarray
    features: Features
    targets: torch.Tensor
    facts: dict[str, Any]


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
        self.config = recipes[0].train
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
        metrics: dict[str, Any] = {"scores": score(predictions), "heads": found.heads}
        if effects := run_effects(self.store, predictions):
            metrics["effects"] = effects
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
        """One label set of the runs that are still alive, into `found`."""
        began = time.perf_counter()
        task = self._task(labels, len(runs))
        recipes = [self.recipes[run] for run in runs]
        models = [self._build(recipe, labels) for recipe in recipes]
        for recipe, model in zip(recipes, models, strict=True):
            if model.keeps:
                self._let_keep(task, model, recipe.train.seed)
        if any(model.settles for model in models) and not len(self._validation(task)):
            raise UsageError(
                f"{recipes[0].head} chooses on validation videos, and there are none with features "
                f"and {labels}; --validation 0.2 sets some aside"
            )
        if any(model.trained_parameters() for model in models):
            histories, latest = self._fit(task, recipes, models, [boards[run] for run in runs])
        else:
            histories, latest = fit_nothing(models, self.device), {}
        for k, (run, model, history) in enumerate(zip(runs, models, histories, strict=True)):
            if history.diverged:
                continue
            chosen_last = k in latest and latest[k][0] == history.chosen
            heard = latest[k][1] if chosen_last else self._ask(task, model)
            self._keep(task, model, history, heard, found[run])
            _show_looks(boards[run], labels, history)
        seconds = (time.perf_counter() - began) / len(runs)
        for run, history in zip(runs, histories, strict=True):
            if not history.diverged:
                found[run].heads[labels]["seconds"] = seconds
        return [history.diverged for history in histories]

    def _task(self, labels: str, runs: int) -> _Task:
        """What a label set asks of so many runs. Raises PcmciError where nothing can be learned."""
        store = self.store
        train = np.flatnonzero((self.splits == "train") & self.done & self._labelled(labels))
        readable = self.scored[self.done[self.scored]]
        if len(train) == 0:
            raise PcmciError(f"no training video with features has {labels} labels")
        weights, facts = self._weights(labels)
        features = open_features(
            store, np.concatenate([train, readable]), weights, self.device, self.memory,
            readers=runs, wanted=HEADS[self.recipes[0].head].module.wants,
        )  # fmt: skip
        target = store.activity if labels == "activity" else store.steps
        dtype = torch.int64 if labels == "activity" else torch.float32
        targets = torch.from_numpy(np.asarray(target)).to(self.device, dtype)
        return _Task(labels, train, readable, features, targets, facts)

    def _weights(self, labels: str) -> tuple[np.ndarray | None, dict[str, Any]]:
        """S~ of the frozen embeddings, where the heads want it, and what is known of it."""
        transport = self.recipes[0].model.frozen_transport
        if transport is None:
            return None, {}
        frozen = frozen_weights(
            self.store, labels, transport, self.device, self.progress, self.spare
        )
        return frozen.weights, {MARGINAL_ERROR: frozen.marginal_error}

    def _build(self, recipe: Recipe, labels: str) -> Head:
        text, width = self.store.text(labels), self.store.spec.video.width
        entities = self.store.entities(labels)
        return build_model(recipe.model, text, width, recipe.train.seed, labels, entities)

    def _let_keep(self, task: _Task, model: Head, seed: int) -> None:
        """Training videos, drawn by the run's seed, for a head that keeps some. Raises PcmciError
        where there are not as many."""
        if len(task.train) < model.keeps:
            raise PcmciError(
                f"{model.keeps} training videos are to be kept, and {task.labels} has "
                f"{len(task.train)}"
            )
        rng = np.random.default_rng([seed, KEPT])
        rows = np.sort(rng.choice(task.train, model.keeps, replace=False))
        batch = next(iter(task.features.batches(rows, model.keeps)))
        model.keep(batch.vlm, batch.video)

    def _fit(
        self,
        task: _Task,
        recipes: Sequence[Recipe],
        models: Sequence[Head],
        boards: Sequence[SummaryWriter],
    ) -> tuple[list[History], dict[int, tuple[int, Heard]]]:
        """Train; beside what happened, of each run the epoch and what was heard at its last
        look."""
        latest: dict[int, tuple[int, Heard]] = {}

        def look(epoch: int, k: int) -> dict[str, float]:
            if models[k].settles:
                self._settle(task, models[k])
            latest[k] = epoch, self._ask(task, models[k])
            return self._headlines(task.labels, latest[k][1])

        def on_epoch(epoch: int, losses: list[float]) -> None:
            for board, loss in zip(boards, losses, strict=True):
                board.add_scalar(f"{task.labels}/loss", loss, epoch)
            self.on_epoch(task.labels, epoch, losses)

        histories = fit_together(
            models, task.features, task.train, task.targets, [recipe.train for recipe in recipes],
            precision=self.precision, look=look, on_epoch=on_epoch,
        )  # fmt: skip
        return histories, latest

    def _ask(self, task: _Task, model: Head) -> Heard:
        """Of all that is scored; minus infinity where a video has no features."""
        heard = ask(model, task.features, task.readable, self.config.batch_size, self.precision)

        def spread(logits: np.ndarray) -> np.ndarray:
            everyone = np.full((len(self.store), *logits.shape[1:]), -np.inf, np.float32)
            everyone[task.readable] = logits
            return everyone[self.scored]

        return Heard(spread(heard.logits), spread(heard.said))

    def _settle(self, task: _Task, model: Head) -> None:
        """Let a head choose on validation videos what it wants to."""
        rows = self._validation(task)
        heard = ask(model, task.features, rows, self.config.batch_size, self.precision)
        model.settle(torch.from_numpy(heard.said), task.targets.cpu()[torch.from_numpy(rows)])

    def _validation(self, task: _Task) -> np.ndarray:
        """Rows of validation videos whose labels are known."""
        of_val = (self.splits[task.readable] == "val") & self._labelled(task.labels)[task.readable]
        return task.readable[of_val]

    def _keep(
        self, task: _Task, model: Head, history: History, heard: Heard, found: _Found
    ) -> None:
        labels = task.labels
        part = self._label_predictions(labels, heard, model.voices)
        found.predictions[labels] = part
        facts = self._facts(labels, model, task.features, history, len(task.train))
        if model.voices:
            facts["voices"] = voices_report(self._predictions({labels: part}), labels)
        if MEDIATOR in model.voices:
            facts["purity"] = self._purity(task, part)
        found.heads[labels] = task.facts | facts | model.facts()
        for name, tensor in model.state_dict().items():
            # a copy: in a stack these are parts of larger tensors
            found.tensors[f"{labels}.{name}"] = tensor.cpu().clone()

    def _purity(self, task: _Task, part: LabelPredictions) -> dict[str, float | None]:
        """split -> purity of the mediator."""
        said = part.said[:, part.voices.index(MEDIATOR)]
        one_label = task.labels == "activity"
        names = np.arange(len(part.names))
        labels = part.target[:, None] == names if one_label else part.target
        persistent = np.zeros((len(self.scored), self.store.spec.video.width))
        batches = task.features.batches(task.readable, self.config.batch_size)
        means = [batch.video.mean(1).cpu().numpy() for batch in batches]
        there = self.done[self.scored]
        persistent[there] = np.concatenate(means)
        splits, found = self.splits[self.scored], {}
        for split in dict.fromkeys(splits.tolist()):
            rows = there & (splits == split)
            posterior = (softmax if one_label else sigmoid)(said[rows])
            found[split] = purity(posterior, persistent[rows], labels[rows].astype(float))
        return found

    def _labelled(self, labels: str) -> np.ndarray:
        """[n] bool: the videos that the label set says something about."""
        if labels == "activity":
            return self.store.activity >= 0
        if self.store.spec.labels("steps").unlabelled_last:
            return self.store.steps.sum(1) > 0
        return np.ones(len(self.store), dtype=bool)

    def _label_predictions(
        self, labels: str, heard: Heard, voices: tuple[str, ...] = ()
    ) -> LabelPredictions:
        label_set = self.store.spec.labels(labels)
        target = self.store.activity if labels == "activity" else self.store.steps
        return LabelPredictions(
            names=label_set.names,
            background=label_set.background,
            unlabelled_last=label_set.unlabelled_last,
            logits=heard.logits,
            target=target[self.scored],
            q_train=self.q_train if labels == "steps" else np.zeros((0, 0)),
            voices=voices,
            said=heard.said,
            disagreement=disagreement(heard.said, one_label=labels == "activity"),
        )

    def _predictions(self, labels: dict[str, LabelPredictions]) -> Predictions:
        return Predictions(
            ids=np.array(self.store.ids)[self.scored],
            splits=self.splits[self.scored],
            sessions=np.array(self.store.sessions)[self.scored],
            present=self.done[self.scored],
            labels=labels,
            replaced=self.replaced,
        )

    @cached_property
    def replaced(self) -> np.ndarray | None:
        """[m] int32 of the videos that are scored; None in a store that takes no damaged ones."""
        return None if self.store.spec.damaged == FAIL else self.store.replaced[self.scored]

    @cached_property
    def q_train(self) -> np.ndarray:
        """[N, N] the co-prediction matrix of the training labels."""
        return coprediction(self.store.steps[self.splits == "train"])

    def _headlines(self, labels: str, heard: Heard) -> dict[str, float]:
        """split -> headline score, of validation and test: what is looked at while training."""
        seen = self._predictions({labels: self._label_predictions(labels, heard)})
        headlines = {}
        for split in ("val", "test"):
            rows = seen.splits == split
            value = score_split(seen, rows, taus=()).get(HEADLINE[labels]) if rows.any() else None
            if value is not None:
                headlines[split] = float(value)
        return headlines

    def _facts(
        self, labels: str, model: Head, features: Features, history: History, videos: int
    ) -> dict[str, Any]:
        trained = model.trained_parameters()
        encoders = self.store.spec.vlm.parameters + self.store.spec.video.parameters
        best = history.best("test")
        return {
            "trained parameters": trained,
            "trained share": trained / (sum(p.numel() for p in model.parameters()) + encoders),
            "training videos": videos,
            "features": features.kind,
            "chosen epoch": history.chosen,
            "chosen by": _chosen_by(history),
            "best-on-test": None
            if best is None
            else {"score": HEADLINE[labels], "value": best[1], "epoch": best[0]},
            "loss": history.loss,
            "looks": {str(epoch): seen for epoch, seen in history.looks.items()},
        }


def run_effects(store: Store, predictions: Predictions) -> dict[str, dict[str, dict[str, Any]]]:
    """Label set -> split of twins -> `effects_report` of one run; empty without twins."""
    if not find_twins(predictions.ids.tolist(), predictions.splits.tolist()):
        return {}
    same = unchanged_twins(store)
    return {
        labels: effects_report(twin_effects([predictions], labels, same))
        for labels in predictions.labels
    }


def _chosen_by(history: History) -> str:
    if not history.chosen:
        return "nothing to train"
    return "validation" if history.best("val") else "last epoch"


def _show_looks(board: SummaryWriter, labels: str, history: History) -> None:
    for epoch, seen in history.looks.items():
        for split, value in seen.items():
            board.add_scalar(f"{labels}/{HEADLINE[labels]} {split}", value, epoch)


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
