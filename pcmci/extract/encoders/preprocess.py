"""From an upright RGB frame to one of an encoder's size; torch-free, for processes that decode."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pcmci.cache.schema import Preprocessing

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def resize_and_crop(frame: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """[H, W, 3] uint8 to its middle, or all of it squashed, [size, size, 3] uint8; antialiased.

    The same roundings as torchvision's `Resize` and `CenterCrop` on a PIL image, so that the
    pixels are those that open_clip's own transform sees. Safe in many threads.
    """
    resampling = RESAMPLING[preprocessing.interpolation]
    if preprocessing.resize_mode == "squash":
        both = (preprocessing.size, preprocessing.size)
        return np.array(Image.fromarray(frame).resize(both, resampling))
    height, width = frame.shape[:2]
    short, size = min(height, width), preprocessing.size
    resized = (
        int(preprocessing.resize * width / short),
        int(preprocessing.resize * height / short),
    )
    image = Image.fromarray(frame).resize(resized, resampling)
    left, top = (round((length - size) / 2) for length in resized)
    return np.array(image.crop((left, top, left + size, top + size)))
