"""TimeSformer with divided space-time attention (Bertasius, Wang, Torresani, ICML 2021), frozen.

The parameters carry the names of the authors' checkpoints, so that those load as they are and
Hugging Face's are renamed. Shapes: B clips, T frames a clip, P patches a frame, W the width.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pcmci.cache.schema import EncoderSpec, Preprocessing
from pcmci.device import autocast, choose_device, choose_precision
from pcmci.errors import UsageError, WeightsError
from pcmci.extract.encoders.preprocess import Normalise, resize_and_crop
from pcmci.extract.encoders.weights import (
    SUFFIXES,
    downloading,
    random_seed,
    read_tensors,
    require_match,
    state_dict_sha256,
)


@dataclass(frozen=True)
class TimeSformerConfig:
    """The architecture, in the words of Hugging Face's `config.json`.

    image_size: S, pixels. num_frames: T, the native length. hidden_size: W.
    """

    image_size: int
    num_frames: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    patch_size: int = 16
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True

    @property
    def patches(self) -> int:
        """P, patches a frame."""
        return (self.image_size // self.patch_size) ** 2


CONFIGS = {
    "timesformer-base": TimeSformerConfig(image_size=224, num_frames=8),
    "timesformer-hr": TimeSformerConfig(image_size=448, num_frames=16),
    "timesformer-long": TimeSformerConfig(image_size=224, num_frames=96),
    "timesformer-tiny": TimeSformerConfig(
        image_size=32,
        num_frames=8,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
    ),
}
"""The authors' three models, and one for trials that has only random weights."""

IGNORED = ("head.weight", "head.bias", "classifier.weight", "classifier.bias")
"""The Kinetics classifier, as the authors and as Hugging Face call it: no feature needs it."""

TEMPORAL_FC = "temporal_fc"


class Attention(nn.Module):
    """Multi-head self-attention over the second axis of [N, length, W]."""

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)  # [N, heads, length, W / heads]
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Each patch attends over time, then each frame over its patches and the class token.

    The class token stands in every frame: its copies start equal, and the mean over the frames of
    what spatial attention adds keeps them so. It takes no part in attention over time.
    `temporal_attn.proj` has the checkpoint's `temporal_fc` folded in, see `fold_temporal_fc`.
    """

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.temporal_attn = Attention(config)
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, 1 + P, W], changed in place: for inference only."""
        clips, frames = x.shape[:2]
        patches = x[:, :, 1:].transpose(1, 2)  # [B, P, T, W], a view
        in_time = self.temporal_attn(self.temporal_norm1(patches).flatten(0, 1))
        patches += in_time.unflatten(0, (clips, -1))
        in_space = self.attn(self.norm1(x).flatten(0, 1)).unflatten(0, (clips, frames))
        in_space[:, :, 0] = in_space[:, :, 0].mean(1, keepdim=True)
        x += in_space
        x += self.mlp(self.norm2(x))
        return x


class TimeSformer(nn.Module):
    """Pixels to tokens; the module that the authors' checkpoints fill, without its classifier."""

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.config = config
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + config.patches, width))
        self.time_embed = nn.Parameter(torch.empty(1, config.num_frames, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B * T, 3, S, S] to all tokens after the final norm, [B, T, 1 + P, W].

        Token 0 of each frame is the class token, the same in every frame of a clip.
        """
        patches = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        patches = patches.unflatten(0, (-1, self.config.num_frames))  # [B, T, P, W]
        patches = patches + self.pos_embed[:, None, 1:] + self.time_embed[:, :, None]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(*patches.shape[:2], 1, -1)
        x = torch.cat((first, patches), dim=2)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class TimeSformerEncoder:
    """A frozen TimeSformer as the pipeline wants it, see `pcmci.extract.encoders.protocol`.

    Its tokens are one vector a frame: the mean over the frame's patches after the final norm.
    """

    def __init__(
        self, model: TimeSformer, spec: EncoderSpec, device: torch.device, precision: str
    ) -> None:
        self.spec = spec
        self.clip_frames = model.config.num_frames
        self.device = device
        self.precision = precision
        self._model = _placed(model, device)
        self._normalise = Normalise(spec.preprocessing, self.clip_frames).to(device)

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8, upright RGB, to [S, S, 3] uint8."""
        return resize_and_crop(frame, self.spec.preprocessing)

    def all_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, T, S, S, 3] uint8 to [B, T, 1 + P, W] float32, the class token first."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            return self._model(self._normalise(clips)).float()

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, T, S, S, 3] uint8 on the model's device to [B, T, W] float32."""
        with torch.inference_mode():
            return self.all_tokens(clips)[:, :, 1:].mean(2)


def load(
    name: str, weights: str, *, device: str, precision: str, frames: int
) -> TimeSformerEncoder:
    """See `pcmci.extract.encoders.load_video_encoder`."""
    config = _config(name)
    if frames < 1 or frames % config.num_frames:
        first = max(frames // config.num_frames, 1) * config.num_frames
        raise UsageError(
            f"{name} takes {config.num_frames} frames at a time, so {frames} frames cannot be cut "
            f"into clips: use a multiple, such as {first} or {first + config.num_frames}"
        )
    place = choose_device(device)
    computed_in = choose_precision(precision, place)
    with torch.device("meta"):  # no memory and no random numbers for what is replaced at once
        model = TimeSformer(config)
    seed = random_seed(weights)
    if seed is None:
        state = _read(weights, name, config)
        require_match(state, _unfolded(model), weights, name)
    else:
        state = random_state(model, seed)
    state = {key: tensor.float() for key, tensor in state.items()}
    sha256 = state_dict_sha256(state)
    model.load_state_dict(fold_temporal_fc(state), assign=True)
    spec = EncoderSpec(
        name=name,
        weights=weights,
        sha256=sha256,
        tokens=frames,
        width=config.hidden_size,
        preprocessing=Preprocessing(
            resize=config.image_size,
            size=config.image_size,
            interpolation="bilinear",
            mean=(0.45, 0.45, 0.45),
            std=(0.225, 0.225, 0.225),
        ),
    )
    return TimeSformerEncoder(model, spec, place, computed_in)


@torch.no_grad()
def fold_temporal_fc(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Multiplies each block's `temporal_fc` into the projection before it, in float64.

    Nothing stands between the two linear layers, so that fc(proj(x)) is one layer with the weight
    Wf Wp and the bias Wf bp + bf. It saves a sixteenth of the work.
    """
    folded = {key: tensor for key, tensor in state.items() if TEMPORAL_FC not in key}
    for key in state:
        if not key.endswith(f"{TEMPORAL_FC}.weight"):
            continue
        block = key.removesuffix(f"{TEMPORAL_FC}.weight")
        weight, bias = f"{block}temporal_attn.proj.weight", f"{block}temporal_attn.proj.bias"
        fc = state[key].double()
        folded[weight] = (fc @ state[weight].double()).float()
        folded[bias] = (
            fc @ state[bias].double() + state[f"{block}{TEMPORAL_FC}.bias"].double()
        ).float()
    return folded


def random_state(model: TimeSformer, seed: int) -> dict[str, torch.Tensor]:
    """Weights drawn from a generator of their own, as an unfolded checkpoint.

    Matrices are uniform with variance 1 / fan-in, so that activations keep their size at any width;
    embeddings have standard deviation 0.02; norms and biases are 1 and 0.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(key: str, shape: torch.Size) -> torch.Tensor:
        if key.endswith(".bias"):
            return torch.zeros(shape)
        if len(shape) == 1:
            return torch.ones(shape)
        std = 0.02 if key.endswith(("_embed", "_token")) else shape[1:].numel() ** -0.5
        return torch.empty(shape).uniform_(-(3**0.5) * std, 3**0.5 * std, generator=generator)

    return {key: draw(key, tensor.shape) for key, tensor in sorted(_unfolded(model).items())}


def _unfolded(model: TimeSformer) -> dict[str, torch.Tensor]:
    """The names and shapes of a checkpoint: the module's, and a `temporal_fc` a block."""
    expected = dict(model.state_dict())
    for key, tensor in model.state_dict().items():
        if ".temporal_attn.proj." in key:
            expected[key.replace("temporal_attn.proj", TEMPORAL_FC)] = tensor
    return expected


def _config(name: str) -> TimeSformerConfig:
    if name in CONFIGS:
        return CONFIGS[name]
    if name.endswith(".json"):
        return _read_config(Path(name))
    close = difflib.get_close_matches(name, CONFIGS, cutoff=0.4)
    raise WeightsError(
        f"no video encoder is called {name!r}: "
        + (f"did you mean {' or '.join(close)}? " if close else "")
        + f"There are {', '.join(CONFIGS)}, or the path of a JSON config"
    )


def _read_config(path: Path) -> TimeSformerConfig:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"config {path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise WeightsError(f"config {path} is no JSON object")
    known = {"attention_type": "divided_space_time", "hidden_act": "gelu", "num_channels": 3}
    for key, value in known.items():
        if raw.get(key, value) != value:
            raise WeightsError(f"config {path}: {key} is {raw[key]!r}, only {value!r} is supported")
    values: dict[str, Any] = {}
    for field in fields(TimeSformerConfig):
        # Where every config agrees it may be silent; a size that is missing is a misspelt size.
        if field.name in raw:
            values[field.name] = raw[field.name]
        elif field.name not in ("patch_size", "layer_norm_eps", "qkv_bias"):
            raise WeightsError(f"config {path} has no {field.name}")
    for key, value in values.items():
        if key not in ("layer_norm_eps", "qkv_bias") and (type(value) is not int or value < 1):
            raise WeightsError(f"config {path}: {key} is {value!r}, no positive whole number")
    config = TimeSformerConfig(**values)
    if config.image_size % config.patch_size or config.hidden_size % config.num_attention_heads:
        raise WeightsError(
            f"config {path}: patch_size must divide image_size, num_attention_heads hidden_size"
        )
    return config


def _read(weights: str, name: str, config: TimeSformerConfig) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors under the authors' names, without the classifier's."""
    path = Path(weights)
    if path.is_dir():
        file = next(
            (path / f for f in ("model.safetensors", "pytorch_model.bin") if (path / f).is_file()),
            None,
        )
        if file is None or not (path / "config.json").is_file():
            raise WeightsError(
                f"folder {path} needs config.json and model.safetensors or pytorch_model.bin"
            )
        _require_same(_read_config(path / "config.json"), config, weights, name)
    elif path.exists() or path.suffix in SUFFIXES:
        file = path
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", weights):
        file, config_file = _from_hub(weights)
        _require_same(_read_config(config_file), config, weights, name)
    else:
        raise WeightsError(
            f"weights {weights!r} of {name} are neither a checkpoint ({', '.join(SUFFIXES)}), a "
            "Hugging Face folder or hub id (facebook/timesformer-base-finetuned-k400), nor random:0"
        )
    named = {_authors_name(key): tensor for key, tensor in read_tensors(file).items()}
    return {key: tensor for key, tensor in named.items() if key not in IGNORED}


def _require_same(
    found: TimeSformerConfig, config: TimeSformerConfig, where: str, name: str
) -> None:
    for field in fields(TimeSformerConfig):
        has, needs = getattr(found, field.name), getattr(config, field.name)
        if has != needs:
            raise WeightsError(f"{where} has {field.name} {has}, {name} needs {needs}")


def _from_hub(repository: str) -> tuple[Path, Path]:
    """Weights and config of a hub id, from the local cache where they are."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import EntryNotFoundError
    except ImportError:
        raise WeightsError(
            f"{repository} is on the Hugging Face hub: install pcmci[hub], or give a local folder"
        ) from None
    instead = "give a folder with its config.json and model.safetensors, or random:0"
    with downloading(f"weights {repository!r}", instead):
        config = hf_hub_download(repository, "config.json")
        try:
            file = hf_hub_download(repository, "model.safetensors")
        except EntryNotFoundError:
            file = hf_hub_download(repository, "pytorch_model.bin")
    return Path(file), Path(config)


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
    "temporal_dense": TEMPORAL_FC,
    "layernorm_before": "norm1",
    "attention.attention.qkv": "attn.qkv",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def _authors_name(key: str) -> str:
    """A parameter's name in the authors' layout; a name of neither layout stays as it is."""
    key = key.removeprefix("model.").removeprefix("timesformer.")
    stem, _dot, kind = key.rpartition(".")
    if key in HF_NAMES:
        return HF_NAMES[key]
    if stem in HF_NAMES:
        return f"{HF_NAMES[stem]}.{kind}"
    block = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", stem)
    if block and block[2] in HF_BLOCK_NAMES:
        return f"blocks.{block[1]}.{HF_BLOCK_NAMES[block[2]]}.{kind}"
    return key


def _placed(model: TimeSformer, device: torch.device) -> TimeSformer:
    model.requires_grad_(False).eval().to(device)
    if device.type == "cuda":
        model.to(memory_format=torch.channels_last)
    return model
