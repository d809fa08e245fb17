"""A video as one sequence of frames, each what both encoders say of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def frame_by_frame(vlm: Tensor, video: Tensor) -> Tensor:
    """[LN(V^P_l), LN(V_l)] for l = 1..L, without any weights.

    vlm: [B, L, D]. video: [B, Lv, Dv]; where Lv is not L, what stands at a frame is the mean of
    the tokens that fall into its part of the video, or the token whose part it falls into.
    Returns [B, L, D + Dv].
    """
    frames = vlm.shape[1]
    if video.shape[1] != frames:
        video = F.adaptive_avg_pool1d(video.mT, frames).mT
    return torch.cat([F.layer_norm(x, x.shape[-1:]) for x in (vlm, video)], dim=-1)
