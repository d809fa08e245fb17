"""Dense windows: a clip of the length and pace that a model was trained on, around each frame.

A video of minutes whose sixteen frames lie seconds apart shows no motion; a model that was trained
on clips of two seconds then sees what it never saw. With dense windows it sees such a clip around
each of the frames, and says one vector of it. That costs as many forward passes as there are
frames, and F times the decoding.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from pcmci.cache.windows import DENSE
from pcmci.extract.encoders.protocol import Encoder


class DenseWindows:
    """A video encoder as the pipeline wants it (`pcmci.extract.encoders.protocol`): a clip around
    each of L frames, and the mean of its tokens for one."""

    clip_tokens = 1

    def __init__(self, encoder: Encoder, frames: int, stride: int) -> None:
        self._encoder = encoder
        self.clip_frames, self.libraries = encoder.clip_frames, encoder.libraries
        self.spec = dataclasses.replace(encoder.spec, tokens=frames, windows=DENSE, stride=stride)

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8, upright RGB, to [S, S, 3] uint8."""
        return self._encoder.prepare(frame)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, F, S, S, 3] uint8 on the model's device to [B, 1, width] float32."""
        return self._encoder.encode(clips).mean(1, keepdim=True)
