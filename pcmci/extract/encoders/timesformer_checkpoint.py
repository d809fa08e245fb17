"""TimeSformer's weights: the authors' and Hugging Face's checkpoints.

A state is a checkpoint's tensors under the authors' names, as their module has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from pcmci.extract.config import SHIPPED
from pcmci.extract.encoders.hub import find_checkpoint, require_same
from pcmci.extract.encoders.timesformer_config import TimeSformerConfig, read_config
from pcmci.extract.encoders.weights import SHIPPED_FOLDER, read_tensors

State = dict[str, torch.Tensor]

EXAMPLE = "facebook/timesformer-base-finetuned-k400"

IGNORED = ("head.weight", "head.bias", "classifier.weight", "classifier.bias")
"""The Kinetics classifier, as the authors and as Hugging Face call it: no feature needs it."""

FOLDED, INTO = "temporal_fc", "temporal_attn.proj"
"""A checkpoint's linear layer that `fold` multiplies into the one before it."""

HF_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.time_embeddings": "time_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
HF_BLOCK_NAMES = {
    "temporal_layernorm": "temporal_norm1",
    "temporal_attention.attention.qkv": "temporal_attn.qkv",
    "temporal_attention.output.dense": "temporal_attn.proj",
    "temporal_dense": "temporal_fc",
    "layernorm_before": "norm1",
    "attention.attention.qkv": "attn.qkv",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
"""Hugging Face's names to the authors', of the whole and of a block."""


def read_state(weights: str, name: str, config: TimeSformerConfig) -> State:
    """The state that a file, a folder or a hub id holds, without the classifier.

    Raises WeightsError where there is none, or its config is not the named model's.
    """
    own = SHIPPED_FOLDER / "timesformer.safetensors" if name == SHIPPED else None
    found = find_checkpoint(weights, name, example=EXAMPLE, own=own)
    if found.config is not None:
        require_same(read_config(found.config), config, weights, name)
    named = {_authors_name(key): tensor for key, tensor in read_tensors(found.file).items()}
    return {key: tensor for key, tensor in named.items() if key not in IGNORED}


def unfolded(module: Mapping[str, torch.Tensor]) -> State:
    """The names and shapes of a state whose `fold` is the module's state dict."""
    layers = {
        key.replace(INTO, FOLDED): tensor for key, tensor in module.items() if f".{INTO}." in key
    }
    return {**module, **layers}


@torch.no_grad()
def fold(state: State) -> State:
    """Multiplies each block's `temporal_fc` into the projection before it, in float64.

    Nothing stands between the two, so that fc(proj(x)) is one linear layer of weight Wf Wp and
    bias Wf bp + bf: one multiplication in 17 saved.
    """
    folded = {key: tensor for key, tensor in state.items() if FOLDED not in key}
    for key in state.keys() - folded.keys():
        if not key.endswith(".weight"):
            continue
        fc_weight, fc_bias = state[key].double(), state[key.replace(".weight", ".bias")].double()
        weight = key.replace(FOLDED, INTO)
        bias = weight.replace(".weight", ".bias")
        folded[weight] = (fc_weight @ state[weight].double()).float()
        folded[bias] = (fc_weight @ state[bias].double() + fc_bias).float()
    return folded


def _authors_name(key: str) -> str:
    """A parameter's name in the authors' layout; a name of neither layout stays as it is."""
    key = key.removeprefix("model.").removeprefix("timesformer.")
    if key in HF_NAMES:
        return HF_NAMES[key]
    stem, _, kind = key.rpartition(".")
    if stem in HF_NAMES:
        return f"{HF_NAMES[stem]}.{kind}"
    block = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", stem)
    if block and block[2] in HF_BLOCK_NAMES:
        return f"blocks.{block[1]}.{HF_BLOCK_NAMES[block[2]]}.{kind}"
    return key
