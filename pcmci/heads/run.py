"""One run: from a store to a folder that holds everything the run found.

    config.json  model.safetensors  metrics.json  predictions.npz  coprediction.npz  tensorboard/

The folder's name is made from the run's content: the store's, every setting, the seed. A run that
is there already is not trained again. The folder appears whole or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from pcmci.cache.schema import StoreSpec
from pcmci.cache.store import Store
from pcmci.device import choose_device, choose_precision
from pcmci.errors import PcmciError, UsageError
from pcmci.heads.config import (
    STAGES,
    ModelConfig,
    TrainConfig,
    TransportConfig,
    configure,
    order_name,
    parse_labels,
    parse_order,
)
from pcmci.heads.features import Features, open_features
from pcmci.heads.frozen import frozen_weights
from pcmci.heads.ich import ICH
from pcmci.heads.metrics import coprediction
from pcmci.heads.model import PCMCI, ich_is_frozen
from pcmci.heads.predictions import LabelPredictions, Predictions
from pcmci.heads.scoring import Scores, score, score_split, sigmoid, softmax
from pcmci.heads.splits import training_splits
from pcmci.heads.training import History, build_model, fit, predict_logits

RUN_FORMAT = 1
VIDEOS_A_PASS = 32
"""In `Run.predict`."""
MARGINAL_ERROR = "transport marginal error"
"""The worst of all plans of a run, relative."""

HEADLINE = {"activity": "Acc", "steps": "mAP"}
"""The score that validation chooses by."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    metrics: split -> scores, see `pcmci.heads.scoring.score`. heads: label set -> what is known of
    its training. config: what config.json says. reused: whether it was there already.
    """

    path: Path
    config: dict[str, Any]
    metrics: dict[str, Scores]
    heads: dict[str, dict[str, Any]]
    reused: bool = False

    @property
    def spec(self) -> StoreSpec:
        """The spec of the store that the run was trained on: it says which encoders."""
        return StoreSpec.from_json(json.dumps(self.config["store"]["spec"]))

    @property
    def predictions(self) -> Predictions:
        """The saved predictions."""
        return Predictions.load(self.path / "predictions.npz")

    def models(self, device: str | torch.device = "cpu") -> dict[str, PCMCI]:
        """Label set -> the trained model. Raises PcmciError for a damaged weights file."""
        path = self.path / "model.safetensors"
        try:
            tensors = load_file(path)
            return {labels: self._model(labels, tensors).to(device) for labels in self.heads}
        except (OSError, SafetensorError, KeyError, RuntimeError, TypeError) as error:
            raise PcmciError(f"{path}: weights cannot be read: {error}") from error

    def _model(self, labels: str, tensors: dict[str, torch.Tensor]) -> PCMCI:
        prefix = f"{labels}."
        state = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        config = _model_config(self.config["model"])
        model = build_model(config, state["text"].numpy(), self.spec.video.width, seed=0)
        model.load_state_dict(state)
        return model.eval()

    def predict(
        self, vlm: np.ndarray, video: np.ndarray, device: str | torch.device = "cpu"
    ) -> dict[str, np.ndarray]:
        """Label set -> probabilities [m, N] of new videos: softmax over activities, a sigmoid a
        step. vlm: [m, L, D]. video: [m, Lv, Dv]."""
        batches = list(
            zip(*(torch.from_numpy(x).split(VIDEOS_A_PASS) for x in (vlm, video)), strict=True)
        )
        probabilities = {}
        for labels, model in self.models(device).items():
            with torch.inference_mode():
                logits = torch.cat([model(*(x.float().to(device) for x in b)) for b in batches])
            chosen = softmax if labels == "activity" else sigmoid
            probabilities[labels] = chosen(logits.cpu().numpy())
        return probabilities


def train_heads(
    store: Store,
    order: tuple[str, ...] | str = STAGES,
    *,
    labels: tuple[str, ...] | str | None = None,
    out: str | Path = "runs",
    device: str = "auto",
    precision: str = "auto",
    memory: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **values: Any,
) -> Run:
    """Train the stages and the decoder on a store, score them, and write a run folder.

    order: the stages, as ("ich", "ici") or "ich,ici". labels: label sets to learn, one model
    each; default: all that the store has. memory: bytes for features; what does not fit is
    streamed. values: any setting by name (`lr=3e-3`, `seed=1`, `transport_lambda=0.5`).
    Raises UsageError for settings, PcmciError for a store without training or scored videos and
    for a loss that is not finite. The same seed gives the same bits on a CPU, as long as the
    features are held in the same way (all in memory, or streamed through as much of it).
    """
    order = parse_order(order) if isinstance(order, str) else order
    labels = parse_labels(labels) if isinstance(labels, str) else labels
    model_config, config = configure(order, labels or store.spec.label_sets, values)
    _check_labels(store, config.labels)
    on = choose_device(device)
    precision = choose_precision(precision, on)
    record = _record(store, model_config, config, on, precision)
    folder = Path(out) / _folder_name(store, model_config, config, record["key"])
    if folder.exists() and not overwrite:
        return _reused(folder, record["key"])

    # A folder of its own, for two processes and two threads may make the same run.
    partial = _partial_folder(Path(out), folder.name)
    try:
        learner = _Learner(store, model_config, config, on, precision, memory, progress, partial)
        learner.run(record)
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        try:
            partial.rename(folder)
        except OSError as error:
            if folder.exists():  # somebody else made the same run meanwhile
                return _reused(folder, record["key"])
            raise PcmciError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_run(folder)


def _reused(folder: Path, key: str) -> Run:
    run = load_run(folder)
    if run.config["key"] != key:
        raise PcmciError(f"{folder} holds another run of the same short name: move it away")
    return dataclasses.replace(run, reused=True)


def _partial_folder(out: Path, name: str) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=out))
        folder.chmod(0o777 & ~_umask())
    except OSError as error:
        raise UsageError(f"--out {out}: cannot write runs there: {error.strerror}") from error
    return folder


def _umask() -> int:
    """The permissions that new files do not get; reading it means setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_run(path: str | Path) -> Run:
    """Raises UsageError where there is no run, PcmciError where one is damaged."""
    path = Path(path)
    if not (path / "config.json").is_file():
        raise UsageError(f"{path} is no run folder: it has no config.json")
    try:
        config = json.loads((path / "config.json").read_text())
        metrics = json.loads((path / "metrics.json").read_text())
        if config["format"] > RUN_FORMAT:
            raise PcmciError(f"{path}: run format {config['format']} is newer: upgrade pcmci")
        return Run(path, config, metrics["scores"], metrics["heads"])
    except (OSError, ValueError, KeyError) as error:
        raise PcmciError(f"{path}: the run cannot be read: {error}") from error


class _Learner:
    """The work of one run, label set by label set."""

    def __init__(
        self,
        store: Store,
        model: ModelConfig,
        config: TrainConfig,
        device: torch.device,
        precision: str,
        memory: int | None,
        progress: bool,
        folder: Path,
    ) -> None:
        self.store, self.model_config, self.config = store, model, config
        self.device, self.precision, self.memory = device, precision, memory
        self.progress, self.folder = progress, folder
        self.splits = training_splits(
            np.array(store.splits), np.array(store.groups), store.activity, config.validation
        )
        self.done = np.zeros(len(store), dtype=bool)
        self.done[store.done_rows] = True
        self.scored = np.flatnonzero(self.splits != "train")
        _check_something_there(self.splits, self.done)

    def run(self, record: dict[str, Any]) -> None:
        """Write everything into the folder."""
        predictions: dict[str, LabelPredictions] = {}
        heads: dict[str, dict[str, Any]] = {}
        tensors: dict[str, torch.Tensor] = {}
        with SummaryWriter(str(self.folder / "tensorboard")) as board:
            for labels in self.config.labels:
                model, predictions[labels], heads[labels] = self._learn(labels, board)
                for name, tensor in model.state_dict().items():
                    tensors[f"{labels}.{name}"] = tensor.cpu().contiguous()
        whole = self._predictions(predictions)
        scores = score(whole)
        save_file(tensors, self.folder / "model.safetensors")
        whole.save(self.folder / "predictions.npz")
        np.savez(self.folder / "coprediction.npz", **_matrices(whole))  # type: ignore[arg-type]
        _write_json(self.folder / "metrics.json", {"scores": scores, "heads": heads})
        _write_json(self.folder / "config.json", record)

    def _learn(
        self, labels: str, board: SummaryWriter
    ) -> tuple[PCMCI, LabelPredictions, dict[str, Any]]:
        began = time.perf_counter()
        store, config = self.store, self.config
        target = store.activity if labels == "activity" else store.steps
        train = np.flatnonzero((self.splits == "train") & self.done & self._labelled(labels))
        readable = self.scored[self.done[self.scored]]
        if len(train) == 0:
            raise PcmciError(f"no training video with features has {labels} labels")
        info: dict[str, Any] = {}
        weights = None
        if "ich" in self.model_config.order and ich_is_frozen(self.model_config):
            frozen = frozen_weights(
                store, labels, self.model_config.transport, self.device, self.progress
            )
            weights = frozen.weights
            info[MARGINAL_ERROR] = frozen.marginal_error
        features = open_features(
            store, np.concatenate([train, readable]), weights, self.device, self.memory
        )
        model = build_model(
            self.model_config, store.text(labels), store.spec.video.width, config.seed
        )
        dtype = torch.int64 if labels == "activity" else torch.float32
        targets = torch.from_numpy(np.asarray(target)).to(self.device, dtype)

        def predict() -> np.ndarray:
            logits = np.full((len(store), len(store.spec.labels(labels))), -np.inf, np.float32)
            logits[readable] = predict_logits(
                model, features, readable, config.batch_size, self.precision
            )
            return logits[self.scored]

        latest: dict[int, np.ndarray] = {}

        def look(epoch: int) -> dict[str, float]:
            latest.clear()
            latest[epoch] = predict()
            return self._headlines(labels, latest[epoch])

        steps = f"{labels} {order_name(self.model_config.order)} seed {config.seed}"
        interval = 0.1 if sys.stderr.isatty() else 30  # a job's log needs no more
        with tqdm(
            total=config.epochs, desc=steps, unit="epoch", disable=not self.progress,
            mininterval=interval,
        ) as bar:  # fmt: skip

            def on_epoch(epoch: int, loss: float) -> None:
                board.add_scalar(f"{labels}/loss", loss, epoch)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()

            history = fit(
                model, features, train, targets, config,
                precision=self.precision, look=look, on_epoch=on_epoch,
            )  # fmt: skip
        for epoch, seen in history.looks.items():
            for split, value in seen.items():
                board.add_scalar(f"{labels}/{HEADLINE[labels]} {split}", value, epoch)
        info |= self._facts(labels, model, features, history, len(train))
        ich = dict(model.stages.items()).get("ich")
        if isinstance(ich, ICH) and not ich.frozen:
            info[MARGINAL_ERROR] = float(ich.marginal_error)
        info["seconds"] = time.perf_counter() - began
        logits = latest[history.chosen] if history.chosen in latest else predict()
        return model, self._label_predictions(labels, logits), info

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


def _check_labels(store: Store, labels: tuple[str, ...]) -> None:
    for name in labels:
        if name not in store.spec.label_sets:
            has = ", ".join(store.spec.label_sets) or "none"
            raise UsageError(f"--labels {name!r}: {store.path} has these label sets: {has}")
    if not labels:
        raise UsageError(f"{store.path} has no labels to learn from")


def _check_something_there(splits: np.ndarray, done: np.ndarray) -> None:
    counts = {name: int((splits == name).sum()) for name in dict.fromkeys(splits.tolist())}
    if not (done & (splits == "train")).any():
        raise PcmciError(f"the store has no training video with features (its splits: {counts})")
    if not (done & (splits != "train")).any():
        raise PcmciError(f"the store has no video to score (its splits: {counts})")


def _record(
    store: Store, model: ModelConfig, config: TrainConfig, device: torch.device, precision: str
) -> dict[str, Any]:
    content = {
        "format": RUN_FORMAT,
        "content_digest": store.content_digest,
        "model": dataclasses.asdict(model),
        "train": dataclasses.asdict(config),
        "precision": precision,
        "device": device.type,
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {
        "format": RUN_FORMAT,
        "key": key,
        "model": content["model"],
        "train": content["train"],
        "store": {
            "path": str(store.path),
            "fingerprint": store.fingerprint,
            "content_digest": store.content_digest,
            "spec": json.loads(store.spec.to_json()),
        },
        "machine": {
            "device": str(device),
            "precision": precision,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "pcmci": version("pcmci"),
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _folder_name(store: Store, model: ModelConfig, config: TrainConfig, key: str) -> str:
    order = "-".join(model.order) or "none"
    labels = "+".join(config.labels)
    return f"{store.spec.dataset}_{labels}_{order}_seed{config.seed}_{key[:8]}"


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


def _model_config(raw: dict[str, Any]) -> ModelConfig:
    transport = TransportConfig(**raw["transport"])
    return ModelConfig(**{**raw, "order": tuple(raw["order"]), "transport": transport})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
