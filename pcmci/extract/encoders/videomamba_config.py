"""The sizes of a VideoMamba: the authors' three models, and any other from a JSON config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pcmci.errors import WeightsError
from pcmci.extract.encoders.config_file import find_config, read_sizes

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
    return find_config(name, CONFIGS, read_config)


def read_config(path: Path) -> VideoMambaConfig:
    """A JSON config; keys that are no matter of the encoder may be there.

    Raises WeightsError for a size that is missing or impossible, or another kind of Mamba.
    """
    config = read_sizes(path, VideoMambaConfig, SUPPORTED)
    if config.image_size % config.patch_size:
        raise WeightsError(f"config {path}: patch_size must divide image_size")
    return config
