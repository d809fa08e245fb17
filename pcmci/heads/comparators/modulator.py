"""Frames that attend to texts: what a stream of frames is made to look for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Modulator(nn.Module):
    """a_l = softmax_j(<f_l W_q, T_j W_k> / sqrt(W)), f_l <- LN(f_l + g sum_j a_lj T_j W_v).

    HierarQ (CVPR 2025) has it the other way round: texts attend to the patches of a frame,
    CA(T, f_l, f_l). With one token a frame the softmax is over one key, hence 1, and nothing of the
    text would come through. That frames attend to texts is ours. The gate g begins at 0: frames as
    they are.
    """

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(text_width, width)
        self.value = nn.Linear(text_width, width)
        self.gate = nn.Parameter(torch.zeros(()))
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, text: Tensor) -> Tensor:
        """frames: [B, n, W]. text: [N, D]. Returns [B, n, W]."""
        scores = self.query(frames) @ self.key(text).mT / math.sqrt(frames.shape[-1])
        told = scores.softmax(-1) @ self.value(text)
        modulated: Tensor = self.norm(frames + self.gate * told)
        return modulated
