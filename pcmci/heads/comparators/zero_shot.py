"""The head `zero-shot`: what the VLM says by itself. Nothing is trained."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pcmci.heads.comparators.config import ZeroShotConfig
from pcmci.heads.head import Draws, Head


class ZeroShotHead(Head):
    """Cosines of the label prompts with the frames, as CLIP compares them (Radford et al., ICML
    2021).

    An activity is seen all the time: the mean over frames. A step is seen at some time: the best
    frame. Divided by a temperature the cosines rank as they are; no probability comes from them.
    """

    wants = ("vlm",)

    def __init__(self, config: ZeroShotConfig, text: Tensor, video_width: int) -> None:
        super().__init__(text)
        self.scale = config.scale

    def opinions(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws | None
    ) -> Tensor:
        """The logits [B, N]. See `Head.forward`."""
        cosines = F.normalize(vlm, dim=-1) @ F.normalize(self.text, dim=-1).T
        seen = cosines.mean(1) if self.labels == "activity" else cosines.amax(1)
        return seen / self.scale
