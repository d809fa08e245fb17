"""Any image model of timm as the video encoder: each frame by itself, one vector a frame.

The paper's table calls it ViT. DINOv2 and DINOv3 come the same way.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import timm
import torch
from torch import nn

from pcmci.cache.schema import EncoderSpec
from pcmci.device import autocast, choose_device, choose_precision
from pcmci.errors import WeightsError
from pcmci.extract.config import AUTO, OWN
from pcmci.extract.encoders.frozen import FrozenEncoder, spec_of
from pcmci.extract.encoders.hub import find_checkpoint
from pcmci.extract.encoders.protocol import require_multiple
from pcmci.extract.encoders.timm_source import TimmSource, timm_source
from pcmci.extract.encoders.weights import (
    random_seed,
    read_tensors,
    require_match,
)

State = dict[str, torch.Tensor]

RESAMPLED = ("pos_embed",)
"""What timm stretches to another number of patches."""


class VitEncoder(FrozenEncoder):
    """A frozen image model as the pipeline wants it, see `pcmci.extract.encoders.protocol`.

    Its token of a frame is what the model's own classifier would read: the class token, the mean,
    or what its attention pools, whichever the weights were trained with. Register tokens are in
    none of them.
    """

    def __init__(
        self, model: nn.Module, spec: EncoderSpec, device: torch.device, precision: str
    ) -> None:
        super().__init__(model, spec, device, precision)
        if device.type == "cuda":
            self._model.to(memory_format=torch.channels_last)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, 1, S, S, 3] uint8 on the model's device to [B, 1, W] float32."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            return self._model(self._normalise(clips)).float()[:, None]


def load(name: str, weights: str, *, device: str, precision: str, frames: int | None) -> VitEncoder:
    """See `pcmci.extract.encoders.load_video_encoder`."""
    source = timm_source(name)
    frames = require_multiple(frames, 1, name)
    if weights in (AUTO, OWN):
        if not source.own:
            raise WeightsError(f"{name} brings no weights: give a checkpoint, or random:0")
        weights = source.own
    place = choose_device(device)
    computed_in = choose_precision(precision, place)
    seed = random_seed(weights)
    preprocessing = source.preprocessing()
    model = _build(source, source.size, seed or 0)
    if seed is None:
        model.load_state_dict(_read_state(source, weights, model))
    spec = spec_of(
        source.name,
        weights,
        model.state_dict(),
        tokens=frames,
        width=model.head_hidden_size,
        preprocessing=preprocessing,
        parameters=model.parameters(),
    )
    return VitEncoder(model, spec, place, computed_in)


def _build(source: TimmSource, size: int | None, seed: int) -> Any:
    """The module with random weights, as timm draws them; the global generator is untouched.

    size: S, None for the native one. Raises WeightsError for what timm cannot build.
    """
    args = {**source.args, "num_classes": 0}
    # Models that take any size by themselves have no such argument.
    if size and source.pretrained.get("fixed_input_size"):
        args["img_size"] = size
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)
        try:
            model = timm.create_model(source.architecture, **args)
        except Exception as error:  # whatever a config can get wrong
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise WeightsError(f"{source.name} cannot be built: {reason[0]}") from error
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", 1)  # a number, or two
    patch = patch if isinstance(patch, int) else max(patch)
    if size and size % patch:
        raise WeightsError(
            f"{source.name}: {size} pixels are no multiple of its patches of {patch}"
        )
    return model


def _read_state(source: TimmSource, weights: str, model: Any) -> State:
    """A checkpoint's state for the model, without the classifier.

    It has to have every name and shape of the model at its native size; positions are stretched to
    another size only where the name asks for one. Raises WeightsError.
    """
    found = find_checkpoint(weights, source.name, example="timm/vit_base_patch16_224.dino")
    if found.config is not None:
        source.require_same(found.config, weights)
    heads = source.pretrained.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    state = {
        key: tensor
        for key, tensor in read_tensors(found.file).items()
        if not any(key.startswith(f"{head}.") for head in heads)
    }
    native = _build(source, None, 0) if source.size else model
    renamed = _renamed(state, native)
    # timm would stretch weights of other sizes without a word.
    stretched = {
        key: state[key]
        for key, tensor in renamed.items()
        if key in state and state[key].numel() != tensor.numel()
    }
    require_match({**renamed, **stretched}, native.state_dict(), weights, source.name)
    return _renamed(state, model) if source.size else renamed


def _renamed(state: State, model: Any) -> State:
    """Older layouts in timm's names, as timm itself renames them; what it cannot is left."""
    rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if rename is None:
        return state
    try:
        return dict(rename(dict(state), model))
    except Exception:  # it takes for granted what a foreign file lacks: the misfits are told later
        return state
