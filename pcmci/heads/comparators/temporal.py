"""The head `temporal`: one transformer layer over both encoders' tokens, which know their place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcmci.heads.comparators.config import TemporalConfig
from pcmci.heads.comparators.transformer import Attend, FeedForward
from pcmci.heads.head import Draws, Head
from pcmci.heads.method.decoder import Decoder
from pcmci.heads.method.positions import Positions


class TemporalHead(Head):
    """x = [LN(V W) + p, LN(V^P) + p], x <- LN(x + SA(x)), x <- LN(x + FF(x)), the paper's decoder.

    The cheap one that is asked for first: what `pcmci` without stages becomes once its tokens have
    met each other, the VLM's among them, and know their place in the video. A layer over time on
    frozen features is also the head of distant supervision (Lin et al., CVPR 2022), whose gain is
    its pretraining.
    """

    def __init__(self, config: TemporalConfig, text: Tensor, video_width: int) -> None:
        super().__init__(text)
        n_labels, width = text.shape
        self.text_in = nn.LayerNorm(width)
        self.video_in = nn.Sequential(nn.Linear(video_width, width), nn.LayerNorm(width))
        self.frames_in = nn.LayerNorm(width)
        self.positions = Positions(config.positions, width)
        self.attend = Attend(width, config.decoder_heads)
        self.feed = FeedForward(width, config.feedforward)
        self.decoder = Decoder(width, n_labels, config.decoder)

    def opinions(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws | None
    ) -> Tensor:
        """The logits [B, N]. See `Head.forward`."""
        streams = [self.video_in(video), self.frames_in(vlm)]
        x = torch.cat([self.positions(tokens) for tokens in streams], dim=1)
        x = self.feed(self.attend(x, x))
        logits: Tensor = self.decoder(
            self.text_in(self.text)[None], x, (draws or {}).get("dropout")
        )
        return logits

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        return self.decoder.draw(batch, generator)
