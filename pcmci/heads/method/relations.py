"""R(X) = concat_k G_k(X; Theta_k) W_R: relations between rows, in K bases.

ICI relates labels with it (R(T')), IVC visual tokens (F(V)): the same form, weights of their own.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pcmci.errors import UsageError
from pcmci.heads.method.attention import attention


def relate(x: Tensor, w_qkv: Tensor, w_r: Tensor, bases: int, bias: Tensor | None = None) -> Tensor:
    """R(X): every basis attends over all pairs of rows in its own D/K dimensions.

    x: [B, N, D]. w_qkv: [3D, D], the bases' maps D to D/K for queries, keys and values, one
    above the other. w_r: [D, D]. bias: [B, K, N, N] of the scores. Returns [B, N, D].
    G_k(X) = softmax(X Q_k (X K_k)^T / sqrt(D/K)) X V_k.
    """
    query, key, value = F.linear(x, w_qkv).chunk(3, dim=-1)
    return F.linear(attention(query, key, value, bases, bias), w_r)


class Relations(nn.Module):
    """`relate` with its weights. Raises UsageError where K does not divide D."""

    def __init__(self, width: int, bases: int) -> None:
        super().__init__()
        if width % bases:
            raise UsageError(f"relations {bases} does not divide the width {width} of the stream")
        self.bases = bases
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.xavier_uniform_(self.out.weight)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """[B, N, D] to [B, N, D]. bias: see `relate`."""
        return relate(x, self.qkv.weight, self.out.weight, self.bases, bias)
