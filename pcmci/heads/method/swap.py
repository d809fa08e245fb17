"""A literal intervention: the videos of a batch exchange what stands in all of their frames.

If a confounder adds the same vector to every frame, V_l - mean_t V + mean_t V' is the video with
another one's confounder, and to do so at random is do(C) averaged over P(c'). Labels, and what
changes within the video, stay.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ENCODERS = ("vlm", "video")
"""Each is swapped or not by a draw of its own."""


def draw_others(batch: int, count: int, generator: torch.Generator) -> Tensor:
    """[B, count] for each video others of its batch, each as often; itself where it is alone."""
    drawn = torch.randint(
        max(1, batch - 1), (count, batch), generator=generator, device=generator.device
    )
    return _other(drawn).mT


def _other(drawn: Tensor) -> Tensor:
    """Drawn from 0 to B - 2, [..., B], to places in the batch that are not one's own."""
    batch = drawn.shape[-1]
    return (torch.arange(batch, device=drawn.device) + min(1, batch - 1) + drawn) % batch


def draw_swap(batch: int, share: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Who gives a mean to whom, and whether: `swap partner` [2, B] int64, another video of the
    batch, each as often (itself where it is alone), and `swap` [2, B] of 0 and 1, 1 with the
    probability `share`; for V^P and for V. Nothing where `share` is 0."""
    if share == 0:
        return {}
    shape, device = (len(ENCODERS), batch), generator.device
    partner = _other(torch.randint(max(1, batch - 1), shape, generator=generator, device=device))
    chosen = torch.rand(shape, generator=generator, device=device) < share
    return {"swap partner": partner, "swap": chosen.to(torch.float32)}


def swapped(tokens: Tensor, partner: Tensor, chosen: Tensor) -> Tensor:
    """V_l + s (mean_t V' - mean_t V). tokens: [B, M, D]. partner: [B] whose mean is V'. chosen: s
    [B]; where it is 0, the video stays bit by bit."""
    means = tokens.mean(1)
    return tokens + (chosen[:, None] * (means[partner] - means))[:, None]


def swap(vlm: Tensor, video: Tensor, draws: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor]:
    """V^P and V as `draw_swap` has it; as they are where nothing was drawn."""
    if not draws or "swap" not in draws:
        return vlm, video
    both = zip((vlm, video), draws["swap partner"], draws["swap"], strict=True)
    changed_vlm, changed_video = (swapped(*one) for one in both)
    return changed_vlm, changed_video
