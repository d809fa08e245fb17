"""The head `memory-bank`: frames one after another, and a memory of fixed length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcmci.heads.comparators.bank import Bank, append
from pcmci.heads.comparators.config import MemoryBankConfig
from pcmci.heads.comparators.frames import frame_by_frame
from pcmci.heads.comparators.transformer import Attend, FeedForward
from pcmci.heads.head import Draws, Head
from pcmci.heads.method.decoder import Decoder
from pcmci.heads.method.positions import Positions


class MemoryBankHead(Head):
    """After MA-LMM (He et al., CVPR 2024): a query transformer that walks through the video.

    At every frame and in every block, z <- LN(z + SA(z; [Q, z])), z <- LN(z + CA(z; [B, f])),
    z <- LN(z + FF(z)): the queries attend to what they were in this block at earlier frames, then
    to earlier frames and the new one. Both banks are of fixed length, each query's past by itself
    (`pcmci.heads.comparators.bank`). What the queries are after the last frame is read by the
    paper's decoder, with a label a query.

    Left out: its image encoder with all patches, InstructBLIP's weights, and the language model
    that answers, nine tenths of its numbers. A result here says nothing of the original. Ours are
    the small width, the positions of frames (there, learned ones added to the same place), and that
    the banks hold frames as they came, projected when they are read: so the projection learns from
    all of them, though no gradient flows through a bank.

    The first block has no bank of its own past: its queries are the learned ones at every frame,
    and attention to copies of oneself is attention to oneself.
    """

    def __init__(self, config: MemoryBankConfig, text: Tensor, video_width: int) -> None:
        super().__init__(text)
        n_labels, width = text.shape
        inner = config.inner or width // 2
        self.config = config
        self.text_in = nn.LayerNorm(width)
        self.positions = Positions("sinusoidal", width + video_width)
        self.frames_in = nn.Sequential(nn.Linear(width + video_width, inner), nn.LayerNorm(inner))
        self.queries = nn.Parameter(torch.randn(config.queries, inner))
        heads, blocks = config.decoder_heads, range(config.blocks)
        self.among = nn.ModuleList(Attend(inner, heads) for _ in blocks)
        self.look = nn.ModuleList(Attend(inner, heads) for _ in blocks)
        self.feed = nn.ModuleList(FeedForward(inner, 4 * inner) for _ in blocks)
        self.tokens_out = nn.Linear(inner, width)
        self.decoder = Decoder(width, n_labels, config.decoder)

    def forward(
        self,
        vlm: Tensor,
        video: Tensor,
        weights: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Logits [B, N]. See `Head.forward`."""
        z = self.walk(self.positions(frame_by_frame(vlm, video)))
        text = self.text_in(self.text)[None]
        logits: Tensor = self.decoder(text, self.tokens_out(z), (draws or {}).get("dropout"))
        return logits

    def walk(self, frames: Tensor) -> Tensor:
        """The queries after the last frame. frames: [B, L, D + Dv]. Returns [B, q, W]."""
        config, last = self.config, frames.shape[1] - 1
        first = self.among[0](self.queries[None], self.queries[None])
        first = first.expand(len(frames), -1, -1)
        seen: Bank | None = None
        past: list[Bank | None] = [None] * len(self.among)
        through = torch.is_grad_enabled() and not config.detach
        with torch.set_grad_enabled(through):
            for t in range(last):
                inputs = self._step(first, seen, past, frames[:, t])[:-1]
                seen = append(seen, frames[:, t], config.bank, config.update)
                past = [None] + [
                    append(bank, z, config.bank, config.update)
                    for bank, z in zip(past[1:], inputs, strict=True)
                ]
        return self._step(first, seen, past, frames[:, last])[-1]

    def _step(
        self, first: Tensor, seen: Bank | None, past: list[Bank | None], frame: Tensor
    ) -> list[Tensor]:
        """What each block makes of one frame [B, D + Dv], the last what the queries are then."""
        frames = self.frames_in(with_bank(seen, frame[:, None]))
        outputs: list[Tensor] = []
        blocks = zip(self.among, self.look, self.feed, past, strict=True)
        for among, look, feed, bank in blocks:
            z = among(outputs[-1], with_past(bank, outputs[-1])) if outputs else first
            outputs.append(feed(look(z, frames)))
        return outputs

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        mask = self.decoder.draw_dropout(batch, generator)
        return {} if mask is None else {"dropout": mask}


def with_bank(bank: Bank | None, now: Tensor) -> Tensor:
    """Frames of a bank [B, m, W] and what is there now [B, n, W], one after another."""
    return now if bank is None else torch.cat([bank.entries, now], dim=1)


def with_past(bank: Bank | None, queries: Tensor) -> Tensor:
    """All queries of a bank [B, q, m, W] and those of now [B, q, W], one after another."""
    return queries if bank is None else torch.cat([bank.entries.flatten(1, 2), queries], dim=1)
