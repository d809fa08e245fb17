"""X3D's weights: the authors' checkpoints (of SlowFast), and those of pytorchvideo.

A state is a checkpoint's tensors under the authors' names. The two were trained apart, and their
architectures differ: the shortcut of the very first block has a batch norm in SlowFast's alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from pcmci.extract.encoders.hub import find_checkpoint, require_same
from pcmci.extract.encoders.weights import read_tensors, require_match
from pcmci.extract.encoders.x3d_config import EPSILON, X3DConfig, read_config

State = dict[str, torch.Tensor]

EXAMPLE = "ORGANISATION/REPOSITORY"

FIRST_SHORTCUT = "s2.pathway0_res0.branch1"
"""What only SlowFast normalises."""

NORM_PARAMETERS = ("weight", "bias", "running_mean", "running_var")

STATISTICS = ("running_mean", "running_var")
"""What a batch norm has counted: no parameters."""

PYTORCHVIDEO_NAMES = {
    # pytorchvideo calls what comes first `conv_t` and what comes second `conv_xy`, and puts the
    # spatial convolution first.
    "s1.pathway0_stem.conv_xy": "blocks.0.conv.conv_t",
    "s1.pathway0_stem.conv": "blocks.0.conv.conv_xy",
    "s1.pathway0_stem.bn": "blocks.0.norm",
    "head.conv_5": "blocks.5.pool.pre_conv",
    "head.conv_5_bn": "blocks.5.pool.pre_norm",
    "head.lin_5": "blocks.5.pool.post_conv",
    "head.projection": "blocks.5.proj",
}
PYTORCHVIDEO_BLOCK_NAMES = {
    "branch1": "branch1_conv",
    "branch1_bn": "branch1_norm",
    "branch2.a": "branch2.conv_a",
    "branch2.a_bn": "branch2.norm_a",
    "branch2.b": "branch2.conv_b",
    "branch2.b_bn": "branch2.norm_b.0",
    "branch2.se.fc1": "branch2.norm_b.1.block.0",
    "branch2.se.fc2": "branch2.norm_b.1.block.2",
    "branch2.c": "branch2.conv_c",
    "branch2.c_bn": "branch2.norm_c",
}
"""The authors' names in pytorchvideo's words, of the whole and of a block."""


def read_state(
    weights: str, name: str, config: X3DConfig, module: Mapping[str, torch.Tensor]
) -> State:
    """The state that a file, a folder or a hub id holds, without the classifier.

    module: the names and shapes of the model's state dict, for which `fold` makes the state.
    Raises WeightsError where there is none, or it is not the named model's: what does not fit has
    the name that it has in the file.
    """
    found = find_checkpoint(weights, name, example=EXAMPLE)
    if found.config is not None:
        require_same(read_config(found.config), config, weights, name)
    tensors = {
        key: tensor
        for key, tensor in read_tensors(found.file).items()
        if not key.startswith(CLASSIFIER) and not key.endswith(".num_batches_tracked")
    }
    authors = any(key.startswith("s1.") for key in tensors)
    expected = unfolded(module, first_shortcut=authors)
    theirs = {key: key if authors else pytorchvideo_name(key) for key in expected}
    require_match(tensors, {theirs[key]: expected[key] for key in expected}, weights, name)
    return {key: tensors[theirs[key]] for key in expected}


def unfolded(module: Mapping[str, torch.Tensor], *, first_shortcut: bool) -> State:
    """The names and shapes of a state whose `fold` is the module's state dict.

    A convolution has a bias there where a batch norm follows it in the state.
    first_shortcut: whether one follows the shortcut of the first block.
    """
    state: State = {}
    for key, tensor in module.items():
        layer, _, kind = key.rpartition(".")
        if kind == "weight" or ".se." in key:
            state[key] = tensor
        elif layer != FIRST_SHORTCUT or first_shortcut:
            state |= {f"{norm_after(layer)}.{name}": tensor for name in NORM_PARAMETERS}
    return state


@torch.no_grad()
def fold(state: State) -> State:
    """Multiplies each batch norm into the convolution before it, in float64.

    With the statistics frozen it is a scale and a shift a channel, s = weight / sqrt(var + eps):
    of a convolution with weight s W and bias b - s mean.
    """
    folded = {}
    for key, tensor in state.items():
        layer = key.removesuffix(".weight")
        norm = norm_after(layer)
        if f"{norm}.running_var" in state:
            scale, bias, mean, variance = (
                state[f"{norm}.{name}"].double() for name in NORM_PARAMETERS
            )
            scale = scale / torch.sqrt(variance + EPSILON)
            folded[key] = (tensor.double() * scale.view(-1, 1, 1, 1, 1)).float()
            folded[f"{layer}.bias"] = (bias - scale * mean).float()
        elif layer == FIRST_SHORTCUT:
            folded[key], folded[f"{layer}.bias"] = tensor, torch.zeros(len(tensor))
        elif tensor.ndim == 5 or ".se." in key:
            folded[key] = tensor
    return folded


def norm_after(layer: str) -> str:
    """The authors' name of the batch norm that follows a convolution, where one does."""
    return "s1.pathway0_stem.bn" if layer == "s1.pathway0_stem.conv" else f"{layer}_bn"


def pytorchvideo_name(key: str) -> str:
    """What pytorchvideo calls one of the authors' parameters."""
    layer, _, kind = key.rpartition(".")
    block = re.fullmatch(r"s([2-5])\.pathway0_res(\d+)\.(.+)", layer)
    if not block:
        return f"{PYTORCHVIDEO_NAMES[layer]}.{kind}"
    stage, index, part = block.groups()
    return f"blocks.{int(stage) - 1}.res_blocks.{index}.{PYTORCHVIDEO_BLOCK_NAMES[part]}.{kind}"


CLASSIFIER = ("head.projection.", pytorchvideo_name("head.projection."))
"""Of Kinetics, in both layouts: no feature needs it."""
