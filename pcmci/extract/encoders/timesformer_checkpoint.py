"""TimeSformer's weights: the authors' and Hugging Face's checkpoints, and random ones.

A state is a checkpoint's tensors under the authors' names, as their module has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch

from pcmci.errors import WeightsError
from pcmci.extract.config import OWN, SHIPPED
from pcmci.extract.encoders.timesformer_config import TimeSformerConfig, read_config
from pcmci.extract.encoders.weights import SHIPPED_FOLDER, SUFFIXES, downloading, read_tensors

State = dict[str, torch.Tensor]

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
    path = _shipped(name) if weights == OWN else Path(weights)
    if path.is_dir():
        file, described_by = _in_folder(path)
    elif path.exists() or path.suffix in SUFFIXES:
        file, described_by = path, None
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", weights):
        file, described_by = _on_hub(weights)
    else:
        raise WeightsError(
            f"weights {weights!r} of {name} are neither a checkpoint ({', '.join(SUFFIXES)}), a "
            "Hugging Face folder or hub id (facebook/timesformer-base-finetuned-k400), nor random:0"
        )
    if described_by is not None:
        _require_same(read_config(described_by), config, weights, name)
    named = {_authors_name(key): tensor for key, tensor in read_tensors(file).items()}
    return {key: tensor for key, tensor in named.items() if key not in IGNORED}


def _shipped(name: str) -> Path:
    """The weights that come with the package. Raises WeightsError for a model that has none."""
    if name != SHIPPED:
        raise WeightsError(
            f"{name} brings no weights of its own, only {SHIPPED} does: use a checkpoint, a "
            "Hugging Face folder or hub id, or random:0"
        )
    return SHIPPED_FOLDER / "timesformer.safetensors"


def random_state(expected: Mapping[str, torch.Tensor], seed: int) -> State:
    """A state of the expected shapes from a generator of its own.

    Matrices are uniform with variance 1 / fan-in, so that activations keep their size at any width;
    embeddings have standard deviation 0.02; norms are 1, biases 0.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(key: str, shape: torch.Size) -> torch.Tensor:
        if key.endswith(".bias"):
            return torch.zeros(shape)
        if len(shape) == 1:
            return torch.ones(shape)
        std = 0.02 if key.endswith(("_embed", "_token")) else shape[1:].numel() ** -0.5
        return torch.empty(shape).uniform_(-(3**0.5) * std, 3**0.5 * std, generator=generator)

    return {key: drawn(key, expected[key].shape) for key in sorted(expected)}


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


def _in_folder(folder: Path) -> tuple[Path, Path]:
    config = folder / "config.json"
    for file in (folder / "model.safetensors", folder / "pytorch_model.bin"):
        if file.is_file() and config.is_file():
            return file, config
    raise WeightsError(
        f"folder {folder} needs config.json and model.safetensors or pytorch_model.bin"
    )


def _on_hub(repository: str) -> tuple[Path, Path]:
    """Weights and config of a hub id, from the local cache where they are there."""
    from huggingface_hub import hf_hub_download  # only here: it takes a moment to import
    from huggingface_hub.utils import EntryNotFoundError

    instead = "give a folder with its config.json and model.safetensors, or random:0"
    with downloading(f"weights {repository!r}", instead):
        config = hf_hub_download(repository, "config.json")
        try:
            file = hf_hub_download(repository, "model.safetensors")
        except EntryNotFoundError:
            file = hf_hub_download(repository, "pytorch_model.bin")
    return Path(file), Path(config)


def _require_same(
    found: TimeSformerConfig, needed: TimeSformerConfig, weights: str, name: str
) -> None:
    for field in fields(TimeSformerConfig):
        has, needs = getattr(found, field.name), getattr(needed, field.name)
        if has != needs:
            raise WeightsError(f"{weights} has {field.name} {has}, {name} needs {needs}")
