"""The sizes of an X3D: the authors' models, and any other from a JSON config."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pcmci.errors import WeightsError
from pcmci.extract.encoders.config_file import find_config, read_sizes

WIDTH_FACTOR, BOTTLENECK_FACTOR, SE_RATIO, EPSILON = 2.0, 2.25, 0.0625, 1e-5
"""The same in all: how much wider than `stem_dim_in` a model begins, than a block's ends its middle
is, the fewer numbers that its squeeze-and-excitation makes of the middle; of batch norms."""


class Stage(NamedTuple):
    """width: of what its blocks give. inner: of their middle. squeezed: in squeeze-and-excitation.
    depth: blocks."""

    width: int
    inner: int
    squeezed: int
    depth: int


@dataclass(frozen=True)
class X3DConfig:
    """The architecture, in the words of pytorchvideo's `create_x3d`.

    short_side: pixels of a frame's shorter side, of whose middle the model sees input_crop_size, S.
    input_clip_length: T, frames a clip.
    """

    short_side: int
    input_crop_size: int
    input_clip_length: int
    depth_factor: float
    stem_dim_in: int = 12
    head_dim_out: int = 2048

    @property
    def stem_width(self) -> int:
        """Channels before the first stage."""
        return round_width(self.stem_dim_in * WIDTH_FACTOR)

    @property
    def stages(self) -> list[Stage]:
        """Each halves height and width and, but for the first, doubles the channels."""
        stages, base = [], self.stem_dim_in
        for index, depth in enumerate((1, 2, 5, 3)):
            base = round_width(2 * base) if index else base
            width = round_width(base * WIDTH_FACTOR)
            inner = int(BOTTLENECK_FACTOR * width)
            squeezed = round_width(inner * SE_RATIO)
            stages.append(Stage(width, inner, squeezed, math.ceil(depth * self.depth_factor)))
        return stages


def round_width(width: float) -> int:
    """The nearest multiple of 8, or the next where that would be less than nine tenths."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


CONFIGS = {
    "x3d-s": X3DConfig(182, 160, 16, 2.2),
    "x3d-m": X3DConfig(256, 224, 16, 2.2),
    "x3d-l": X3DConfig(356, 312, 16, 5.0),
}
"""The authors' models. They tested S on clips of 13 frames, a number that divides no view of ours:
here its clips have 16, as those of M and L, and as its weights, which are none of time's, allow."""

SUPPORTED = {
    "model_type": "x3d",
    "input_channel": 3,
    "width_factor": WIDTH_FACTOR,
    "bottleneck_factor": BOTTLENECK_FACTOR,
    "se_ratio": SE_RATIO,
    "norm_eps": EPSILON,
    "head_bn_lin5_on": False,
}
"""What a config may say besides sizes, and with which value."""


def named_config(name: str) -> X3DConfig:
    """Raises WeightsError for a name that is neither known nor the path of a config."""
    return find_config(name, CONFIGS, read_config)


def read_config(path: Path) -> X3DConfig:
    """A JSON config; keys that are no matter of the encoder may be there.

    Raises WeightsError for a size that is missing or impossible, or another kind of X3D.
    """
    config = read_sizes(path, X3DConfig, SUPPORTED)
    if config.short_side < config.input_crop_size:
        raise WeightsError(
            f"config {path}: short_side is {config.short_side}, at least the "
            f"{config.input_crop_size} of input_crop_size are needed"
        )
    return config
