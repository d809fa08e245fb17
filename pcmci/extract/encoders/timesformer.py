"""TimeSformer with divided space-time attention (Bertasius, Wang, Torresani, ICML 2021), frozen.

The parameters carry the names of the authors' checkpoints, so that those load as they are and
Hugging Face's are renamed. Shapes: B clips, T frames a clip, P patches a frame, W the width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from pcmci.cache.schema import EncoderSpec, Preprocessing
from pcmci.device import autocast, choose_device, choose_precision
from pcmci.extract.encoders.frozen import FrozenEncoder, spec_of
from pcmci.extract.encoders.protocol import require_multiple
from pcmci.extract.encoders.random_state import random_state
from pcmci.extract.encoders.timesformer_checkpoint import fold, read_state, unfolded
from pcmci.extract.encoders.timesformer_config import TimeSformerConfig, named_config
from pcmci.extract.encoders.weights import random_seed, require_match


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
    `temporal_attn.proj` has the checkpoint's `temporal_fc` folded in, see
    `timesformer_checkpoint.fold`.
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


class TimeSformerEncoder(FrozenEncoder):
    """A frozen TimeSformer as the pipeline wants it, see `pcmci.extract.encoders.protocol`.

    Its tokens are one vector a frame: the mean over the frame's patches after the final norm.
    """

    def __init__(
        self, model: TimeSformer, spec: EncoderSpec, device: torch.device, precision: str
    ) -> None:
        super().__init__(model, spec, device, precision, clip_frames=model.config.num_frames)
        if device.type == "cuda":
            self._model.to(memory_format=torch.channels_last)

    def all_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, T, S, S, 3] uint8 to [B, T, 1 + P, W] float32, the class token first."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            return self._model(self._normalise(clips)).float()

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, T, S, S, 3] uint8 on the model's device to [B, T, W] float32."""
        with torch.inference_mode():
            return self.all_tokens(clips)[:, :, 1:].mean(2)


def load(
    name: str, weights: str, *, device: str, precision: str, frames: int | None
) -> TimeSformerEncoder:
    """See `pcmci.extract.encoders.load_video_encoder`."""
    config = named_config(name)
    frames = require_multiple(frames, config.num_frames, name)
    place = choose_device(device)
    computed_in = choose_precision(precision, place)
    seed = random_seed(weights)
    with torch.device("meta"):  # no memory and no random numbers for what is replaced at once
        model = TimeSformer(config)
    expected = unfolded(model.state_dict())
    if seed is None:
        state = read_state(weights, name, config)
        require_match(state, expected, weights, name)
    else:
        state = random_state(expected, seed)
    state = {key: tensor.float() for key, tensor in state.items()}
    model.load_state_dict(fold(state), assign=True)
    spec = spec_of(
        name,
        weights,
        state,
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
