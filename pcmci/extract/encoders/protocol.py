"""What the pipeline asks of an encoder."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from pcmci.cache.schema import EncoderSpec


class Encoder(Protocol):
    """A frozen model from frames to vectors.

    spec: what the store records of it; `spec.tokens` vectors of `spec.width` a view.
    clip_frames: F, how many frames one forward pass takes together: 1 for an image model, the
        native length for a video model. A view's L frames are L / F clips, in order.
    """

    spec: EncoderSpec
    clip_frames: int

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8, upright RGB, to [size, size, 3] uint8. Called from many threads."""
        ...

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, F, size, size, 3] uint8 on the model's device to [B, F, width] float32."""
        ...
