"""The families of encoders, and which of them a name belongs to; torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pcmci.errors import WeightsError
from pcmci.extract.encoders.config_file import read_json
from pcmci.extract.encoders.names import meant

VLM_FAMILIES = {
    "open_clip": "pcmci.extract.encoders.clip",
    "blip": "pcmci.extract.encoders.blip",
    "blip2": "pcmci.extract.encoders.blip",
    "blip-2": "pcmci.extract.encoders.blip",
}
"""The module that loads a VLM, by the first word of its name or by `model_type` of its config. Any
other name is open_clip's."""

VIDEO_FAMILIES = {
    "timesformer": "pcmci.extract.encoders.timesformer",
    "vit": "pcmci.extract.encoders.vit",
    "dinov2": "pcmci.extract.encoders.vit",
    "dinov3": "pcmci.extract.encoders.vit",
    "timm": "pcmci.extract.encoders.vit",
    "videomamba": "pcmci.extract.encoders.videomamba",
    "x3d": "pcmci.extract.encoders.x3d",
    "videomae": "pcmci.extract.encoders.tubelets",
    "vjepa2": "pcmci.extract.encoders.tubelets",
    "kitchen": "pcmci.extract.encoders.timesformer",
}
"""The module that loads a video encoder, likewise; a config without a `model_type` is a
TimeSformer's. A new encoder is one file, one line here, and a card a model in `cards`."""

DEFAULT_SIZES = {
    "timesformer": "timesformer-base",
    "vit": "vit-base",
    "dinov2": "dinov2-base",
    "dinov3": "dinov3-base",
    "videomamba": "videomamba-m",
    "x3d": "x3d-m",
    "videomae": "videomae-base",
    "vjepa2": "vjepa2-large",
    "clip": "ViT-B-16-quickgelu",
    "siglip": "ViT-B-16-SigLIP",
    "siglip2": "ViT-B-16-SigLIP2",
    "pe-core": "PE-Core-B-16",
    "blip": "blip-base",
}
"""What a family's bare name stands for."""


def full_name(name: str) -> str:
    """`timesformer` -> `timesformer-base`, `dinov2@224` -> `dinov2-base@224`; all other names as
    they are."""
    family, at, size = name.partition("@")
    return f"{DEFAULT_SIZES.get(family, family)}{at}{size}"


def vlm_module(name: str) -> str:
    """Of `VLM_FAMILIES`. Raises WeightsError for a config of an unknown family."""
    if name.endswith(".json"):
        return VLM_FAMILIES[_configured(name, VLM_FAMILIES, "open_clip")]
    return VLM_FAMILIES.get(_first_word(name), VLM_FAMILIES["open_clip"])


def video_module(name: str) -> str:
    """Of `VIDEO_FAMILIES`. Raises what `video_family` does."""
    return VIDEO_FAMILIES[video_family(name)]


def video_family(name: str) -> str:
    """A key of `VIDEO_FAMILIES`. Raises WeightsError for a name or a config of no family."""
    if name.endswith(".json"):
        return _configured(name, VIDEO_FAMILIES, "timesformer")
    family = _first_word(name)
    if family not in VIDEO_FAMILIES:
        raise WeightsError(
            f"no video encoder is called {name!r}{meant(family, VIDEO_FAMILIES)}; the families are "
            f"{', '.join(VIDEO_FAMILIES)}, and pcmci encoders lists their models; or give the path "
            "of a JSON config"
        )
    return family


def _first_word(name: str) -> str:
    return re.split("[-:@]", name, maxsplit=1)[0]


def _configured(path: str, families: Mapping[str, str], otherwise: str) -> str:
    """The family that a config's `model_type` names; timm's own have an `architecture` instead."""
    raw = read_json(Path(path))
    family = raw.get("model_type", "timm" if "architecture" in raw else otherwise)
    if family not in families:
        raise WeightsError(
            f"config {path}: model_type is {family!r}, the families are {', '.join(families)}"
        )
    return str(family)
