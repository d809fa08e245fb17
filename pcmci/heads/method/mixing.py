"""[X, Y] W: how an adjusted embedding and what adjusts it become one (NWGM).

The shapes of the paper's weights say which axis is mixed: W_H in R^{2D x D} the features,
W_I and W_C in R^{2N x N} the labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcmci.heads.config import ModelConfig


def mix_features(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """[X, Y] W with X and Y side by side along the feature axis.

    x, y: [..., N, D], broadcast against each other. weight: [2D, D]. Returns [..., N, D].
    """
    upper, lower = weight.chunk(2)
    return x @ upper + y @ lower


def mix_labels(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """[X, Y] W with X and Y one above the other along the label axis.

    x, y: [..., N, D], broadcast against each other. weight: [2N, N]. Returns [..., N, D]:
    row n is the sum over m of W[m, n] X[m] + W[N + m, n] Y[m].
    """
    upper, lower = weight.chunk(2)
    return upper.mT @ x + lower.mT @ y


def stage_mixer(axis: str, width: int, n_labels: int, config: ModelConfig) -> Mixer:
    """The mixer of a stage along the paper's `axis`, or as `config.mixing` has it otherwise."""
    axis = "features" if config.mixing == "feature" else axis
    return Mixer(
        axis,
        width if axis == "features" else n_labels,
        noise=config.mixer_noise,
        residual=config.mixing == "residual",
    )


class Mixer(nn.Module):
    """[X, Y] W with its W [2 size, size], `axis` being "features" or "labels".

    W starts at [I; 0] plus `noise` times a random one, so that a fresh stage is nearly the
    identity. With `residual`, X + [X, Y] W, and W starts at the random part alone.
    """

    def __init__(self, axis: str, size: int, *, noise: float, residual: bool) -> None:
        super().__init__()
        self.mix = {"features": mix_features, "labels": mix_labels}[axis]
        self.residual = residual
        weight = noise * nn.init.xavier_uniform_(torch.empty(2 * size, size))
        if not residual:
            weight[:size] += torch.eye(size)
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y: [B or 1, N, D]. Returns [B, N, D]."""
        mixed = self.mix(x, y, self.weight)
        return x + mixed if self.residual else mixed
