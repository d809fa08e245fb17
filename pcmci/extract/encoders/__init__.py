"""The frozen encoders of phase one, by name. Importing this loads no model library."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pcmci.cache.windows import UNIFORM
from pcmci.extract.config import AUTO
from pcmci.extract.encoders.cards import default_weights
from pcmci.extract.encoders.families import full_name, video_module, vlm_module

if TYPE_CHECKING:
    from pcmci.extract.encoders.protocol import Encoder, Vlm


def load_vlm(
    name: str,
    weights: str = AUTO,
    *,
    device: str = "auto",
    precision: str = "auto",
    frames: int = 16,
) -> Vlm:
    """The vision-language model: frame embeddings, and text embeddings of the label prompts.

    name: an open_clip model (`ViT-B-16-quickgelu`), `hf-hub:ORG/REPO`, `local-dir:FOLDER`, a BLIP
        (`blip-base`, `blip2`, `blip2-queries`), the path of a JSON config of either, or `kitchen`,
        which comes with the package (`kitchen:h0`: of a pretraining where H is 0, if it was made).
    weights: a pretrained tag (`openai`), a local checkpoint, `random:SEED`, `own` for what
        `kitchen`, `hf-hub:` and `local-dir:` models bring along, or `auto` for what the model's
        card names; of a BLIP also a Hugging Face folder or hub id.
    frames: L, frames a view.

    Raises WeightsError for a name, a tag or a checkpoint that cannot be used, UsageError for a
    device or precision that is not there.
    """
    return _load(vlm_module, "vlm", name, weights, device, precision, frames)


def load_video_encoder(
    name: str,
    weights: str = AUTO,
    *,
    device: str = "auto",
    precision: str = "auto",
    frames: int = 16,
    windows: str = UNIFORM,
) -> Encoder:
    """The video encoder that never saw the VLM: `spec.tokens` vectors a view.

    name: a model of `pcmci encoders` (`timesformer-base`), a family (`timesformer`) for its default
        size, the path of a JSON config, or `kitchen`, which comes with the package.
    weights: a checkpoint of the authors, a Hugging Face folder or hub id
        (`facebook/timesformer-base-finetuned-k400`), one file of a hub id (`hf-hub:ORG/REPO/FILE`),
        a `.safetensors` file, `random:SEED`, `own` for what a model brings along, or `auto` for
        what its card names.
    frames: L, frames a view: a multiple of the model's native length where windows are `uniform`.
    windows: of `pcmci.cache.windows`.

    Raises WeightsError for a name or a checkpoint that cannot be used, UsageError for a number of
    frames, windows, a device or a precision that does not fit.
    """
    if windows == UNIFORM:
        return _load(video_module, "video", name, weights, device, precision, frames)
    from pcmci.extract.encoders.dense import DenseWindows
    from pcmci.extract.encoders.pace import native_stride

    stride = native_stride(full_name(name))
    encoder = _load(video_module, "video", name, weights, device, precision, None)
    return DenseWindows(encoder, frames, stride)


def _load(
    module: Callable[[str], str],
    kind: str,
    name: str,
    weights: str,
    device: str,
    precision: str,
    frames: int | None,
) -> Any:
    name = full_name(name)
    load = import_module(module(name)).load
    weights = default_weights(kind, name, weights)
    return load(name, weights, device=device, precision=precision, frames=frames)


ENCODERS: dict[str, Callable[..., Any]] = {
    "vlm": load_vlm,
    "video": load_video_encoder,
}
"""How to load each of the two features' encoders."""
