"""From an upright RGB frame to an encoder's input: resize and crop on the host, the rest there."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from pcmci.cache.schema import Preprocessing

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def resize_and_crop(frame: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """[H, W, 3] uint8 to its middle [size, size, 3] uint8, antialiased.

    The same roundings as torchvision's `Resize` and `CenterCrop` on a PIL image, so that the
    pixels are those that open_clip's own transform sees. Safe in many threads.
    """
    height, width = frame.shape[:2]
    short, size = min(height, width), preprocessing.size
    resized = (
        int(preprocessing.resize * width / short),
        int(preprocessing.resize * height / short),
    )
    image = Image.fromarray(frame).resize(resized, RESAMPLING[preprocessing.interpolation])
    left, top = (round((length - size) / 2) for length in resized)
    return np.array(image.crop((left, top, left + size, top + size)))


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
