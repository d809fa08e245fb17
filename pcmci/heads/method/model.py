"""PCMCI(order=...): the stages in any order, between frozen embeddings and the decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pcmci.errors import UsageError
from pcmci.heads.config import ModelConfig, ich_is_frozen, order_name
from pcmci.heads.head import Draws, Head
from pcmci.heads.method.decoder import Decoder
from pcmci.heads.method.ich import ICH
from pcmci.heads.method.ici import ICI
from pcmci.heads.method.ivc import IVC
from pcmci.heads.method.streams import Streams
from pcmci.heads.method.transport import MARGINAL_ERROR, alignment

StageMaker = Callable[[int, int, ModelConfig], nn.Module]

STAGE_MAKERS: dict[str, StageMaker] = {
    "ich": lambda width, n, config: ICH(width, n, config, frozen=ich_is_frozen(config)),
    "ici": ICI,
    "ivc": IVC,
}


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
            project = nn.Linear(width, width)
            # The VLM gives texts and frames aligned: the projection must not begin by undoing it.
            nn.init.eye_(project.weight)
            nn.init.zeros_(project.bias)
            self.frames_in = nn.Sequential(project, norm(width))
        self.stages = nn.ModuleDict(
            {name: STAGE_MAKERS[name](width, n_labels, config) for name in config.order}
        )
        self.decoder = Decoder(width, n_labels, config)
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

    def forward(
        self,
        vlm: Tensor,
        video: Tensor,
        weights: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Logits [B, N]. See `Head.forward`."""
        if self.wants_weights and weights is None:
            weights, _ = alignment(self.text[None], vlm, self.config.transport, exact=True)
        tokens = self.video_in(video)
        streams = Streams(
            text=self.text_in(self.text)[None],
            video=tokens,
            frames=self.frames_in(vlm) if self.frames_in is not None else None,
            weights=weights,
        )
        for stage in self.stages.values():
            streams = stage(streams)
        attended = streams.video
        if self.config.tokens == "both":
            other = tokens if "ivc" in self.config.order else streams.frames
            assert other is not None  # `uses_frames` says so
            attended = torch.cat([attended, other], dim=1)
        return self.decoder(streams.text, attended, (draws or {}).get("dropout"))

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        mask = self.decoder.draw_dropout(batch, generator)
        return {} if mask is None else {"dropout": mask}

    def facts(self) -> dict[str, Any]:
        """Where transport is learned, the worst marginal error of any plan in training."""
        ich = dict(self.stages.items()).get("ich")
        if isinstance(ich, ICH) and not ich.frozen:
            return {MARGINAL_ERROR: float(ich.marginal_error)}
        return {}
