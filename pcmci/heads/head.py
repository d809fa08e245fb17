"""What is asked of a head, whatever it does inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Draws = Mapping[str, Tensor]
"""The random numbers of a training step, drawn outside the head (`Head.draw`), so that a run is
the same alone and stacked with others. Empty where there are none."""


def loss_function(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy for one label a video (target [B] int), the mean of the binary cross-entropies
    for several (target [B, N] float). logits: [B, N]."""
    if target.dim() == 1:
        return F.cross_entropy(logits, target)
    return F.binary_cross_entropy_with_logits(logits, target)


class Head(nn.Module, ABC):
    """Frozen embeddings of a batch of videos to one logit a label.

    Made as `Head(config, text, video_width)` from its own settings, the embeddings of the label
    prompts [N, D] and Dv. It keeps the text in its state, so that a trained head needs no store.
    Everything around heads (loading, fitting, stacking, scoring, sweeps, prediction) knows of them
    what stands here, and of their settings what `HeadConfig` says. Nothing in a forward pass may
    wait for the device or decide by a tensor's values: it is mapped over many runs
    (`pcmci.heads.training.stack`).
    """

    wants: ClassVar[tuple[str, ...]] = ("vlm", "video")
    """The features that `forward` looks at; of the others it is given an empty tensor."""

    needs_text: ClassVar[bool] = True
    """Whether it makes no sense without the embeddings of the label prompts and the VLM's frames,
    which a store of imported features may lack."""

    reads_entities: ClassVar[bool] = False
    """Whether it is made with `entities` too, the embeddings [M, D] of the nouns of the labels'
    texts, where a store has them (`pcmci.cache.store.Store.entities`)."""

    labels: str = "activity"
    """The label set that it learns, `activity` (one label a video) or `steps` (several); whoever
    builds it says so."""

    voices: tuple[str, ...] = ()
    """Who says something of its own before there is an answer, an expert say: their names, in the
    order in which `said` has them."""

    settles: bool = False
    """Whether something is to be chosen on validation videos before it is asked, see `settle`."""

    keeps: int = 0
    """How many training videos it keeps with it, to look at when it is asked, see `keep`."""

    text: Tensor

    def __init__(self, text: Tensor) -> None:
        super().__init__()
        self.register_buffer("text", text.clone())

    def forward(
        self,
        vlm: Tensor,
        video: Tensor,
        weights: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Logits [B, N].

        vlm: V^P [B, L, D]. video: V [B, Lv, Dv]. weights: S~ [B, N, L] of the frozen embeddings,
        where the settings' `frozen_transport` asks for them. draws: see `draw`.
        """
        return self.answer(self.opinions(vlm, video, weights, draws))

    @abstractmethod
    def opinions(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws | None
    ) -> Tensor:
        """What `loss` looks at: the logits [B, N], or more than those, [B, …]. The arguments are
        those of `forward`, which most heads have nothing to add to."""

    def loss(self, opinions: Tensor, target: Tensor) -> Tensor:
        """A number to make small. opinions: float32. target: see `loss_function`."""
        return loss_function(opinions, target)

    def answer(self, opinions: Tensor) -> Tensor:
        """What `opinions` come to: the logits [B, N]."""
        return opinions

    def said(self, opinions: Tensor) -> Tensor:
        """The logits of each of its voices [B, E, N], of a head that has such."""
        return opinions

    def keep(self, vlm: Tensor, video: Tensor) -> None:
        """Keep `keeps` training videos, before it is trained. vlm, video: as in `forward`."""

    def settle(self, said: Tensor, target: Tensor) -> None:
        """Choose, on validation videos, what `settles` announces. said: [m, E, N] on the CPU.
        target: see `loss_function`."""

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of one training step of `batch` videos, on the generator's device."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What the head found out about itself in training, for its run's metrics.json."""
        return {}

    def trained_parameters(self) -> int:
        """How many numbers training changes."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def keep_mask(
    shape: tuple[int, ...],
    p: float,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Dropout as numbers: 0 with probability p, else 1 / (1 - p)."""
    keep = torch.rand(shape, generator=generator, device=generator.device) >= p
    return keep.to(dtype) / (1 - p)
