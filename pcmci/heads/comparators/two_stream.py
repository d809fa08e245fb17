"""The head `two-stream`: what comes and goes beside what lasts, and queries of both that meet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pcmci.heads.comparators.bank import Bank, append
from pcmci.heads.comparators.config import TwoStreamConfig
from pcmci.heads.comparators.frames import frame_by_frame
from pcmci.heads.comparators.modulator import Modulator
from pcmci.heads.comparators.query_transformer import (
    Past,
    QueryTransformer,
    recall,
    with_frame,
)
from pcmci.heads.comparators.transformer import Attend, FeedForward
from pcmci.heads.head import Draws, Head
from pcmci.heads.method.decoder import Decoder
from pcmci.heads.method.positions import Positions


class SceneTransformer(nn.Module):
    """Each block: attention to the frames at hand, to the past of the queries, among the queries,
    to the entities' queries (`meet`), feed-forward. A past is what a block's queries were once they
    had seen the frame, so that the first block has one too."""

    def __init__(self, config: TwoStreamConfig, width: int) -> None:
        super().__init__()
        self.most, self.update = config.bank, config.long
        self.queries = nn.Parameter(torch.randn(config.queries, width))
        heads, blocks = config.decoder_heads, range(config.blocks)
        self.look = nn.ModuleList(Attend(width, heads) for _ in blocks)
        self.recall = nn.ModuleList(Attend(width, heads) for _ in blocks)
        self.among = nn.ModuleList(Attend(width, heads) for _ in blocks)
        self.meet = nn.ModuleList(Attend(width, heads) for _ in blocks if config.meet)
        self.feed = nn.ModuleList(FeedForward(width, 4 * width) for _ in blocks)

    def begin(self, batch: int) -> tuple[Tensor, Past]:
        """The queries of every frame before they see it [B, q, W], and a past of nothing."""
        return self.queries.expand(batch, -1, -1), (None,) * len(self.look)

    def forward(
        self, begun: Tensor, frames: Tensor, past: Past, entities: Tensor
    ) -> tuple[Tensor, Past]:
        """The queries after one more frame [B, q, W], and the past with it. frames: [B, n, W], the
        one at hand and those remembered. entities: what the entities' queries [B, q, W] are after
        the same frame."""
        z, longer = begun, list(past)
        blocks = zip(self.look, self.recall, self.among, self.feed, past, strict=True)
        for place, (look, looking_back, among, feed, bank) in enumerate(blocks):
            z = look(z, frames)
            z, longer[place] = recall(looking_back, z, bank, self.most, self.update)
            z = among(z, z)
            if self.meet:
                z = self.meet[place](z, entities)
            z = feed(z)
        return z, tuple(longer)


class TwoStreamHead(Head):
    """After HierarQ (CVPR 2025): an entity stream with a short memory under a scene stream with a
    long one.

    Both walk through the frames as `MemoryBankHead` does, which is what the entities' are but for
    a memory that is first in, first out. The scenes' memory merges, and their queries also attend
    to those of the entities after the same frame. What they are after the last frame is read by the
    paper's decoder, beside the entities' where the streams do not meet.

    Left out: image encoder, InstructBLIP's weights, language model with LoRA, all as in
    `MemoryBankHead`. There and here, entities are the nouns of the prompts and scenes the whole
    prompts; in a store that was made without nouns (`pcmci extract --entities`) both streams read
    the prompts, and differ by their memories, their weights and their place. Ours: frames attend to
    texts
    (`Modulator` says why), and a memory holds frames as they came, projected and modulated when
    they are read: so both learn from all of them, though no gradient flows through a memory.
    """

    entity_text: Tensor
    reads_entities = True

    def __init__(
        self,
        config: TwoStreamConfig,
        text: Tensor,
        video_width: int,
        entities: Tensor | None = None,
    ) -> None:
        """entities: [M, D] embeddings of the nouns, None for a store that has none."""
        super().__init__(text)
        n_labels, width = text.shape
        inner = config.inner or width // 2
        self.config = config
        self.text_in = nn.LayerNorm(width)
        self.positions = Positions("sinusoidal", width + video_width)
        self.frames_in = nn.Sequential(nn.Linear(width + video_width, inner), nn.LayerNorm(inner))
        self.modulators = nn.ModuleList(
            Modulator(inner, width) for _ in ("entities", "scenes") if config.modulate
        )
        self.entities = QueryTransformer(
            inner, queries=config.queries, blocks=config.blocks, heads=config.decoder_heads,
            most=config.bank, update=config.short,
        )  # fmt: skip
        self.scenes = SceneTransformer(config, inner)
        self.tokens_out = nn.Linear(inner, width)
        self.decoder = Decoder(width, n_labels, config.decoder)
        self.has_entities = entities is not None and config.modulate
        if entities is not None and self.has_entities:
            self.register_buffer("entity_text", entities.clone())
            self.entity_in = nn.LayerNorm(width)

    def opinions(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws | None
    ) -> Tensor:
        """The logits [B, N]. See `Head.forward`."""
        text = self.text_in(self.text)
        nouns = self.entity_in(self.entity_text) if self.has_entities else None
        z = self.walk(self.positions(frame_by_frame(vlm, video)), text, nouns)
        mask = (draws or {}).get("dropout")
        logits: Tensor = self.decoder(text[None], self.tokens_out(z), mask)
        return logits

    def walk(self, frames: Tensor, text: Tensor, nouns: Tensor | None = None) -> Tensor:
        """The queries after the last frame. frames: [B, L, D + Dv]. text: [N, D], of the prompts.
        nouns: [M, D], what the entities' stream reads in their place. Returns [B, q, W], or
        [B, 2 q, W] where the streams do not meet."""
        things = text if nouns is None else nouns
        config, last = self.config, frames.shape[1] - 1
        entities_begun, entities_past = self.entities.begin(len(frames))
        scenes_begun, scenes_past = self.scenes.begin(len(frames))
        entities, scenes = entities_begun, scenes_begun
        short: Bank | None = None
        long: Bank | None = None
        for t, frame in enumerate(frames.unbind(1)):
            with torch.set_grad_enabled(
                torch.is_grad_enabled() and (t == last or not config.detach)
            ):
                near, far = self._seen(short, frame, things, 0), self._seen(long, frame, text, 1)
                entities, entities_past = self.entities(entities_begun, near, entities_past)
                scenes, scenes_past = self.scenes(scenes_begun, far, scenes_past, entities)
                short = append(short, frame, config.bank, config.short)
                long = append(long, frame, config.bank, config.long)
        return scenes if config.meet else torch.cat([scenes, entities], dim=1)

    def _seen(self, bank: Bank | None, frame: Tensor, text: Tensor, stream: int) -> Tensor:
        """The frames at hand of a stream, in the light of the texts. frame: [B, D + Dv]. Returns
        [B, n, W]."""
        frames: Tensor = self.frames_in(with_frame(bank, frame))
        return self.modulators[stream](frames, text) if self.config.modulate else frames

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        return self.decoder.draw(batch, generator)

    def facts(self) -> dict[str, Any]:
        """How many nouns the entities' stream reads, where it reads any."""
        return {"entities": len(self.entity_text)} if self.has_entities else {}
