"""The project's own training on a world in memory: one head, a stack of seeds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from evidence.heads import Chosen
from evidence.world import SPLITS, World
from pcmci.heads.catalogue import configure
from pcmci.heads.method.transport import alignment
from pcmci.heads.scoring.metrics import class_average_precision
from pcmci.heads.training.features import WEIGHTS, MemoryArray, ResidentFeatures
from pcmci.heads.training.fit import KEPT, ask, build_model, fit_together

CPU = torch.device("cpu")
ASKED = 500
"""Videos a forward pass where nothing is learned."""
VAL, ORACLE = "val", "val shift"
"""What chooses the epoch: videos as in training; beside it, videos without the custom, which
nobody has who does not know the confounder."""


@dataclass(frozen=True)
class Budget:
    """The same for every head."""

    epochs: int = 12
    eval_every: int = 4
    batch_size: int = 40
    lr: float = 3e-3
    seeds: int = 5


class Prepared:
    """A world as heads are given it, with what frozen embeddings alone decide kept between heads.

    labels: activity or steps.
    """

    def __init__(self, world: World, labels: str = "activity") -> None:
        self.world, self.labels = world, labels
        names = ["train", VAL, ORACLE, *SPLITS]
        ends = np.cumsum([len(world.parts[name].activity) for name in names])
        self.rows = {
            name: np.arange(end - len(world.parts[name].activity), end)
            for name, end in zip(names, ends, strict=True)
        }
        # a view a video, and the precision that stores have
        self._arrays = {
            what: np.concatenate([getattr(world.parts[name], what) for name in names])[:, None]
            .astype(np.float16)
            for what in ("vlm", "video")
        }  # fmt: skip
        self.text = world.activity_text if labels == "activity" else world.step_text
        target = np.concatenate([getattr(world.parts[name], labels) for name in names])
        dtype = torch.int64 if labels == "activity" else torch.float32
        self.target = target
        self.targets = torch.from_numpy(target).to(dtype)
        self._weights: dict[object, np.ndarray] = {}

    def features(self, head: Chosen) -> ResidentFeatures:
        """All videos, with S~ of the frozen embeddings where the head asks for it."""
        transport = head.config().frozen_transport
        arrays = dict(self._arrays)
        if transport is not None:
            if transport not in self._weights:
                frames = torch.from_numpy(arrays["vlm"][:, 0])
                text = torch.from_numpy(self.text)[None]
                each = [
                    alignment(text, part, transport, exact=True)[0].float()
                    for part in frames.split(64)
                ]
                self._weights[transport] = torch.cat(each).numpy()[:, None]
            arrays[WEIGHTS] = self._weights[transport]
        sources = {name: MemoryArray(array) for name, array in arrays.items()}
        return ResidentFeatures(sources, np.arange(len(self.target)), CPU)


@dataclass
class Trained:
    """What a head says after training. logits: split -> [S, n, N], of the epoch that validation
    chose; `oracle` likewise of the epoch that the oracle chose. epochs: [S] and, of the oracle,
    [S]. parameters: how many numbers were trained."""

    logits: dict[str, np.ndarray]
    oracle: dict[str, np.ndarray]
    epochs: list[int]
    oracle_epochs: list[int]
    parameters: int


@dataclass
class _Best:
    score: float = -1.0
    epoch: int = 0
    logits: dict[str, np.ndarray] = field(default_factory=dict)


def train(prepared: Prepared, head: Chosen, budget: Budget) -> Trained:
    """Train a stack of seeds and ask it at the looks that validation and the oracle choose."""
    features, rows = prepared.features(head), prepared.rows
    config, settings = head.config(), {
        "epochs": budget.epochs, "eval_every": budget.eval_every, "batch_size": budget.batch_size,
        "lr": budget.lr,
    }  # fmt: skip
    configs = [
        configure((), (prepared.labels,), settings | {"seed": seed})[1]
        for seed in range(budget.seeds)
    ]
    models = [
        build_model(config, prepared.text, prepared.world.parts["train"].video.shape[-1], seed,
                    prepared.labels)
        for seed in range(budget.seeds)
    ]  # fmt: skip
    for seed, model in enumerate(models):
        if model.keeps:
            rng = np.random.default_rng([seed, KEPT])
            kept = np.sort(rng.choice(rows["train"], model.keeps, replace=False))
            batch = next(iter(features.batches(kept, model.keeps)))
            model.keep(batch.vlm, batch.video)
    best = {name: [_Best() for _ in models] for name in (VAL, ORACLE)}

    def asked(k: int, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        everyone = np.concatenate([rows[name] for name in names])
        logits = ask(models[k], features, everyone, ASKED).logits
        parts = np.split(logits, np.cumsum([len(rows[name]) for name in names])[:-1])
        return dict(zip(names, parts, strict=True))

    def look(epoch: int, k: int) -> dict[str, float]:
        chosen = asked(k, (VAL, ORACLE))
        scores = {name: headline(chosen[name], prepared.target[rows[name]]) for name in chosen}
        better = [name for name in scores if scores[name] > best[name][k].score]
        if better:
            logits = asked(k, SPLITS)
            for name in better:
                best[name][k] = _Best(scores[name], epoch, logits)
        return {VAL: scores[VAL]}

    histories = fit_together(models, features, rows["train"], prepared.targets, configs, look=look)
    for k, history in enumerate(histories):
        if history.diverged:
            raise history.diverged
        assert history.chosen == best[VAL][k].epoch
    found = [
        {split: np.stack([one.logits[split] for one in best[name]]) for split in SPLITS}
        for name in (VAL, ORACLE)
    ]
    return Trained(
        *found, [one.epoch for one in best[VAL]], [one.epoch for one in best[ORACLE]],
        models[0].trained_parameters(),
    )  # fmt: skip


def headline(logits: np.ndarray, target: np.ndarray) -> float:
    """Acc of activities [n], mAP of steps [n, N], as fractions."""
    if target.ndim == 1:
        return float((logits.argmax(1) == target).mean())
    return float(np.nanmean(class_average_precision(logits, target)))
