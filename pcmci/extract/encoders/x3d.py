"""X3D (Feichtenhofer, CVPR 2020, arXiv 2004.04730), frozen: a network of convolutions that never
makes a clip shorter.

The parameters carry the names of the authors' checkpoints (SlowFast's), so that those load as they
are and pytorchvideo's are renamed; every batch norm is folded into the convolution before it, see
`x3d_checkpoint.fold`. Shapes: B clips, T frames a clip, C channels, which come last in memory all
the way (`channels_last_3d`): a 1 x 1 x 1 convolution then is a product of matrices, and one of each
channel by itself is several times faster.
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
from pcmci.extract.encoders.weights import random_seed
from pcmci.extract.encoders.x3d_checkpoint import STATISTICS, fold, read_state, unfolded
from pcmci.extract.encoders.x3d_config import Stage, X3DConfig, named_config


class Pointwise(nn.Conv3d):
    """A 1 x 1 x 1 convolution, of [..., C]."""

    def __init__(self, channels: int, width: int, bias: bool = True) -> None:
        super().__init__(channels, width, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)


class Channelwise(nn.Conv3d):
    """A 3 x 3 x 3 convolution of each channel by itself, of [B, T, H, W, C]."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, (1, stride, stride), 1, groups=channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


class SqueezeExcitation(nn.Module):
    """Each channel times what all channels' means over the clip make of it, from 0 to 1."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = Pointwise(channels, squeezed)
        self.fc2 = Pointwise(squeezed, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, H, W, C], changed in place."""
        mean = x.mean((1, 2, 3), keepdim=True)
        return x.mul_(torch.sigmoid(self.fc2(F.relu(self.fc1(mean)))))


class Bottleneck(nn.Module):
    """Wider, over space and time, narrower."""

    def __init__(self, channels: int, stage: Stage, stride: int, se: bool) -> None:
        super().__init__()
        self.a = Pointwise(channels, stage.inner)
        self.b = Channelwise(stage.inner, stride)
        self.se = SqueezeExcitation(stage.inner, stage.squeezed) if se else None
        self.c = Pointwise(stage.inner, stage.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(F.relu_(self.a(x)))
        if self.se is not None:
            x = self.se(x)
        return self.c(F.silu(x, inplace=True))


class Block(nn.Module):
    """[B, T, H, W, C] to the sum of a bottleneck and a shortcut. A stage's first block halves H and
    W, rounded up; every other one, from the first, has squeeze-and-excitation."""

    def __init__(self, channels: int, stage: Stage, index: int) -> None:
        super().__init__()
        self.stride = 1 if index else 2
        self.branch1 = None if index else Pointwise(channels, stage.width)
        self.branch2 = Bottleneck(channels, stage, self.stride, se=index % 2 == 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        if self.branch1 is not None:
            shortcut = self.branch1(x[:, :, :: self.stride, :: self.stride])
        return self.branch2(x).add_(shortcut).relu_()


class Stem(nn.Module):
    """A convolution over space, which halves H and W, then one over time of each channel."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.conv_xy = nn.Conv3d(3, width, (1, 3, 3), bias=False)
        self.conv = nn.Conv3d(width, width, (5, 1, 1), groups=width)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B * T, 3, S, S], channels last, to [B, T, S / 2, S / 2, C].

        Both as convolutions over two dimensions, the second over time and all pixels in a row: the
        same sums, in half the time.
        """
        x = F.conv2d(pixels, self.conv_xy.weight[:, :, 0], stride=2, padding=1)
        x = x.permute(0, 2, 3, 1)
        size = x.shape[1:3]
        x = x.flatten(1, 2).unflatten(0, (-1, self.frames)).permute(0, 3, 1, 2)  # [B, C, T, H W]
        x = F.conv2d(
            x, self.conv.weight[..., 0], self.conv.bias, padding=(2, 0), groups=self.conv.groups
        )
        return F.relu_(x).permute(0, 2, 3, 1).unflatten(2, size)


class Head(nn.Module):
    """[B, T, H, W, C] to what the classifier reads, but of each frame: [B, T, D]."""

    def __init__(self, channels: int, inner: int, width: int) -> None:
        super().__init__()
        self.conv_5 = Pointwise(channels, inner)
        self.lin_5 = Pointwise(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu_(self.conv_5(x)).mean((2, 3))
        return F.relu_(self.lin_5(x))


class X3D(nn.Module):
    """Pixels to tokens, without the classifier. For inference only: much is changed in place."""

    def __init__(self, config: X3DConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.stem_width
        self.s1 = nn.ModuleDict({"pathway0_stem": Stem(channels, config.input_clip_length)})
        for number, stage in enumerate(config.stages, start=2):
            blocks = nn.ModuleDict()
            for index in range(stage.depth):
                blocks[f"pathway0_res{index}"] = Block(channels, stage, index)
                channels = stage.width
            self.add_module(f"s{number}", blocks)
        self.head = Head(channels, config.stages[-1].inner, config.head_dim_out)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B * T, 3, S, S], channels last, to [B, T, D]."""
        x = self.s1["pathway0_stem"](pixels)
        for number in range(2, 2 + len(self.config.stages)):
            for block in self.get_submodule(f"s{number}").children():
                x = block(x)
        return self.head(x)


class X3DEncoder(FrozenEncoder):
    """A frozen X3D as the pipeline wants it, see `pcmci.extract.encoders.protocol`.

    Its tokens are one vector a frame: what the classifier reads, where the mean over the clip is
    one over the frame alone. The frames of a clip see each other, through convolutions over time
    and through squeeze-and-excitation.
    """

    def __init__(self, model: X3D, spec: EncoderSpec, device: torch.device, precision: str) -> None:
        frames = model.config.input_clip_length
        super().__init__(model, spec, device, precision, clip_frames=frames)
        self._model.to(memory_format=torch.channels_last_3d)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, T, S, S, 3] uint8 on the model's device to [B, T, D] float32."""
        # On a CPU torch's sigmoid and silu round differently at the end of what a thread gets, and
        # so by a clip's place in its batch. Its usual batch is of one clip anyway.
        together = 1 if self.device.type == "cpu" else len(clips)
        with torch.inference_mode(), autocast(self.device, self.precision):
            tokens = [self._model(self._normalise(part)) for part in clips.split(together)]
            return torch.cat(tokens).float()


def load(name: str, weights: str, *, device: str, precision: str, frames: int | None) -> X3DEncoder:
    """See `pcmci.extract.encoders.load_video_encoder`."""
    config = named_config(name)
    frames = require_multiple(frames, config.input_clip_length, name)
    place = choose_device(device)
    computed_in = choose_precision(precision, place)
    seed = random_seed(weights)
    with torch.device("meta"):  # no memory and no random numbers for what is replaced at once
        model = X3D(config)
    if seed is None:
        state = read_state(weights, name, config, model.state_dict())
    else:
        state = random_state(unfolded(model.state_dict(), first_shortcut=False), seed)
    state = {key: tensor.float() for key, tensor in state.items()}
    model.load_state_dict(fold(state), assign=True)
    spec = spec_of(
        name,
        weights,
        state,
        tokens=frames,
        width=config.head_dim_out,
        preprocessing=Preprocessing(
            resize=config.short_side,
            size=config.input_crop_size,
            interpolation="bilinear",
            mean=(0.45, 0.45, 0.45),
            std=(0.225, 0.225, 0.225),
        ),
        parameters=[tensor for key, tensor in state.items() if not key.endswith(STATISTICS)],
    )
    return X3DEncoder(model, spec, place, computed_in)
