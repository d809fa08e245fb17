"""What the stages hand to each other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Streams:
    """The text and the video as they stand, and the frozen view of the VLM.

    text: [B or 1, N, D] label embeddings; 1 as long as no stage has looked at the video.
    video: [B, M, D] tokens: M = Lv before ivc, M = N after it.
    frames: [B, L, D] the VLM's frames, projected and normalised; None where nothing looks.
    weights: [B, N, L] S~ of the frozen embeddings, or None where no stage wants it.
    """

    text: Tensor
    video: Tensor
    frames: Tensor | None
    weights: Tensor | None
