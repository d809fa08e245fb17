"""S4 with a diagonal state matrix: a convolution as long as the sequence, from a few numbers.

x' = A x + B u, y = Re(C x) + D u for each channel, with A diagonal (Gu et al., "On the
parameterization and initialization of diagonal state space models", NeurIPS 2022: S4D). States come
in conjugate pairs, of which one is kept.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOWEST, FASTEST = 1e-2, 1.0
"""Of the steps Delta at the start; with Re A = -1/2, memories of 200 frames down to 2. S4's own
steps are for thousands of tokens."""


def kernel(step: Tensor, decay: Tensor, frequency: Tensor, out: Tensor, length: int) -> Tensor:
    """K_l = 2 Re sum_n C_n (exp(Delta A_n) - 1) / A_n exp(Delta A_n l), A_n = -decay + i frequency:
    what an input l frames ago counts, by zero-order hold with B = 1.

    step: Delta [H]. decay, frequency: [H, n]. out: C [H, n, 2], real and imaginary part. Returns
    [H, L].
    """
    a = torch.complex(-decay, frequency)
    turned = a * step[:, None]
    c = torch.view_as_complex(out) * (turned.exp() - 1) / a
    ago = torch.arange(length, device=step.device)
    return 2 * (c[..., None] * (turned[..., None] * ago).exp()).sum(-2).real


def convolve(u: Tensor, k: Tensor) -> Tensor:
    """y_l = sum_{j <= l} k_{l - j} u_j, by FFT, padded so that the end does not reach the start.

    u: [B, H, L]. k: [H, L]. Returns [B, H, L].
    """
    length = u.shape[-1]
    product = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(k, n=2 * length)
    return torch.fft.irfft(product, n=2 * length)[..., :length]


class DiagonalS4(nn.Module):
    """The convolution, GELU, and a linear map among the channels. It looks back, never ahead.

    states: of a channel, half of which are kept. Started as S4D-Lin: A_n = -1/2 + i pi n, C normal.
    """

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        pairs = states // 2
        span = math.log(FASTEST / SLOWEST)
        self.log_step = nn.Parameter(math.log(SLOWEST) + span * torch.rand(width))
        self.log_decay = nn.Parameter(torch.full((width, pairs), math.log(0.5)))
        self.frequency = nn.Parameter((math.pi * torch.arange(pairs)).repeat(width, 1))
        self.output = nn.Parameter(torch.randn(width, pairs, 2) / 2**0.5)
        self.skip = nn.Parameter(torch.ones(width))
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, H] to [B, L, H]."""
        with torch.autocast(x.device.type, enabled=False):  # no FFT in half precision
            u = x.float().mT
            k = kernel(
                self.log_step.exp(), self.log_decay.exp(), self.frequency, self.output, u.shape[-1]
            )
            y = convolve(u, k).mT + self.skip * u.mT
        mixed: Tensor = self.mix(F.gelu(y))
        return mixed
