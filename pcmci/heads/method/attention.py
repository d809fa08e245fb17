"""Scaled dot-product attention in several parts of the width, for the decoder and the relations."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pcmci.heads.method.vmap_rules import fold_runs, with_rule

_attend = with_rule(F.scaled_dot_product_attention, fold_runs)


def attention(query: Tensor, key: Tensor, value: Tensor, parts: int) -> Tensor:
    """concat over the parts of softmax(Q_p K_p^T / sqrt(D/P)) V_p.

    query: [B, N, D]. key, value: [B, M, D]. parts: P, which divides D. Returns [B, N, D].
    """
    q, k, v = (x.unflatten(-1, (parts, -1)).transpose(-3, -2) for x in (query, key, value))
    return _attend(q, k, v).transpose(-3, -2).flatten(-2)
