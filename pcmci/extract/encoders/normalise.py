"""From frames of an encoder's size to what it computes with, on its device."""

from __future__ import annotations

import torch
from torch import nn

from pcmci.cache.schema import Preprocessing


class Normalise(nn.Module):
    """[B, F, size, size, 3] uint8 to [B * F, 3, size, size] float32, as (x / 255 - mean) / std.

    The result is channels-last in memory, as the frames came.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, preprocessing: Preprocessing, frames: int) -> None:
        super().__init__()
        self.clip = (frames, preprocessing.size, preprocessing.size, 3)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name), dtype=torch.float32)
            self.register_buffer(name, values.view(3, 1, 1), persistent=False)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Raises ValueError for another shape or type: the pipeline made a mistake."""
        if clips.dtype != torch.uint8 or clips.shape[1:] != self.clip:
            raise ValueError(f"expected uint8 [B, {self.clip}], got {clips.dtype} {clips.shape}")
        pixels = clips.flatten(0, 1).permute(0, 3, 1, 2).float()
        return pixels.div_(255).sub_(self.mean).div_(self.std)
