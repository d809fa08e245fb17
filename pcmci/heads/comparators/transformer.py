"""The two halves of a transformer's layer, each with its residual and its norm behind it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pcmci.errors import UsageError
from pcmci.heads.method.attention import attention


class Attend(nn.Module):
    """x <- LN(x + Attention(Q = x, K = V = source)). Raises UsageError where the number of
    attention heads does not divide the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"decoder-heads {heads} does not divide the inner width {width}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """x: [B, n, W]. source: [B, m, W]. Returns [B, n, W]."""
        return self.read(x, self.key_value(source))

    def read(self, x: Tensor, projected: Tensor) -> Tensor:
        """The same with the source's keys and values [B, m, 2 W], as `key_value` gives them."""
        key, value = projected.chunk(2, dim=-1)
        attended: Tensor = self.out(attention(self.query(x), key, value, self.heads))
        normed: Tensor = self.norm(x + attended)
        return normed


class FeedForward(nn.Module):
    """x <- LN(x + FF(x)) with one hidden layer of GELU units."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, n, W] to [B, n, W]."""
        normed: Tensor = self.norm(x + self.down(F.gelu(self.up(x))))
        return normed
