"""The frozen encoders of phase one, by name. Importing this loads no model library."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcmci.extract.encoders.clip import ClipEncoder
    from pcmci.extract.encoders.timesformer import TimeSformerEncoder


def load_vlm(
    name: str,
    weights: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    frames: int = 16,
) -> ClipEncoder:
    """The vision-language model: frame embeddings, and text embeddings of the label prompts.

    name: an open_clip model (`ViT-B-16-quickgelu`), `hf-hub:ORG/REPO`, `local-dir:FOLDER`, the
        path of an open_clip JSON config, or `kitchen`, which comes with the package.
    weights: a pretrained tag (`openai`), a local checkpoint, `random:SEED`, or `own` for what
        `kitchen`, `hf-hub:` and `local-dir:` models bring along.
    frames: L, frames a view.

    Raises WeightsError for a name, a tag or a checkpoint that cannot be used, UsageError for a
    device or precision that is not there.
    """
    from pcmci.extract.encoders.clip import load

    return load(name, weights, device=device, precision=precision, frames=frames)


def load_video_encoder(
    name: str,
    weights: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    frames: int = 16,
) -> TimeSformerEncoder:
    """The video encoder that never saw the VLM: one vector a frame, each aware of its clip.

    name: `timesformer-base`, `-hr`, `-long` or `-tiny`, the path of a JSON config in the layout of
        Hugging Face's `config.json`, or `kitchen`, which comes with the package.
    weights: a checkpoint of the authors (`.pyth`), a Hugging Face folder or hub id
        (`facebook/timesformer-base-finetuned-k400`), a `.safetensors` file, `random:SEED`, or
        `own` for what `kitchen` brings along.
    frames: L, frames a view: a multiple of the model's native length.

    Raises WeightsError for a name or a checkpoint that cannot be used, UsageError for a number of
    frames, a device or a precision that does not fit.
    """
    family = VIDEO_FAMILIES.get(name.split("-")[0], VIDEO_FAMILIES["timesformer"])
    load = import_module(family).load
    encoder: TimeSformerEncoder = load(
        name, weights, device=device, precision=precision, frames=frames
    )
    return encoder


VIDEO_FAMILIES = {
    "timesformer": "pcmci.extract.encoders.timesformer",
    "kitchen": "pcmci.extract.encoders.timesformer",
}
"""The module that loads a video encoder, by the first word of its name; a config's path is a
TimeSformer's. A new encoder is one file and one line here."""


ENCODERS: dict[str, Callable[..., Any]] = {
    "vlm": load_vlm,
    "video": load_video_encoder,
}
"""How to load each of the two features' encoders."""
