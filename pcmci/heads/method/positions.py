"""Where in its video a token is seen: without it, no head can tell two orders of frames apart.

A token's place is its frame's place in the video, and not its number: token i of n stands at
(i + 1/2) / n of it. Eight tokens of two frames each then stand between the sixteen of an encoder
with one a frame, and both encoders of a store agree on what is early and what is late.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FRAMES = 16
"""A video is so long, in the units of a position: a frame of a store of 16 frames, the default."""


def places(tokens: int, device: torch.device | str = "cpu") -> Tensor:
    """[n] where n tokens stand, in frames: .5, 1.5, ... 15.5 for 16 of them."""
    return (torch.arange(tokens, device=device) + 0.5) * (FRAMES / tokens)


def sinusoidal(at: Tensor, width: int) -> Tensor:
    """The positions of Vaswani et al. (2017), sines in the first half of the width and cosines in
    the other, of frequencies from 1 down to 1/10000 a frame. at: [n], in frames. Returns [n, D]."""
    half = (width + 1) // 2
    exponents = torch.arange(half, device=at.device) / half
    angles = at[:, None] * 10_000.0**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


def interpolated(table: Tensor, at: Tensor) -> Tensor:
    """Rows of a table at places between them, each row standing in the middle of a frame; before
    the first and after the last it goes on as it ends.

    table: [FRAMES, D]. at: [n], in frames. Returns [n, D]: the table itself at `places(FRAMES)`.
    """
    rows = (at - 0.5).clamp(0, len(table) - 1)
    distance = (rows[:, None] - torch.arange(len(table), device=at.device)).abs()
    return (1 - distance).clamp_min(0).to(table.dtype) @ table


class Positions(nn.Module):
    """Tokens with their position added. kind: `none`, `sinusoidal` or `learned`, which begins at 0.

    One serves both encoders, for a place is a place.
    """

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "learned":
            self.table = nn.Parameter(torch.zeros(FRAMES, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, n, D] to [B, n, D]."""
        if self.kind == "none":
            return tokens
        at = places(tokens.shape[1], tokens.device)
        if self.kind == "learned":
            return tokens + interpolated(self.table, at)
        return tokens + sinusoidal(at, tokens.shape[-1]).to(tokens.dtype)
