"""PCMCI(order=...): the stages in any order, between frozen embeddings and the decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pcmci.errors import UsageError
from pcmci.heads.config import ModelConfig, ich_is_frozen, order_name
from pcmci.heads.head import Draws, Head, loss_function
from pcmci.heads.method.decoder import Decoder
from pcmci.heads.method.ich import ICH
from pcmci.heads.method.ici import ICI
from pcmci.heads.method.ivc import IVC
from pcmci.heads.method.mediator import MEDIATOR, Mediator
from pcmci.heads.method.positions import Positions
from pcmci.heads.method.precedence import frozen_precedence
from pcmci.heads.method.streams import Others, Streams, centred
from pcmci.heads.method.swap import draw_others, draw_swap, swap
from pcmci.heads.method.transport import MARGINAL_ERROR, alignment

StageMaker = Callable[[int, int, ModelConfig], nn.Module]

STAGE_MAKERS: dict[str, StageMaker] = {
    "ich": lambda width, n, config: ICH(width, n, config, frozen=ich_is_frozen(config)),
    "ici": ICI,
    "ivc": IVC,
}


def vlm_in(width: int) -> nn.Linear:
    """A projection of the VLM's frames that begins as the identity: the VLM gives texts and frames
    aligned, and to undo that is no way to begin."""
    project = nn.Linear(width, width)
    nn.init.eye_(project.weight)
    nn.init.zeros_(project.bias)
    return project


def part(name: str, order: tuple[str, ...]) -> str:
    """Which of `pcmci.heads.config.TUNED` a parameter is of. The VLM's frames are of the text where
    ich rewrites it with them."""
    if name.startswith("decoder."):
        return "classifier"
    text = ["text_in.", "stages.ich.", "stages.ici."] + ["frames_in."] * ("ich" in order)
    return "text" if name.startswith(tuple(text)) else "visual"


def keep_at_start(model: nn.Module, config: ModelConfig) -> None:
    """Take from training all that `config.tune` does not name. Raises UsageError for a part that
    has nothing to train."""
    if config.tune == "all":
        return
    parts = {name: part(name, config.order) for name, _ in model.named_parameters()}
    for tuned in config.tune.split(","):
        if tuned not in parts.values():
            raise UsageError(
                f"tune {config.tune}: order {order_name(config.order)} has nothing of {tuned} to "
                "train"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parts[name] in config.tune.split(","))


class PCMCI(Head):
    """Frozen embeddings of a batch of videos to one logit a label.

    text: [N, D] frozen embeddings of the label prompts. video_width: Dv, of the video encoder's
    tokens.
    Raises UsageError where `relations` or `decoder_heads` do not divide D, and for a part to tune
    that has no weights.
    """

    def __init__(self, config: ModelConfig, text: Tensor, video_width: int) -> None:
        super().__init__(text)
        n_labels, width = text.shape
        self.config = config
        norm = nn.LayerNorm if config.norm else (lambda _: nn.Identity())
        self.text_in = norm(width)
        self.video_in = nn.Sequential(nn.Linear(video_width, width), norm(width))
        self.frames_in = None
        if self.uses_frames:
            self.frames_in = nn.Sequential(vlm_in(width), norm(width))
        self.positions = Positions(config.positions, width)
        self.stages = nn.ModuleDict(
            {name: STAGE_MAKERS[name](width, n_labels, config) for name in config.order}
        )
        self.decoder = Decoder(width, n_labels, config)
        self.mediator = None
        if config.front_door == "cross" and "ivc" in config.order:
            self.mediator = Mediator(width, n_labels)
            self.voices = (MEDIATOR,)
            self.keeps = config.front_door_videos
            if self.keeps:
                self.register_buffer("bank", torch.zeros(0))
        keep_at_start(self, config)

    @property
    def uses_frames(self) -> bool:
        """Whether anything looks at the VLM's frames: ich, or a decoder that attends to both."""
        order = self.config.order
        return "ich" in order or (self.config.tokens == "both" and "ivc" not in order)

    @property
    def wants_weights(self) -> bool:
        """Whether `forward` uses S~ of the frozen embeddings (it is computed if not given)."""
        return self.config.frozen_transport is not None

    @property
    def learns_alignment(self) -> bool:
        """Whether S~ is of a text that a stage before ich has rewritten."""
        return "ich" in self.config.order and not self.wants_weights

    @property
    def changes_frames(self) -> bool:
        """Whether what the stages see of a frame is not the frame alone."""
        config = self.config
        return config.positions != "none" or config.centre > 0 or config.swap > 0

    def opinions(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws | None
    ) -> Tensor:
        """Logits [B, N]; with a mediator [B, 2, N], the answer's and what that says by itself."""
        begun, alone = self.begin(vlm, video, weights, draws)
        streams = begun
        for stage in self.stages.values():
            streams = stage(streams)
        tokens = self.attended(streams, begun)
        logits: Tensor = self.decoder(streams.text, tokens, (draws or {}).get("dropout"))
        return logits if self.mediator is None else torch.stack([logits, alone], dim=1)

    def begin(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None = None, draws: Draws | None = None
    ) -> tuple[Streams, Tensor]:
        """What the first stage is given, and what the mediator says by itself [B, N] (empty where
        there is none). The arguments are those of `forward`."""
        if self.wants_weights and weights is None:
            weights, _ = alignment(self.text[None], vlm, self.config.transport, exact=True)
        seen_vlm, seen_video = swap(vlm, video, draws)
        tokens = self.positions(self.video_in(centred(seen_video, self.config.centre)))
        frames = aligned = None
        if self.frames_in is not None:
            frames = self.positions(self.frames_in(centred(seen_vlm, self.config.centre)))
            if self.learns_alignment and self.changes_frames:
                aligned = self.frames_in(vlm)
        mediator, alone = None, tokens.new_empty(0)
        if self.mediator is not None:
            mediator, alone = self.mediator(tokens, one_label=self.labels == "activity")
        streams = Streams(
            text=self.text_in(self.text)[None],
            video=tokens,
            frames=frames,
            weights=weights,
            aligned=aligned,
            mediator=mediator,
            others=self._others(tokens, draws),
            precedence=self._precedence(vlm),
        )
        return streams, alone

    def attended(self, streams: Streams, begun: Streams) -> Tensor:
        """The tokens [B, M, D] that the decoder attends to after some or all of the stages.
        begun: what the first of them was given."""
        if self.config.tokens != "both":
            return streams.video
        other = begun.video if "ivc" in self.config.order else streams.frames
        assert other is not None  # `uses_frames` says so
        return torch.cat([streams.video, other], dim=1)

    def loss(self, opinions: Tensor, target: Tensor) -> Tensor:
        """With a mediator, the sum of the answer's and of its own."""
        if self.mediator is None:
            return loss_function(opinions, target)
        logits, alone = opinions.unbind(1)
        return loss_function(logits, target) + loss_function(alone, target)

    def answer(self, opinions: Tensor) -> Tensor:
        return opinions if self.mediator is None else opinions[:, 0]

    def said(self, opinions: Tensor) -> Tensor:
        """What the mediator says by itself: its fidelity is how good that is."""
        return opinions[:, 1:]

    def _others(self, tokens: Tensor, draws: Draws | None) -> Others | None:
        """The videos that V' is of: those drawn from the batch in training, else those kept.
        tokens: [B, Lv, D] of the batch."""
        if not self.keeps:
            return None
        if draws:
            return Others(tokens, draws["others"])
        kept = self.positions(self.video_in(centred(self.bank, self.config.centre)))
        which = torch.arange(len(kept), device=kept.device)
        return Others(kept, which.expand(len(tokens), -1))

    def _precedence(self, vlm: Tensor) -> Tensor | None:
        if not (self.config.order_bias and "ici" in self.config.order):
            return None
        return frozen_precedence(self.text, vlm, self.config.transport.temperature)

    def keep(self, vlm: Tensor, video: Tensor) -> None:
        self.bank = video.clone()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        kept = state_dict.get(f"{prefix}bank")
        if self.keeps and kept is not None and kept.shape != self.bank.shape:
            self.bank = torch.empty_like(kept, device=self.bank.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        drawn = self.decoder.draw(batch, generator)
        drawn |= draw_swap(batch, self.config.swap, generator)
        if self.keeps:
            drawn["others"] = draw_others(batch, self.keeps, generator)
        return drawn

    def facts(self) -> dict[str, Any]:
        """Where transport is learned, the worst marginal error of any plan in training."""
        ich = dict(self.stages.items()).get("ich")
        if isinstance(ich, ICH) and not ich.frozen:
            return {MARGINAL_ERROR: float(ich.marginal_error)}
        return {}
