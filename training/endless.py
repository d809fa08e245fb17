"""Endless training sets: the n-th sample is drawn when it is asked for, beside the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

HELD_OUT = 1_000_000_000
"""Samples from this number on are never trained on."""


class Drawn(Dataset[Any]):
    """Sample k is `draw(first + k)`."""

    def __init__(self, draw: Callable[[int], Any], first: int, count: int) -> None:
        self._draw, self._first, self._count = draw, first, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, k: int) -> Any:
        return self._draw(self._first + k)


def batches(draw: Callable[[int], Any], size: int, count: int, first: int = 0) -> DataLoader[Any]:
    """`count` lists of `size` samples each, every sample once, the same ones in every run.

    One process draws ahead: it is some ten times quicker than the training it feeds.
    """
    return DataLoader(
        Drawn(draw, first, size * count), size, num_workers=1, prefetch_factor=4, collate_fn=list
    )


class OneCycle:
    """Optimisers whose rates rise for a tenth of the steps and fall to nothing until the last.

    optimisers: each made with its peak rate.
    """

    def __init__(self, steps: int, *optimisers: torch.optim.Optimizer) -> None:
        self._optimisers = optimisers
        self._schedules = [
            torch.optim.lr_scheduler.OneCycleLR(
                optimiser,
                optimiser.param_groups[0]["lr"],
                total_steps=steps,
                pct_start=0.1,
                cycle_momentum=False,
            )
            for optimiser in optimisers
        ]

    def step(self, loss: torch.Tensor) -> None:
        """One step down the gradient of a loss."""
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in self._optimisers:
            optimiser.step()
        for schedule in self._schedules:
            schedule.step()
