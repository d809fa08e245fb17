"""From an upright RGB frame to one of an encoder's size; torch-free, for processes that decode."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pcmci.cache.schema import Preprocessing

RESIZE_MODES = ("shortest", "squash")
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def resize_and_crop(frame: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """[H, W, 3] uint8 to the middle [size, size, 3] uint8 of what it is resized to, antialiased.

    The same roundings as torchvision's `Resize` and `CenterCrop` on a PIL image, so that the
    pixels are those that open_clip's own transform sees. Safe in many threads.
    """
    height, width = frame.shape[:2]
    resize, size = preprocessing.resize, preprocessing.size
    if preprocessing.resize_mode == "squash":
        resized = (resize, resize)
    else:
        short = min(height, width)
        resized = (int(resize * width / short), int(resize * height / short))
    image = Image.fromarray(frame).resize(resized, RESAMPLING[preprocessing.interpolation])
    left, top = (round((length - size) / 2) for length in resized)
    return np.array(image.crop((left, top, left + size, top + size)))
