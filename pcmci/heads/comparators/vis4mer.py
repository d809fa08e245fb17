"""The head `vis4mer`: state spaces over time, at each level half the frames and half the width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcmci.heads.comparators.config import ViS4merConfig
from pcmci.heads.comparators.frames import frame_by_frame
from pcmci.heads.comparators.state_space import DiagonalS4
from pcmci.heads.head import Draws, Head, keep_mask


class Level(nn.Module):
    """x <- x + dropout(S4(LN(x))), the mean of every two frames, then GELU(x W), half as wide."""

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        self.width = width
        self.norm = nn.LayerNorm(width)
        self.s4 = DiagonalS4(width, states)
        self.down = nn.Linear(width, max(1, width // 2))

    def forward(self, x: Tensor, dropout: Tensor | None) -> Tensor:
        """[B, L, d] to [B, L/2, d/2], half a frame being one. dropout: [B, d], the same at every
        frame."""
        changed = self.s4(self.norm(x))
        if dropout is not None:
            changed = changed * dropout[:, None]
        pooled = F.avg_pool1d((x + changed).mT, 2, ceil_mode=True).mT
        return F.gelu(self.down(pooled))


class ViS4merHead(Head):
    """After ViS4mer (Islam and Bertasius, ECCV 2022): its decoder on frame features.

    [LN(V^P), LN(V)] of a frame, projected to the 1,024 of its Swin features (with a VLM 512 wide);
    three levels; the mean over what is left of the frames; one linear layer. Left out: the 49
    patches of each frame (there 3,136 tokens, here as many as frames), and S4's own state matrix,
    in whose place stands a diagonal one. The original takes the epoch that is best on the test
    split; here that split chooses nothing.
    """

    def __init__(self, config: ViS4merConfig, text: Tensor, video_width: int) -> None:
        super().__init__(text)
        n_labels, width = text.shape
        channels = config.channels or 2 * width
        self.p = config.dropout
        self.frames_in = nn.Linear(width + video_width, channels)
        self.widths = [max(1, channels // 2**level) for level in range(config.levels + 1)]
        self.levels = nn.ModuleList(Level(d, config.states) for d in self.widths[:-1])
        self.out = nn.Linear(self.widths[-1], n_labels)

    def opinions(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws | None
    ) -> Tensor:
        """The logits [B, N]. See `Head.forward`."""
        x = self.frames_in(frame_by_frame(vlm, video))
        for place, level in enumerate(self.levels):
            x = level(x, (draws or {}).get(f"dropout {place}"))
        logits: Tensor = self.out(x.mean(1))
        return logits

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        if self.p == 0:
            return {}
        return {
            f"dropout {place}": keep_mask((batch, width), self.p, generator)
            for place, width in enumerate(self.widths[:-1])
        }
