"""The sizes of a TimeSformer: the authors' three models, and any other from a JSON config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pcmci.errors import WeightsError
from pcmci.extract.config import SHIPPED
from pcmci.extract.encoders.config_file import find_config, read_sizes
from pcmci.extract.encoders.weights import SHIPPED_FOLDER


@dataclass(frozen=True)
class TimeSformerConfig:
    """The architecture, in the words of Hugging Face's `config.json`.

    image_size: S, pixels. num_frames: T, the native length. hidden_size: W.
    """

    image_size: int
    num_frames: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    patch_size: int = 16
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True

    @property
    def patches(self) -> int:
        """P, patches a frame."""
        return (self.image_size // self.patch_size) ** 2


CONFIGS = {
    "timesformer-base": TimeSformerConfig(224, 8, 768, 12, 12, 3072),
    "timesformer-hr": TimeSformerConfig(448, 16, 768, 12, 12, 3072),
    "timesformer-long": TimeSformerConfig(224, 96, 768, 12, 12, 3072),
    "timesformer-tiny": TimeSformerConfig(32, 8, 64, 2, 2, 128),
}
"""The authors' models, and one for trials that has only random weights."""

SUPPORTED = {"attention_type": "divided_space_time", "hidden_act": "gelu", "num_channels": 3}
"""What a config may say besides sizes, and with which value."""


def named_config(name: str) -> TimeSformerConfig:
    """Raises WeightsError for a name that is neither known nor the path of a config."""
    if name == SHIPPED:
        return read_config(SHIPPED_FOLDER / "timesformer.json")
    return find_config(name, CONFIGS, read_config, SHIPPED)


def read_config(path: Path) -> TimeSformerConfig:
    """A JSON config in Hugging Face's layout; keys that are no matter of the encoder may be there.

    Raises WeightsError for a size that is missing or impossible, or another kind of attention.
    """
    config = read_sizes(path, TimeSformerConfig, SUPPORTED)
    if config.image_size % config.patch_size or config.hidden_size % config.num_attention_heads:
        raise WeightsError(
            f"config {path}: patch_size must divide image_size, num_attention_heads hidden_size"
        )
    return config
