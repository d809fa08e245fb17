"""The head `experts`: several views of a video, each learned on a loss of its own.

What persists is where confounders live, what changes is what is done, and the VLM sees other things
than the video encoder does. An expert that goes by a custom contradicts the others as soon as the
custom is broken: so the answer is their product, and where they disagree is worth knowing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcmci.heads.comparators.config import ExpertsConfig
from pcmci.heads.config import VIEWS, ModelConfig
from pcmci.heads.head import Draws, Head, loss_function
from pcmci.heads.method.decoder import Decoder
from pcmci.heads.method.ich import ICH
from pcmci.heads.method.model import STAGE_MAKERS, vlm_in
from pcmci.heads.method.positions import Positions
from pcmci.heads.method.streams import Streams, view
from pcmci.heads.method.swap import draw_swap, swap
from pcmci.heads.method.transport import MARGINAL_ERROR, alignment


def product(opinions: Tensor, *, one_label: bool) -> Tensor:
    """sum_e log softmax(z_e) for one label a video, the mean of z_e for several (the geometric mean
    of the odds). opinions: z [B, E, N]. Returns [B, N]."""
    return opinions.log_softmax(-1).sum(1) if one_label else opinions.mean(1)


def mean(opinions: Tensor, *, one_label: bool) -> Tensor:
    """The logits of the mean of the experts' probabilities. opinions: [B, E, N]. Returns [B, N]."""
    if one_label:
        return opinions.log_softmax(-1).logsumexp(1) - math.log(opinions.shape[1])
    return F.logsigmoid(opinions).logsumexp(1) - F.logsigmoid(-opinions).logsumexp(1)


def choose_temperatures(said: Tensor, target: Tensor) -> Tensor:
    """[E] temperatures t at which the product of the experts z_e / t_e is likeliest for videos that
    they were not trained on.

    said: z [m, E, N]. target: see `loss_function`. In 1/t this is a regression with one weight an
    expert, so there is one best answer; a standard normal prior on log t keeps it near 1 where the
    videos say little, and finite where they are all right.
    """
    z, target = said.double(), target.double() if target.dim() > 1 else target
    labels = 1 if target.dim() == 1 else z.shape[-1]
    log_t = torch.zeros(z.shape[1], dtype=z.dtype, requires_grad=True)
    search = torch.optim.LBFGS([log_t], max_iter=200, line_search_fn="strong_wolfe")

    def unlikely() -> Tensor:
        search.zero_grad()
        answer = product(z * (-log_t).exp()[:, None], one_label=target.dim() == 1)
        cost = loss_function(answer, target) * labels + log_t.square().sum() / (2 * len(z))
        cost.backward()
        return cost

    with torch.enable_grad():
        search.step(unlikely)
    return log_t.detach().exp().float()


class ViewExpert(nn.Module):
    """One view of the features through an input projection of its own."""

    rewrites_text = False

    def __init__(self, name: str, width: int, video_width: int, config: ModelConfig) -> None:
        super().__init__()
        self.view = name
        norm = nn.LayerNorm(width) if config.norm else nn.Identity()
        of_vlm = VIEWS[name][0] == "vlm"
        project = vlm_in(width) if of_vlm else nn.Linear(video_width, width)
        self.project = nn.Sequential(project, norm)
        self.positions = Positions(config.positions, width)

    def forward(
        self, text: Tensor, vlm: Tensor, video: Tensor, weights: Tensor | None, aligned: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the decoder asks with [B or 1, N, D], and what it attends to [B, M, D]."""
        return text, self.positions(self.project(view(self.view, vlm, video)))


class StageExpert(nn.Module):
    """The video through stages of the paper, which look at the VLM's frames."""

    rewrites_text = True

    def __init__(self, n_labels: int, width: int, video_width: int, config: ModelConfig) -> None:
        super().__init__()
        norm = nn.LayerNorm if config.norm else (lambda _: nn.Identity())
        self.wants_weights = config.frozen_transport is not None
        self.project = nn.Sequential(nn.Linear(video_width, width), norm(width))
        self.frames_in = None
        if "ich" in config.order:
            self.frames_in = nn.Sequential(vlm_in(width), norm(width))
        self.positions = Positions(config.positions, width)
        self.stages = nn.ModuleDict(
            {name: STAGE_MAKERS[name](width, n_labels, config) for name in config.order}
        )

    def forward(
        self, text: Tensor, vlm: Tensor, video: Tensor, weights: Tensor | None, aligned: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `ViewExpert.forward`. aligned: V^P as it is, which S is asked of."""
        seen = self.frames_in
        streams = Streams(
            text=text,
            video=self.positions(self.project(video)),
            frames=None if seen is None else self.positions(seen(vlm)),
            weights=weights,
            aligned=None if seen is None or self.wants_weights else seen(aligned),
        )
        for stage in self.stages.values():
            streams = stage(streams)
        return streams.text, streams.video


class Experts(Head):
    """`experts_of` experts, one decoder for all of them or one each.

    Each is trained on its own loss: of what is not shared, no expert learns from another's.
    Raises UsageError where `relations` or `decoder_heads` do not divide D.
    """

    temperature: Tensor

    def __init__(self, config: ExpertsConfig, text: Tensor, video_width: int) -> None:
        super().__init__(text)
        n_labels, width = text.shape
        self.config = config
        self.voices = config.names
        self.settles = config.combine == "temperatures"
        paper = config.paper()
        self.experts = nn.ModuleList(
            ViewExpert(name, width, video_width, paper)
            if name in VIEWS
            else StageExpert(n_labels, width, video_width, config.paper(tuple(name.split("+"))))
            for name in self.voices
        )
        readers = range(len(self.voices) if config.experts == "apart" else 1)
        norm = nn.LayerNorm if config.norm else (lambda _: nn.Identity())
        self.text_in = nn.ModuleList(norm(width) for _ in readers)
        self.decoders = nn.ModuleList(Decoder(width, n_labels, paper) for _ in readers)
        if self.settles:
            self.register_buffer("temperature", torch.ones(len(self.voices)))

    def opinions(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws | None
    ) -> Tensor:
        """The logits of every expert [B, E, N]. Those that ask with the same text, and attend to as
        many tokens, go through a decoder that they share in one pass."""
        transport = self.config.frozen_transport
        if transport is not None and weights is None:
            weights, _ = alignment(self.text[None], vlm, transport, exact=True)
        seen_vlm, seen_video = swap(vlm, video, draws)
        texts = [norm(self.text)[None] for norm in self.text_in]
        mask = (draws or {}).get("dropout")
        together: dict[tuple[int, bool, int], list[tuple[int, Tensor, Tensor]]] = {}
        for e, expert in enumerate(self.experts):
            reader = e % len(self.decoders)
            text, tokens = expert(texts[reader], seen_vlm, seen_video, weights, vlm)
            key = reader, bool(expert.rewrites_text), tokens.shape[1]
            together.setdefault(key, []).append((e, text, tokens))
        found: dict[int, Tensor] = {}
        for (reader, own_text, _), members in together.items():
            each, asked, attended = zip(*members, strict=True)
            logits = self.decoders[reader](
                torch.cat([x.expand(len(video), -1, -1) for x in asked]) if own_text else asked[0],
                torch.cat(attended),
                None if mask is None else mask.repeat(1, len(members), 1, 1),
            )
            found |= zip(each, logits.chunk(len(members)), strict=True)
        return torch.stack([found[e] for e in range(len(self.experts))], dim=1)

    def loss(self, opinions: Tensor, target: Tensor) -> Tensor:
        """The mean of the experts' own losses. opinions: [B, E, N]."""
        each = [loss_function(expert, target) for expert in opinions.unbind(1)]
        return torch.stack(each).mean()

    def answer(self, opinions: Tensor) -> Tensor:
        """The product of the experts, or what `combine` says. opinions: [B, E, N]."""
        one_label = self.labels == "activity"
        if self.config.combine == "mean":
            return mean(opinions, one_label=one_label)
        if self.settles:
            opinions = opinions / self.temperature[:, None]
        return product(opinions, one_label=one_label)

    def settle(self, said: Tensor, target: Tensor) -> None:
        """The temperatures, on validation videos."""
        self.temperature.copy_(choose_temperatures(said, target))

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One mask of dropout for all experts, and the swap."""
        mask = self.decoders[0].draw(batch, generator)  # type: ignore[operator]
        return mask | draw_swap(batch, self.config.swap, generator)

    def facts(self) -> dict[str, Any]:
        """The temperatures where validation chose them; as `PCMCI.facts` where plans are
        learned."""
        facts: dict[str, Any] = {}
        if self.settles:
            chosen = zip(self.voices, self.temperature.tolist(), strict=True)
            facts["temperatures"] = dict(chosen)
        learned = [m for m in self.modules() if isinstance(m, ICH) and not m.frozen]
        if learned:
            facts[MARGINAL_ERROR] = max(float(ich.marginal_error) for ich in learned)
        return facts
