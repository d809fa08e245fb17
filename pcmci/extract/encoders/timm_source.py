"""What the name of an image model of timm stands for: an architecture, and how its weights want
their images."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm

from pcmci.cache.schema import Preprocessing
from pcmci.errors import WeightsError
from pcmci.extract.encoders.config_file import read_json
from pcmci.extract.encoders.hub import HUB_ID, config_on_hub
from pcmci.extract.encoders.names import meant
from pcmci.extract.encoders.preprocess import RESAMPLING

SHORT = {
    "vit-tiny": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit-small": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit-base": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "vit-large": "vit_large_patch16_224.augreg_in21k_ft_in1k",
    "dinov2-base": "vit_base_patch14_reg4_dinov2.lvd142m",
    "dinov3-base": "vit_base_patch16_dinov3.lvd1689m",
}
"""Short names, and what timm calls them; a tag after the full stop says which weights."""

PREFIX, HUB = "timm:", "hf-hub:"

RESIZE_MODES = {"center": "shortest", "squash": "squash"}
"""timm's words for the ways to resize, and ours."""

NEEDED = ("input_size", "interpolation", "mean", "std", "crop_pct")
"""What weights must say of their images: a wrong mean is seen by nobody."""


@dataclass(frozen=True)
class TimmSource:
    """A model that is not built yet.

    name: as a spec spells it. architecture, args: what builds it. pretrained: timm's config of the
    weights, a dict with at least `NEEDED`. own: the hub id of the weights that the name stands for,
    "" for none. size: S of another than the native one, None for that.
    """

    name: str
    architecture: str
    args: Mapping[str, Any]
    pretrained: Mapping[str, Any]
    own: str = ""
    size: int | None = None

    @property
    def crop_mode(self) -> str:
        """How to resize, in timm's words."""
        return str(self.pretrained.get("crop_mode", "center"))

    def preprocessing(self) -> Preprocessing:
        """As timm's evaluation transform. Raises WeightsError for a way not supported."""
        channels, height, width = self.pretrained["input_size"]
        interpolation = self.pretrained["interpolation"]
        if channels != 3 or height != width:
            raise WeightsError(
                f"{self.name} takes images of {channels} x {height} x {width}: only square ones of "
                "3 channels are supported"
            )
        if self.crop_mode not in RESIZE_MODES or interpolation not in RESAMPLING:
            raise WeightsError(
                f"{self.name} resizes by {self.crop_mode!r}, {interpolation!r}: only "
                f"{' and '.join(RESIZE_MODES)}, {' and '.join(RESAMPLING)} are supported"
            )
        size = self.size or height
        return Preprocessing(
            resize=math.floor(size / self.pretrained["crop_pct"]),
            size=size,
            interpolation=interpolation,
            mean=tuple(self.pretrained["mean"]),
            std=tuple(self.pretrained["std"]),
            resize_mode=RESIZE_MODES[self.crop_mode],
        )

    def require_same(self, config: Path, weights: str) -> None:
        """Raises WeightsError unless what lies beside the weights says the same of them."""
        beside = configured(weights, config)
        pairs = {"architecture": (beside.architecture, self.architecture)}
        pairs |= {key: (beside.pretrained[key], self.pretrained[key]) for key in NEEDED}
        pairs["crop_mode"] = (beside.crop_mode, self.crop_mode)
        for key, (has, needs) in pairs.items():
            if _comparable(has) != _comparable(needs):
                raise WeightsError(f"{weights} has {key} {has}, {self.name} needs {needs}")


def timm_source(name: str) -> TimmSource:
    """Raises WeightsError for a name that stands for nothing."""
    if name.endswith(".json"):
        return configured(name, Path(name))
    model, at, size = name.partition("@")
    if at and not re.fullmatch("[1-9][0-9]{0,4}", size):
        raise WeightsError(f"{name}: {size!r} is no size in pixels, as in {PREFIX}NAME@224")
    pixels = int(size) if size else None
    if model in SHORT:
        return _registered(name, SHORT[model], pixels)
    if not model.startswith(PREFIX):
        raise WeightsError(
            f"no video encoder is called {name!r}{meant(model, SHORT)}; there are "
            f"{', '.join(SHORT)}, {PREFIX}NAME for any image model of timm, "
            f"NAME@SIZE for images of SIZE pixels, {PREFIX}{HUB}ORG/REPO, or the "
            "path of a JSON config"
        )
    model = model.removeprefix(PREFIX)
    if not model.startswith(HUB):
        return _registered(None, model, pixels)
    repository = model.removeprefix(HUB)
    if not re.fullmatch(HUB_ID, repository):
        raise WeightsError(f"{name}: {repository!r} is no hub id, as in timm/vit_base_patch16_224")
    return configured(name, config_on_hub(repository), own=repository, size=pixels)


def configured(name: str, path: Path, own: str = "", size: int | None = None) -> TimmSource:
    """From a config in the layout of timm's repositories on the hub: `architecture`, `model_args`
    and `pretrained_cfg`, or, as older ones have it, all of that in one object."""
    raw = read_json(path)
    architecture = raw.get("architecture")
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise WeightsError(f"config {path}: timm has no architecture {architecture!r}")
    pretrained = raw.get("pretrained_cfg", raw)
    for key in NEEDED:
        if not isinstance(pretrained, dict) or key not in pretrained:
            raise WeightsError(f"config {path} has no {key} in its pretrained_cfg")
    return TimmSource(name, architecture, raw.get("model_args", {}), pretrained, own, size)


def _registered(short: str | None, model: str, size: int | None) -> TimmSource:
    """A model of timm's registry; without a tag its default one, which the name then tells."""
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        raise WeightsError(
            f"timm has no model {architecture!r}{meant(architecture, timm.list_models())}"
        )
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise WeightsError(
            f"timm has no weights {tag!r} of {architecture}; there are {', '.join(tags) or 'none'}"
        )
    found = timm.get_pretrained_cfg(model)
    if found is None:
        raise WeightsError(f"timm does not say how {architecture} wants its images: use another")
    tagged = f"{architecture}.{found.tag}" if found.tag else architecture
    at = f"@{size}" if size else ""
    return TimmSource(
        short or f"{PREFIX}{tagged}{at}", architecture, {}, found.to_dict(), found.hf_hub_id or "",
        size,
    )  # fmt: skip


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
