"""The head `timeception`: depthwise convolutions over time at several scales, layer by layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcmci.errors import UsageError
from pcmci.heads.comparators.config import TimeceptionConfig
from pcmci.heads.comparators.frames import frame_by_frame
from pcmci.heads.head import Draws, Head, keep_mask

BRANCHES = 5
"""Of a group: its channels as they are, three convolutions over time, and a pooling."""

SCALES = {"kernels": ((3, 1), (5, 1), (7, 1)), "dilations": ((3, 1), (3, 2), (3, 3))}
"""The size and the dilation of the three convolutions."""


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels of every group among the channels of every other: [B, g n, L], channel n i + j of
    which comes to g j + i."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class Layer(nn.Module):
    """Channels in groups, of each five branches: a 1 x 1 convolution to a quarter of the group's
    channels, then nothing, a depthwise convolution over time at one of three scales, or the larger
    of two frames; batch norm, ReLU, channels shuffled, and half of the frames.

    width: C in, a multiple of the groups. `width_out` is 1.25 C, as far as whole numbers go.
    """

    def __init__(self, width: int, groups: int, scales: str) -> None:
        super().__init__()
        each = max(1, width // (4 * groups))
        self.groups, self.width_out = groups, BRANCHES * groups * each
        # No biases: batch norm takes the mean away, and has its own.
        self.squeeze = nn.Conv1d(width, self.width_out, 1, groups=groups, bias=False)
        inner = groups * each
        self.over_time = nn.ModuleList(
            nn.Conv1d(
                inner, inner, size, dilation=apart, padding=apart * (size // 2), groups=inner,
                bias=False,
            )
            for size, apart in SCALES[scales]
        )  # fmt: skip
        self.norm = nn.BatchNorm1d(self.width_out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, L] to [B, 1.25 C, L/2], half a frame being one."""
        squeezed = self.squeeze(x).unflatten(1, (self.groups, BRANCHES, -1))
        plain, *scaled, pooled = (branch.flatten(1, 2) for branch in squeezed.unbind(2))
        branches = [
            plain,
            *(convolve(branch) for convolve, branch in zip(self.over_time, scaled, strict=True)),
            F.max_pool1d(F.pad(pooled, (0, 1), value=float("-inf")), 2, stride=1),
        ]
        grouped = [branch.unflatten(1, (self.groups, -1)) for branch in branches]
        normed = self.norm(torch.stack(grouped, dim=2).flatten(1, 3))
        return F.max_pool1d(shuffle(normed.relu(), self.groups), 2, ceil_mode=True)


class TimeceptionHead(Head):
    """After Timeception (Hussein et al., CVPR 2019): its layers on frame features.

    [LN(V^P), LN(V)] of a frame, projected; layers that halve the frames; the largest over what is
    left of them; one linear layer. Left out: its 3D CNN and the space that it keeps beside time
    (ours is pooled), and 128 to 1,024 frames a video. Batch norm counts the batch, as there: at the
    end it goes by the running mean of the training.

    Raises UsageError where the groups do not divide the channels.
    """

    def __init__(self, config: TimeceptionConfig, text: Tensor, video_width: int) -> None:
        super().__init__(text)
        n_labels, width = text.shape
        channels = config.channels or 2 * width
        if channels % config.groups:
            raise UsageError(f"groups {config.groups} does not divide the {channels} channels")
        self.p = config.dropout
        self.frames_in = nn.Linear(width + video_width, channels)
        layers = []
        for _ in range(config.layers):
            layers.append(Layer(channels, config.groups, config.scales))
            channels = layers[-1].width_out
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(channels, n_labels)

    def opinions(
        self, vlm: Tensor, video: Tensor, weights: Tensor | None, draws: Draws | None
    ) -> Tensor:
        """The logits [B, N]. See `Head.forward`."""
        x = self.layers(self.frames_in(frame_by_frame(vlm, video)).mT).amax(-1)
        if draws:
            x = x * draws["dropout"]
        logits: Tensor = self.out(x)
        return logits

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        if self.p == 0:
            return {}
        return {"dropout": keep_mask((batch, self.out.in_features), self.p, generator)}
