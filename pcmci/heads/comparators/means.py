"""The heads `linear` and `mlp`: what a reviewer asks for first, on the means over time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcmci.heads.comparators.config import LinearConfig, MLPConfig
from pcmci.heads.head import Draws, Head, keep_mask


def means(vlm: Tensor, video: Tensor) -> Tensor:
    """mean_t V beside mean_t V^P. vlm: [B, L, D]. video: [B, Lv, Dv]. Returns [B, Dv + D]."""
    return torch.cat([video.mean(1), vlm.mean(1)], dim=-1)


class _OnMeans(Head):
    """A head of the normalised means, with dropout of what its last layer reads."""

    needs_text = False

    def __init__(self, text: Tensor, video_width: int, read: int | None, dropout: float) -> None:
        """read: how wide what the last layer reads is; None for the means themselves."""
        super().__init__(text)
        n_labels, width = text.shape
        self.p = dropout
        self.norm = nn.LayerNorm(width + video_width)
        self.read = width + video_width if read is None else read
        self.out = nn.Linear(self.read, n_labels)

    def hidden(self, x: Tensor) -> Tensor:
        """The normalised means [B, Dv + D] to what the last layer reads [B, read]."""
        return x

    def opinions(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws | None
    ) -> Tensor:
        """The logits [B, N]. See `Head.forward`."""
        x = self.hidden(self.norm(means(vlm, video)))
        if draws:
            x = x * draws["dropout"]
        logits: Tensor = self.out(x)
        return logits

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        if self.p == 0:
            return {}
        return {"dropout": keep_mask((batch, self.read), self.p, generator)}


class LinearHead(_OnMeans):
    """One linear layer: logits = W LN([mean_t V, mean_t V^P]) + b."""

    def __init__(self, config: LinearConfig, text: Tensor, video_width: int) -> None:
        super().__init__(text, video_width, None, config.dropout)


class MLPHead(_OnMeans):
    """One hidden layer of GELU units before it."""

    def __init__(self, config: MLPConfig, text: Tensor, video_width: int) -> None:
        super().__init__(text, video_width, config.hidden, config.dropout)
        self.up = nn.Linear(text.shape[1] + video_width, config.hidden)

    def hidden(self, x: Tensor) -> Tensor:
        return F.gelu(self.up(x))
