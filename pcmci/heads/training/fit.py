"""Fit one head on one label set, and ask it what it thinks of videos."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pcmci.device import autocast, keep_freed_memory
from pcmci.errors import PcmciError
from pcmci.heads.catalogue import HEADS, head_name
from pcmci.heads.config import TrainConfig
from pcmci.heads.head import Head
from pcmci.heads.settings import HeadConfig
from pcmci.heads.training.features import Features, batches_of_runs
from pcmci.heads.training.stack import Stack

INITIALISATION, ORDER, DROPOUT, KEPT = range(4)
"""The random streams of a run. They are apart, so that two orders of stages see the videos in the
same order, whatever numbers their weights took."""


class NotFiniteError(PcmciError):
    """A model gives logits that are no numbers."""


class DivergedError(PcmciError):
    """A run came to nothing. epoch, step: where, counted from 1; the step from the run's begin."""

    def __init__(self, epoch: int, step: int, what: str = "the loss is not finite") -> None:
        super().__init__(f"training diverged: {what} in epoch {epoch}, step {step}")
        self.epoch, self.step, self.what = epoch, step, what


@dataclass
class History:
    """What happened, by epoch (counted from 1).

    loss: mean training loss an epoch. looks: epoch -> split -> headline score.
    chosen: the epoch whose weights the model has at the end, 0 where there was nothing to train.
    diverged: why the run came to nothing.
    """

    loss: list[float] = field(default_factory=list)
    looks: dict[int, dict[str, float]] = field(default_factory=dict)
    chosen: int = 0
    diverged: DivergedError | None = None

    def best(self, split: str) -> tuple[int, float] | None:
        """The epoch with the best headline score on a split, and that score."""
        seen = {epoch: look[split] for epoch, look in self.looks.items() if split in look}
        return max(seen.items(), key=lambda item: item[1]) if seen else None


def random_stream(seed: int, purpose: int) -> int:
    """A seed for one purpose of a run."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])


def build_model(
    config: HeadConfig,
    text: np.ndarray,
    video_width: int,
    seed: int,
    labels: str = "activity",
    entities: np.ndarray | None = None,
) -> Head:
    """A fresh head on the CPU. text: [N, D]. labels: the label set that it is to learn. entities:
    [M, D], for a head that reads them; None where there are none. The same seed gives the same
    weights everywhere; the global random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would also seed every GPU, and leave it so.
        torch.default_generator.manual_seed(random_stream(seed, INITIALISATION))
        # Type checkers do not know a head's own constructor; `Head` says what it takes.
        make: Callable[..., Head] = HEADS[head_name(config)].module
        more = {}
        if entities is not None and HEADS[head_name(config)].module.reads_entities:
            more["entities"] = torch.from_numpy(entities)
        head = make(config, torch.from_numpy(text), video_width, **more)
    head.labels = labels
    return head


def learning_rate_share(step: int, steps: int, warmup: float) -> float:
    """The share of the peak learning rate at a step: linear over the first `warmup` of all steps,
    then half a cosine down to 0."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def make_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, or the paper's Adam, over everything that is trained."""
    maker = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimiser]
    return maker(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)


def fit(
    model: Head,
    features: Features,
    rows: np.ndarray,
    targets: Tensor,
    config: TrainConfig,
    *,
    precision: str = "fp32",
    look: Callable[[int], dict[str, float]] | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> History:
    """Train a model where it lies; afterwards it has the weights of `History.chosen`.

    rows: [m] rows to train on. targets: [n] int64 or [n, N] float32 on the model's device, by
    row. look: scores the model as it stands after an epoch, a headline a split; its `val`
    chooses the epoch, without one the last epoch stays. Raises DivergedError.
    """
    (history,) = fit_together(
        [model], features, rows, targets, [config],
        precision=precision,
        look=(lambda epoch, run: look(epoch)) if look else None,
        on_epoch=lambda epoch, losses: on_epoch(epoch, *losses),
    )  # fmt: skip
    if history.diverged:
        raise history.diverged
    return history


def fit_together(
    models: Sequence[Head],
    features: Features,
    rows: np.ndarray,
    targets: Tensor,
    configs: Sequence[TrainConfig],
    *,
    precision: str = "fp32",
    look: Callable[[int, int], dict[str, float]] | None = None,
    on_epoch: Callable[[int, list[float]], None] = lambda epoch, losses: None,
) -> list[History]:
    """`fit` for S runs at once, each as it would be alone: with its own initialisation, order of
    videos, dropout, rate and choice of the epoch.

    models: may differ in their weights and in numbers alone. configs: one a model; epochs, batch
    size and eval_every are those of the first. look(epoch, run), on_epoch(epoch, losses [S]).
    A run that diverges says so in its History, and the others go on.
    """
    device, first = targets.device, configs[0]
    if device.type == "cpu":
        keep_freed_memory()
    stack = Stack(models, device)
    optimisers = [make_optimiser(*run) for run in zip(models, configs, strict=True)]
    steps_an_epoch = math.ceil(len(rows) / first.batch_size)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimiser, _schedule(config, steps_an_epoch))
        for optimiser, config in zip(optimisers, configs, strict=True)
    ]
    rngs = [np.random.default_rng([config.seed, ORDER]) for config in configs]
    generators = [
        torch.Generator(device).manual_seed(random_stream(config.seed, DROPOUT))
        for config in configs
    ]
    histories = [History() for _ in models]
    best: list[dict[str, Tensor] | None] = [None] * len(models)
    step = 0
    for epoch in range(1, first.epochs + 1):
        total = torch.zeros(len(models), device=device)
        sound = torch.zeros(len(models), dtype=torch.int64, device=device)
        for batch in batches_of_runs(features, rows, first.batch_size, rngs):
            target = targets[_indices(batch.rows, device)]
            size = batch.rows.shape[1]
            draws = _draws(models, size, generators)
            with autocast(device, precision):
                opinions = stack.opinions(batch.vlm, batch.video, batch.weights, draws)
            each = zip(models, opinions.float(), target, strict=True)
            losses = torch.stack([model.loss(*run) for model, *run in each])
            stack.backward(losses)
            for model, config, optimiser, schedule in zip(
                models, configs, optimisers, schedules, strict=True
            ):
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
                optimiser.step()
                schedule.step()
            # no round trip to the CPU here: where a loss was lost is counted on the device
            total += losses.detach() * size
            sound += torch.isfinite(total)
        means = (total / len(rows)).tolist()
        for history, mean, sound_steps in zip(histories, means, sound.tolist(), strict=True):
            if not math.isfinite(mean) and history.diverged is None:
                history.diverged = DivergedError(epoch, step + sound_steps + 1)
            history.loss.append(mean)
        step += steps_an_epoch
        if all(history.diverged for history in histories):
            break
        on_epoch(epoch, means)
        if look and (epoch % first.eval_every == 0 or epoch == first.epochs):
            for run, history in enumerate(histories):
                if history.diverged:
                    continue
                try:
                    history.looks[epoch] = look(epoch, run)
                except NotFiniteError:
                    history.diverged = DivergedError(epoch, step, "logits are not finite")
                    continue
                winner = history.best("val")
                if winner and winner[0] == epoch:
                    best[run] = {n: value.clone() for n, value in models[run].state_dict().items()}
                    history.chosen = epoch
            for model in models:
                model.train()
    for model, history, state in zip(models, histories, best, strict=True):
        if state is None:
            history.chosen = first.epochs
        else:
            model.load_state_dict(state)
        model.eval()
    return histories


def fit_nothing(models: Sequence[Head], device: torch.device) -> list[History]:
    """Heads without anything to train, where they are asked."""
    for model in models:
        model.to(device).eval()
    return [History() for _ in models]


def _schedule(config: TrainConfig, steps_an_epoch: int) -> Callable[[int], float]:
    steps = config.epochs * steps_an_epoch
    return lambda step: learning_rate_share(step, steps, config.warmup)


def _indices(rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows on the device; from pinned memory, for another copy would wait for the device."""
    indices = torch.from_numpy(rows)
    if device.type == "cuda":
        indices = indices.pin_memory()
    return indices.to(device, non_blocking=True)


def _draws(
    models: Sequence[Head], batch: int, generators: Sequence[torch.Generator]
) -> dict[str, Tensor]:
    """[S, ...] what each run's step draws, from its own generator."""
    each = zip(models, generators, strict=True)
    drawn = [model.draw(batch, generator) for model, generator in each]
    return {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}


def predict_logits(
    model: Head, features: Features, rows: np.ndarray, batch_size: int, precision: str = "fp32"
) -> np.ndarray:
    """[m, N] float32 logits of the rows asked for, from view 0. Raises NotFiniteError for a logit
    that is not finite: it would be ranked as if it were."""
    return ask(model, features, rows, batch_size, precision).logits


@dataclass(frozen=True)
class Heard:
    """logits: [m, N] float32. said: [m, E, N] float32, of each of the head's voices; E = 0 where it
    has none."""

    logits: np.ndarray
    said: np.ndarray


def ask(
    model: Head, features: Features, rows: np.ndarray, batch_size: int, precision: str = "fp32"
) -> Heard:
    """`predict_logits` with what the head's voices say."""
    model.eval()
    device = model.text.device
    answers, said = [], []
    with torch.inference_mode(), autocast(device, precision):
        for batch in features.batches(rows, batch_size):
            opinions = model.opinions(batch.vlm, batch.video, batch.weights, None).float()
            answers.append(model.answer(opinions))
            said.append(model.said(opinions) if model.voices else None)
    logits = torch.cat(answers).cpu().numpy()
    broken = int((~np.isfinite(logits)).any(1).sum())
    if broken:
        raise NotFiniteError(
            f"training diverged: {broken} of {len(logits)} videos have logits that are not finite"
        )
    heard = [part for part in said if part is not None]
    nothing = np.zeros((len(logits), 0, logits.shape[1]), np.float32)
    return Heard(logits, torch.cat(heard).cpu().numpy() if heard else nothing)
