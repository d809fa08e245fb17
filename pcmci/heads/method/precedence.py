"""Which labels come before which in a video, as the frozen VLM sees it: what makes ICI's relations
depend on the video."""

from __future__ import annotations

import torch
from torch import Tensor

from pcmci.heads.method.transport import log_similarity


def precedence(posterior: Tensor) -> Tensor:
    """A = O - O^T, with O_ij the share of frame pairs l < l' that show i at l and j at l'.

    posterior: pi [B, L, N], of the labels in each frame. Returns [B, N, N], antisymmetric, from -1
    to 1: positive where i comes before j. 0 of a single frame.
    """
    frames = posterior.shape[1]
    later = torch.ones(frames, frames, device=posterior.device, dtype=posterior.dtype).triu(1)
    pairs = max(1, frames * (frames - 1) // 2)
    before = posterior.mT @ later @ posterior / pairs
    return before - before.mT


def frozen_precedence(text: Tensor, frames: Tensor, temperature: float) -> Tensor:
    """`precedence` with pi_l = softmax over labels of log S. text: [N, D]. frames: [B, L, D]."""
    with torch.autocast(text.device.type, enabled=False):
        log_s = log_similarity(text[None].float(), frames.float(), temperature)
        return precedence(log_s.softmax(1).mT)
