"""The sizes of a TimeSformer: the authors' three models, and any other from a JSON config."""

from __future__ import annotations

import difflib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from pcmci.errors import WeightsError
from pcmci.extract.config import SHIPPED
from pcmci.extract.encoders.config_file import read_json
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
    if name in CONFIGS:
        return CONFIGS[name]
    if name == SHIPPED:
        return read_config(SHIPPED_FOLDER / "timesformer.json")
    if name.endswith(".json"):
        return read_config(Path(name))
    close = difflib.get_close_matches(name, CONFIGS)
    meant = f": did you mean {' or '.join(close)}?" if close else ""
    raise WeightsError(
        f"no video encoder is called {name!r}{meant}; there are {', '.join([*CONFIGS, SHIPPED])}, "
        "or the path of a JSON config"
    )


def read_config(path: Path) -> TimeSformerConfig:
    """A JSON config in Hugging Face's layout; keys that are no matter of the encoder may be there.

    Raises WeightsError for a size that is missing or impossible, or another kind of attention.
    """
    raw = read_json(path)
    for key, value in SUPPORTED.items():
        if raw.get(key, value) != value:
            raise WeightsError(f"config {path}: {key} is {raw[key]!r}, only {value!r} is supported")
    values: dict[str, Any] = {}
    for field in fields(TimeSformerConfig):
        value = raw.get(field.name, field.default)
        if value is MISSING:
            raise WeightsError(f"config {path} has no {field.name}")
        if field.type == "int" and (type(value) is not int or value < 1):
            raise WeightsError(f"config {path}: {field.name} is {value!r}, no positive number")
        values[field.name] = value
    config = TimeSformerConfig(**values)
    if config.image_size % config.patch_size or config.hidden_size % config.num_attention_heads:
        raise WeightsError(
            f"config {path}: patch_size must divide image_size, num_attention_heads hidden_size"
        )
    return config
