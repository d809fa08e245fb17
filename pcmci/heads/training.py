"""Fit one head on one label set, and ask it what it thinks of videos."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcmci.device import autocast
from pcmci.errors import PcmciError
from pcmci.heads.config import ModelConfig, TrainConfig
from pcmci.heads.features import Features
from pcmci.heads.model import PCMCI

INITIALISATION, ORDER, DROPOUT = range(3)
"""The random streams of a run. They are apart, so that two orders of stages see the videos in the
same order, whatever numbers their weights took."""


class DivergedError(PcmciError):
    """The loss of a run is not finite any more."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"training diverged: the loss is not finite in epoch {epoch}")
        self.epoch = epoch


@dataclass
class History:
    """What happened, by epoch (counted from 1).

    loss: mean training loss an epoch. looks: epoch -> split -> headline score.
    chosen: the epoch whose weights the model has at the end.
    """

    loss: list[float] = field(default_factory=list)
    looks: dict[int, dict[str, float]] = field(default_factory=dict)
    chosen: int = 0

    def best(self, split: str) -> tuple[int, float] | None:
        """The epoch with the best headline score on a split, and that score."""
        seen = {epoch: look[split] for epoch, look in self.looks.items() if split in look}
        return max(seen.items(), key=lambda item: item[1]) if seen else None


def random_stream(seed: int, purpose: int) -> int:
    """A seed for one purpose of a run."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])


def build_model(config: ModelConfig, text: np.ndarray, video_width: int, seed: int) -> PCMCI:
    """A fresh model on the CPU. text: [N, D]. The same seed gives the same weights everywhere; the
    global random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would also seed every GPU, and leave it so.
        torch.default_generator.manual_seed(random_stream(seed, INITIALISATION))
        return PCMCI(config, torch.from_numpy(text), video_width)


def loss_function(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy for one label a video (target [B] int), the mean of the binary cross-entropies
    for several (target [B, N] float). logits: [B, N]."""
    if target.dim() == 1:
        return F.cross_entropy(logits, target)
    return F.binary_cross_entropy_with_logits(logits, target)


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
    model: PCMCI,
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
    device = targets.device
    model.to(device).train()
    optimiser = make_optimiser(model, config)
    steps = config.epochs * math.ceil(len(rows) / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate_share(step, steps, config.warmup)
    )
    rng = np.random.default_rng([config.seed, ORDER])
    dropout = torch.Generator(device).manual_seed(random_stream(config.seed, DROPOUT))
    history = History()
    best: dict[str, Tensor] | None = None
    for epoch in range(1, config.epochs + 1):
        total = torch.zeros((), device=device)
        for batch in features.batches(rows, config.batch_size, rng):
            target = targets[torch.from_numpy(batch.rows).to(device)]
            masks = model.decoder.draw_dropout(len(batch.rows), dropout)
            with autocast(device, precision):
                logits = model(batch.vlm, batch.video, batch.weights, masks)
            loss = loss_function(logits.float(), target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimiser.step()
            schedule.step()
            total += loss.detach() * len(batch.rows)
        mean = float(total) / len(rows)
        if not math.isfinite(mean):
            raise DivergedError(epoch)
        history.loss.append(mean)
        on_epoch(epoch, mean)
        if look and (epoch % config.eval_every == 0 or epoch == config.epochs):
            history.looks[epoch] = look(epoch)
            model.train()
            winner = history.best("val")
            if winner and winner[0] == epoch:
                best = {name: value.clone() for name, value in model.state_dict().items()}
                history.chosen = epoch
    if best is None:
        history.chosen = config.epochs
    else:
        model.load_state_dict(best)
    model.eval()
    return history


def predict_logits(
    model: PCMCI, features: Features, rows: np.ndarray, batch_size: int, precision: str = "fp32"
) -> np.ndarray:
    """[m, N] float32 logits of the rows asked for, from view 0. Raises PcmciError for a logit that
    is not finite: it would be ranked as if it were."""
    model.eval()
    device = model.text.device
    parts = []
    with torch.inference_mode(), autocast(device, precision):
        for batch in features.batches(rows, batch_size):
            parts.append(model(batch.vlm, batch.video, batch.weights).float())
    logits = torch.cat(parts).cpu().numpy()
    broken = int((~np.isfinite(logits)).any(1).sum())
    if broken:
        raise PcmciError(
            f"training diverged: {broken} of {len(logits)} videos have logits that are not finite"
        )
    return logits
