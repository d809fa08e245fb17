"""VideoMAE (Tong et al., NeurIPS 2022) and V-JEPA 2 (Assran et al., 2025), frozen.

Both cut a clip into tubelets, patches two frames deep, so that a token stands for two frames.
Shapes: B clips, F frames a clip, T = F / 2 time steps, P patches a step, W the width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pcmci.cache.schema import EncoderSpec, Preprocessing
from pcmci.device import autocast, choose_device, choose_precision
from pcmci.errors import WeightsError
from pcmci.extract.encoders.config_file import read_json
from pcmci.extract.encoders.frozen import FrozenEncoder, spec_of
from pcmci.extract.encoders.hub import find_checkpoint
from pcmci.extract.encoders.names import meant
from pcmci.extract.encoders.protocol import require_multiple
from pcmci.extract.encoders.random_state import random_state
from pcmci.extract.encoders.transformers_model import (
    LIBRARIES,
    State,
    config_of,
    empty,
    fill,
    read_config,
    require_same_values,
    require_whole,
)
from pcmci.extract.encoders.weights import (
    random_seed,
    read_tensors,
    require_match,
)

VIDEOMAE, VJEPA2 = "videomae", "vjepa2"
"""The families, as `model_type` of a config calls them."""

CONFIGS: dict[str, dict[str, Any]] = {
    "videomae-base": {"model_type": VIDEOMAE},
    "vjepa2-large": {"model_type": VJEPA2, "frames_per_clip": 16},
}
"""The published models, in what differs from the library's defaults. V-JEPA 2 was trained on clips
of 64 frames, and of 16 before; its rotary positions take any number."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class VideoMae(nn.Module):
    """The encoder, and the norm of the mean that a fine-tuned model's classifier reads.

    A model that was only trained to fill masks has a norm of its own before the mean instead.
    """

    def __init__(self, config: Any, name: str) -> None:
        super().__init__()
        self.encoder = empty("VideoMAEModel", config, name)
        self.fc_norm: nn.Module | None = None
        if config.use_mean_pooling:
            with torch.device("meta"):
                self.fc_norm = nn.LayerNorm(config.hidden_size)
        self.steps = config.num_frames // config.tubelet_size

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, F, 3, S, S] to [B, T, W]: the mean over the patches of each step."""
        tokens = self.encoder(pixel_values=pixels).last_hidden_state
        means = tokens.unflatten(1, (self.steps, -1)).mean(2)
        return means if self.fc_norm is None else self.fc_norm(means)

    def to_device(self, device: torch.device) -> None:
        """With its table of positions, which is no buffer."""
        self.to(device)
        embeddings = self.encoder.embeddings
        embeddings.position_embeddings = embeddings.position_embeddings.to(device)


class VJepa2(nn.Module):
    """The encoder alone: the predictor, which trained it, reads what the encoder gives."""

    def __init__(self, config: Any, name: str) -> None:
        super().__init__()
        self.encoder = empty("VJEPA2Model", config, name).encoder
        self.steps = config.frames_per_clip // config.tubelet_size

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, F, 3, S, S] to [B, T, W]: the mean over the patches of each step, after the norm."""
        tokens = self.encoder(pixel_values_videos=pixels).last_hidden_state
        return tokens.unflatten(1, (self.steps, -1)).mean(2)

    def to_device(self, device: torch.device) -> None:
        """As `VideoMae`."""
        self.to(device)


@dataclass(frozen=True)
class Family:
    """How a family's configs and checkpoints are read.

    config: the library's class. size, frames: what its configs call S and F.
    model: ours. inside: what it puts before the names of the encoder's tensors.
    compared: besides, in what a checkpoint's own config has to be the model's.
    base: what checkpoints with a classifier put before them. unused: tensors that the encoder has
    not, the classifier's and what trained it.
    example: a hub id. share: the part of the resized shorter side that is kept.
    """

    config: str
    size: str
    frames: str
    model: type[VideoMae] | type[VJepa2]
    inside: str
    compared: tuple[str, ...]
    base: str
    unused: str
    example: str
    share: float


_COMPARED = (
    "patch_size", "tubelet_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "hidden_act",
)  # fmt: skip

FAMILIES = {
    VIDEOMAE: Family(
        config="VideoMAEConfig",
        size="image_size",
        frames="num_frames",
        model=VideoMae,
        inside="encoder.",
        compared=("num_frames", *_COMPARED),  # its positions are counted for so many
        base="videomae.",
        unused=r"classifier\.|decoder\.|encoder_to_decoder\.|mask_token$",
        example="MCG-NJU/videomae-base-finetuned-kinetics",
        share=1.0,
    ),
    VJEPA2: Family(
        config="VJEPA2Config",
        size="crop_size",
        frames="frames_per_clip",
        model=VJepa2,
        inside="",
        compared=_COMPARED,
        base="vjepa2.",
        unused=r"predictor\.|pooler\.|classifier\.",
        example="facebook/vjepa2-vitl-fpc64-256",
        share=224 / 256,
    ),
}


class TubeletEncoder(FrozenEncoder):
    """One of both as the pipeline wants it, see `pcmci.extract.encoders.protocol`."""

    libraries = LIBRARIES

    def __init__(
        self,
        model: VideoMae | VJepa2,
        clip_frames: int,
        spec: EncoderSpec,
        device: torch.device,
        precision: str,
    ) -> None:
        super().__init__(
            model, spec, device, precision, clip_frames=clip_frames, clip_tokens=model.steps
        )
        model.to_device(device)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, F, S, S, 3] uint8 on the model's device to [B, T, W] float32."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            pixels = self._normalise(clips).unflatten(0, (-1, self.clip_frames))
            return self._model(pixels).float()


def load(
    name: str, weights: str, *, device: str, precision: str, frames: int | None
) -> TubeletEncoder:
    """See `pcmci.extract.encoders.load_video_encoder`."""
    raw = _named(name)
    family = FAMILIES[raw["model_type"]]
    config = config_of(family.config, raw, name)
    clip_frames = require_whole(getattr(config, family.frames), family.frames, name)
    size = require_whole(getattr(config, family.size), family.size, name)
    if clip_frames % require_whole(config.tubelet_size, "tubelet_size", name):
        raise WeightsError(f"{name}: {clip_frames} frames are no multiple of its tubelets' depth")
    frames = require_multiple(frames, clip_frames, name)
    place = choose_device(device)
    computed_in = choose_precision(precision, place)
    seed = random_seed(weights)
    state = None
    if seed is None:
        state = _read_state(name, weights, raw["model_type"], config)
        if raw["model_type"] == VIDEOMAE:  # whatever a config says: the file has one of two norms
            config.use_mean_pooling = "layernorm.weight" not in state
    model = family.model(config, name)
    module = model.state_dict()
    places = {_published(key.removeprefix(family.inside)): key for key in module}
    expected = {key: module[place] for key, place in places.items()}
    if state is None:
        state = random_state(expected, seed or 0)
    require_match(state, expected, weights, name)
    state = {key: tensor.float() for key, tensor in state.items()}
    fill(model, {places[key]: tensor for key, tensor in state.items()}, name)
    spec = spec_of(
        name,
        weights,
        state,
        tokens=frames // clip_frames * model.steps,
        width=config.hidden_size,
        preprocessing=Preprocessing(
            int(size / family.share), size, "bilinear", IMAGENET_MEAN, IMAGENET_STD
        ),
    )
    return TubeletEncoder(model, clip_frames, spec, place, computed_in)


def _named(name: str) -> Mapping[str, Any]:
    """The config of a name, or in a file. Raises WeightsError for a name that has none."""
    if name.endswith(".json"):
        return read_json(Path(name))
    if name in CONFIGS:
        return CONFIGS[name]
    raise WeightsError(
        f"no video encoder is called {name!r}{meant(name, CONFIGS)}; of its kind there are "
        f"{', '.join(CONFIGS)}, or the path of a JSON config"
    )


def _read_state(name: str, weights: str, model_type: str, config: Any) -> State:
    """The encoder's tensors of a checkpoint. Raises WeightsError."""
    family = FAMILIES[model_type]
    found = find_checkpoint(weights, name, example=family.example)
    if found.config is not None:
        own = config_of(family.config, read_config(found.config, model_type, name), name)
        require_same_values(own, config, (family.size, *family.compared), weights, name)
    state = {key.removeprefix(family.base): t for key, t in read_tensors(found.file).items()}
    return {
        _published(key): tensor for key, tensor in state.items() if not re.match(family.unused, key)
    }


def _published(key: str) -> str:
    """One name for what VideoMAE's checkpoints and older versions of the library call `q_bias`, and
    newer ones `query.bias`."""
    return key.replace("attention.q_bias", "attention.query.bias").replace(
        "attention.v_bias", "attention.value.bias"
    )
