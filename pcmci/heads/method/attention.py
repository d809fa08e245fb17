"""Scaled dot-product attention in several parts of the width, for the decoder and the relations."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from pcmci.heads.method.vmap_rules import fold_runs, with_rule

_attend = with_rule(F.scaled_dot_product_attention, fold_runs)


def attention(
    query: Tensor, key: Tensor, value: Tensor, parts: int, bias: Tensor | None = None
) -> Tensor:
    """concat over the parts of softmax(Q_p K_p^T / sqrt(D/P) + bias_p) V_p.

    query: [B, N, D]. key, value: [B, M, D]. parts: P, which divides D. bias: [B, P, N, M] or none.
    Returns [B, N, D].
    """
    q, k, v = (x.unflatten(-1, (parts, -1)).transpose(-3, -2) for x in (query, key, value))
    if bias is None:
        return _attend(q, k, v).transpose(-3, -2).flatten(-2)
    q, k, v = (x.expand(len(bias), -1, -1, -1) for x in (q, k, v))
    return _attend(q, k, v, bias.to(q.dtype)).transpose(-3, -2).flatten(-2)


def attention_weights(query: Tensor, key: Tensor, parts: int) -> Tensor:
    """softmax(Q_p K_p^T / sqrt(D/P)) of each part: what `attention` weighs the values with.

    query: [B, N, D]. key: [B, M, D]. parts: P, which divides D. Returns [B, P, N, M], rows that sum
    to 1.
    """
    q, k = (x.unflatten(-1, (parts, -1)).transpose(-3, -2) for x in (query, key))
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
