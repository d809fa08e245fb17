"""VideoMamba's weights: the authors' checkpoints of images and of videos.

A state is a checkpoint's tensors under the authors' names, its patch embedding that of one frame.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from pcmci.errors import WeightsError
from pcmci.extract.encoders.hub import find_checkpoint, require_same
from pcmci.extract.encoders.random_state import Draw
from pcmci.extract.encoders.videomamba_config import VideoMambaConfig, read_config
from pcmci.extract.encoders.weights import read_tensors

State = dict[str, torch.Tensor]

EXAMPLE = "hf-hub:OpenGVLab/VideoMamba/videomamba_m16_k400_f16_res224.pth"

PREFIXES = ("backbone.", "encoder.")
"""What the authors' own loader strips from names."""

IGNORED = ("head.weight", "head.bias")
"""The classifier: no feature needs it."""

PATCHES, POSITIONS, TIMES = "patch_embed.proj.weight", "pos_embed", "temporal_pos_embedding"

DECODER = "clip_decoder."
"""What only files of masked pretraining have: the layer that predicts CLIP's features."""


def read_state(weights: str, name: str, config: VideoMambaConfig) -> State:
    """The state that a file, a folder or a hub id holds, without the classifier.

    An image model, which has no table of times, is a video model for clips of one frame.
    Raises WeightsError where there is none, or it is of another kind.
    """
    found = find_checkpoint(weights, name, example=EXAMPLE)
    if found.config is not None:
        require_same(read_config(found.config), config, weights, name)
    state = {_without_prefix(key): tensor for key, tensor in read_tensors(found.file).items()}
    state = {key: tensor for key, tensor in state.items() if key not in IGNORED}
    if any(key.startswith(DECODER) for key in state):
        raise WeightsError(
            f"{weights} is a file of masked pretraining (its {DECODER}* predict CLIP's features), "
            f"which {name} is not: use one that was trained on from it, as mask_ft files are"
        )
    patches = state.get(PATCHES)
    if patches is not None and patches.ndim == 5 and patches.shape[2] == 1:
        state[PATCHES] = patches.squeeze(2)  # a convolution over one frame at a time
    if patches is not None and patches.ndim == 4 and TIMES not in state:
        state[TIMES] = torch.zeros(1, 1, patches.shape[0])
    return state


def sizes_of(state: State, config: VideoMambaConfig) -> VideoMambaConfig:
    """The config with the S and T of a checkpoint's tables: the authors' file names can be wrong
    (`breakfast_mask_ft_f64` holds a table of 32). What is no such table changes nothing."""
    positions, times = state.get(POSITIONS), state.get(TIMES)
    if positions is not None and positions.ndim == 3:
        side = math.isqrt(max(positions.shape[1] - 1, 0))
        if side and side**2 + 1 == positions.shape[1]:
            config = dataclasses.replace(config, image_size=side * config.patch_size)
    if times is not None and times.ndim == 3 and times.shape[1]:
        config = dataclasses.replace(config, num_frames=times.shape[1])
    return config


def _without_prefix(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _decay_rates(shape: torch.Size, _: torch.Generator) -> torch.Tensor:
    """log 1, log 2, ... in every row, as Mamba starts."""
    return torch.arange(1, shape[-1] + 1, dtype=torch.float32).log().repeat(shape[0], 1)


def _step_sizes(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """What softplus makes a step of 0.001 to 0.1 of, its logarithm uniform."""
    exponent = torch.empty(shape).uniform_(-3, -1, generator=generator)
    return torch.expm1(10**exponent).log()


RANDOM: dict[str, Draw] = {
    "A_log": _decay_rates,
    "A_b_log": _decay_rates,
    "dt_proj.bias": _step_sizes,
    "dt_proj_b.bias": _step_sizes,
}
"""How to draw a parameter by the end of its name, see `random_state`; D is 1, as all vectors."""
