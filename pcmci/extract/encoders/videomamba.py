"""VideoMamba (Li et al., ECCV 2024, arXiv 2403.06977), frozen: patches of all frames as one
sequence, read in both directions by a selective state space model.

The parameters carry the names of the authors' checkpoints. Shapes: B clips, T frames a clip, P
patches a frame, L = 1 + T P tokens, W the width, D = 2 W the mixer's channels.
"""

from __future__ import annotations

import torch
from torch import nn

from pcmci.cache.schema import EncoderSpec, Preprocessing
from pcmci.device import autocast, choose_device, choose_precision
from pcmci.extract.encoders.frozen import FrozenEncoder, spec_of
from pcmci.extract.encoders.protocol import require_multiple
from pcmci.extract.encoders.random_state import random_state
from pcmci.extract.encoders.scan import Scan, choose_scan
from pcmci.extract.encoders.videomamba_checkpoint import RANDOM, read_state, sizes_of
from pcmci.extract.encoders.videomamba_config import (
    KERNEL,
    STATE,
    VideoMambaConfig,
    named_config,
)
from pcmci.extract.encoders.weights import random_seed, require_match


def silu(x: torch.Tensor) -> torch.Tensor:
    """x sigmoid(x). torch's own rounds differently at the end of a row, and so by a clip's place in
    its batch."""
    return x / (1 + torch.exp(-x))


def softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x)), likewise."""
    return x.clamp_min(0) + torch.log1p(torch.exp(-x.abs()))


def causal_convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Each channel by itself over a token and those before it, the last weight for the token.

    x: [G, B, L, D]. weight: [G, D, K]. bias: [G, D]. Gives [G, B, L, D].
    """
    taps = weight.movedim(-1, 0)[:, :, None, None]  # [K, G, 1, 1, D]
    y = torch.addcmul(bias[:, None, None], taps[-1], x)
    for back in range(1, len(taps)):
        y[:, :, back:].addcmul_(taps[-1 - back], x[:, :, :-back])
    return y


class Convolution(nn.Module):
    """What a checkpoint has of a `nn.Conv1d` for each channel by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, KERNEL))
        self.bias = nn.Parameter(torch.empty(channels))


class Mixer(nn.Module):
    """Mamba in both directions: in and out projection are shared, all between is twice there, the
    `_b` for the reversed sequence."""

    def __init__(self, config: VideoMambaConfig) -> None:
        super().__init__()
        width, channels, rank = config.hidden_size, config.channels, config.rank

        def projection() -> nn.Linear:
            return nn.Linear(channels, rank + 2 * STATE, bias=False)

        self.sizes = (rank, STATE, STATE)
        self.in_proj = nn.Linear(width, 2 * channels, bias=False)
        self.conv1d, self.conv1d_b = Convolution(channels), Convolution(channels)
        self.x_proj, self.x_proj_b = projection(), projection()
        self.dt_proj, self.dt_proj_b = (nn.Linear(rank, channels) for _ in range(2))
        self.A_log, self.A_b_log = (nn.Parameter(torch.empty(channels, STATE)) for _ in range(2))
        self.D, self.D_b = (nn.Parameter(torch.empty(channels)) for _ in range(2))
        self.out_proj = nn.Linear(channels, width, bias=False)

    def forward(self, x: torch.Tensor, scan: Scan) -> torch.Tensor:
        """[B, L, W] to the same. Between the projections all is float32, under autocast too."""
        inner, gate = self.in_proj(x).float().chunk(2, dim=-1)
        u = causal_convolution(
            torch.stack((inner, inner.flip(1))),
            torch.stack((self.conv1d.weight[:, 0], self.conv1d_b.weight[:, 0])),
            torch.stack((self.conv1d.bias, self.conv1d_b.bias)),
        )
        u = silu(u)  # [2, B, L, D]
        chosen = torch.stack((self.x_proj(u[0]), self.x_proj_b(u[1]))).float()
        with torch.autocast(x.device.type, enabled=False):
            low, b, c = chosen.split(self.sizes, dim=-1)
            dt = softplus(torch.stack((self.dt_proj(low[0]), self.dt_proj_b(low[1]))))
            rates = -torch.exp(torch.stack((self.A_log, self.A_b_log)))
            y = scan(u, dt, rates, b, c)
            y = torch.addcmul(y, u, torch.stack((self.D, self.D_b))[:, None, None])
            both = (y[0] + y[1].flip(1)) * silu(gate)
        return self.out_proj(both)


class Block(nn.Module):
    """x + mixer(norm(x)): there is no attention and no MLP."""

    def __init__(self, config: VideoMambaConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mixer = Mixer(config)

    def forward(self, x: torch.Tensor, scan: Scan) -> torch.Tensor:
        """[B, L, W] to the same."""
        return x + self.mixer(self.norm(x), scan).float()


class VideoMamba(nn.Module):
    """Pixels to tokens; the module that the authors' checkpoints fill, without its classifier."""

    def __init__(self, config: VideoMambaConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.config = config
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + config.patches, width))
        self.temporal_pos_embedding = nn.Parameter(torch.empty(1, config.num_frames, width))
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm_f = nn.RMSNorm(width, eps=config.layer_norm_eps)

    def forward(self, pixels: torch.Tensor, scan: Scan) -> torch.Tensor:
        """[B * T, 3, S, S] to all tokens after the final norm, [B, 1 + T P, W].

        Token 0 is the class token, then come frame 0's patches, frame 1's and so on.
        """
        patches = self.patch_embed["proj"](pixels).float().flatten(2).transpose(1, 2)
        patches = patches.unflatten(0, (-1, self.config.num_frames))  # [B, T, P, W]
        patches = patches + self.pos_embed[:, None, 1:] + self.temporal_pos_embedding[:, :, None]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(patches), -1, -1)
        x = torch.cat((first, patches.flatten(1, 2)), dim=1)
        for block in self.layers:
            x = block(x, scan)
        return self.norm_f(x)


class VideoMambaEncoder(FrozenEncoder):
    """A frozen VideoMamba as the pipeline wants it, see `pcmci.extract.encoders.protocol`.

    Its tokens are one vector a frame: the mean over the frame's patches after the final norm.
    """

    def __init__(
        self, model: VideoMamba, spec: EncoderSpec, device: torch.device, precision: str
    ) -> None:
        super().__init__(model, spec, device, precision, clip_frames=model.config.num_frames)
        self._scan, self.libraries = choose_scan(device)
        if device.type == "cuda":
            self._model.patch_embed.to(memory_format=torch.channels_last)

    def all_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, T, S, S, 3] uint8 to [B, 1 + T P, W] float32, the class token first."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            return self._model(self._normalise(clips), self._scan).float()

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, T, S, S, 3] uint8 on the model's device to [B, T, W] float32."""
        with torch.inference_mode():
            patches = self.all_tokens(clips)[:, 1:]
            return patches.unflatten(1, (self.clip_frames, -1)).mean(2)


def load(
    name: str, weights: str, *, device: str, precision: str, frames: int | None
) -> VideoMambaEncoder:
    """See `pcmci.extract.encoders.load_video_encoder`.

    Of the authors' models S and T are those of the checkpoint; a JSON config says its own.
    """
    config = named_config(name)
    place = choose_device(device)
    computed_in = choose_precision(precision, place)
    seed = random_seed(weights)
    state = {} if seed is not None else read_state(weights, name, config)
    if not name.endswith(".json"):
        config = sizes_of(state, config)
    frames = require_multiple(
        frames, config.num_frames, name if seed is not None else f"{name}, {weights},"
    )
    with torch.device("meta"):  # no memory and no random numbers for what is replaced at once
        model = VideoMamba(config)
    if seed is None:
        require_match(state, model.state_dict(), weights, name)
    else:
        state = random_state(model.state_dict(), seed, RANDOM)
    state = {key: tensor.float() for key, tensor in state.items()}
    model.load_state_dict(state, assign=True)
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
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
    )
    return VideoMambaEncoder(model, spec, place, computed_in)
