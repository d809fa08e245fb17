"""The sizes of a VideoMamba: the authors' three models, and any other from a JSON config."""

from __future__ import annotations

import difflib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from pcmci.errors import WeightsError
from pcmci.extract.encoders.config_file import read_json

STATE, KERNEL, EXPANSION = 16, 4, 2
"""The same in all: numbers of state a channel, tokens a convolution sees, channels / width."""


@dataclass(frozen=True)
class VideoMambaConfig:
    """The architecture, in the words of Hugging Face's `config.json`.

    image_size: S, pixels. num_frames: T, the native length. hidden_size: W.
    """

    image_size: int
    num_frames: int
    hidden_size: int
    num_hidden_layers: int
    patch_size: int = 16
    layer_norm_eps: float = 1e-5

    @property
    def patches(self) -> int:
        """P, patches a frame."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def channels(self) -> int:
        """D, channels of the mixer."""
        return EXPANSION * self.hidden_size

    @property
    def rank(self) -> int:
        """R, from how many numbers the step size of a channel is projected: W / 16, rounded up."""
        return -(-self.hidden_size // 16)


CONFIGS = {
    "videomamba-ti": VideoMambaConfig(224, 16, 192, 24),
    "videomamba-s": VideoMambaConfig(224, 16, 384, 24),
    "videomamba-m": VideoMambaConfig(224, 16, 576, 32),
}
"""The authors' models. They published each for several S and T: those here are of random weights,
and a checkpoint's own take their place."""

SUPPORTED = {
    "model_type": "videomamba",
    "state_size": STATE,
    "conv_kernel": KERNEL,
    "expand": EXPANSION,
    "num_channels": 3,
}
"""What a config may say besides sizes, and with which value."""


def named_config(name: str) -> VideoMambaConfig:
    """Raises WeightsError for a name that is neither known nor the path of a config."""
    if name in CONFIGS:
        return CONFIGS[name]
    if name.endswith(".json"):
        return read_config(Path(name))
    close = difflib.get_close_matches(name, CONFIGS)
    meant = f": did you mean {' or '.join(close)}?" if close else ""
    raise WeightsError(
        f"no video encoder is called {name!r}{meant}; there are {', '.join(CONFIGS)}, or the path "
        "of a JSON config"
    )


def read_config(path: Path) -> VideoMambaConfig:
    """A JSON config; keys that are no matter of the encoder may be there.

    Raises WeightsError for a size that is missing or impossible, or another kind of Mamba.
    """
    raw = read_json(path)
    for key, value in SUPPORTED.items():
        if raw.get(key, value) != value:
            raise WeightsError(f"config {path}: {key} is {raw[key]!r}, only {value!r} is supported")
    values: dict[str, Any] = {}
    for field in fields(VideoMambaConfig):
        value = raw.get(field.name, field.default)
        if value is MISSING:
            raise WeightsError(f"config {path} has no {field.name}")
        if field.type == "int" and (type(value) is not int or value < 1):
            raise WeightsError(f"config {path}: {field.name} is {value!r}, no positive number")
        values[field.name] = value
    config = VideoMambaConfig(**values)
    if config.image_size % config.patch_size:
        raise WeightsError(f"config {path}: patch_size must divide image_size")
    return config
