"""The head `memory-bank`: frames one after another, and a memory of fixed length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcmci.heads.comparators.bank import append
from pcmci.heads.comparators.config import MemoryBankConfig
from pcmci.heads.comparators.frames import frame_by_frame
from pcmci.heads.comparators.query_transformer import QueryTransformer, with_frame
from pcmci.heads.head import Draws, Head
from pcmci.heads.method.decoder import Decoder
from pcmci.heads.method.positions import Positions


class MemoryBankHead(Head):
    """After MA-LMM (He et al., CVPR 2024): queries that walk through the video with two memories.

    At every frame they attend, in every block, to what they were in it at earlier frames, and to
    earlier frames and the new one (`QueryTransformer`). Both memories are of fixed length. What the
    queries are after the last frame is read by the paper's decoder, with a label a query.

    Left out: its image encoder with all patches, InstructBLIP's weights, and the language model
    that answers, nine tenths of its numbers: a result here says nothing of the original. Ours are
    the small width, the positions (the original adds learned ones of the frame at the same place),
    and that a memory holds frames as they came, projected when they are read: so the projection
    learns from all of them, though no gradient flows through a memory.
    """

    def __init__(self, config: MemoryBankConfig, text: Tensor, video_width: int) -> None:
        super().__init__(text)
        n_labels, width = text.shape
        inner = config.inner or width // 2
        self.config = config
        self.text_in = nn.LayerNorm(width)
        self.positions = Positions("sinusoidal", width + video_width)
        self.frames_in = nn.Sequential(nn.Linear(width + video_width, inner), nn.LayerNorm(inner))
        self.queries = QueryTransformer(
            inner, queries=config.queries, blocks=config.blocks, heads=config.decoder_heads,
            most=config.bank, update=config.update,
        )  # fmt: skip
        self.tokens_out = nn.Linear(inner, width)
        self.decoder = Decoder(width, n_labels, config.decoder)

    def opinions(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws | None
    ) -> Tensor:
        """The logits [B, N]. See `Head.forward`."""
        z = self.walk(self.positions(frame_by_frame(vlm, video)))
        text = self.text_in(self.text)[None]
        logits: Tensor = self.decoder(text, self.tokens_out(z), (draws or {}).get("dropout"))
        return logits

    def walk(self, frames: Tensor) -> Tensor:
        """The queries after the last frame. frames: [B, L, D + Dv]. Returns [B, q, W]."""
        config, last = self.config, frames.shape[1] - 1
        begun, past = self.queries.begin(len(frames))
        z, seen = begun, None
        for t, frame in enumerate(frames.unbind(1)):
            with torch.set_grad_enabled(
                torch.is_grad_enabled() and (t == last or not config.detach)
            ):
                z, past = self.queries(begun, self.frames_in(with_frame(seen, frame)), past)
                seen = append(seen, frame, config.bank, config.update)
        return z

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        return self.decoder.draw(batch, generator)
