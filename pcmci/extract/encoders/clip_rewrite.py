"""The image tower of a CLIP in fewer passes over memory; the same sums, up to their rounding.

Matrix products reach the hardware's peak by themselves. What is between them costs as much as a
fifth of the time, in two places: PyTorch's attention for inference (`_native_multi_head_attention`)
computes the whole matrix of weights, and QuickGELU goes over its input three times.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn

QUICK = 1.702
"""QuickGELU(x) = x sigmoid(1.702 x) = silu(1.702 x) / 1.702."""


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` of a sequence with itself, on scaled_dot_product_attention."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """query, key, value: the same [B, length, W]. Returns [B, length, W], and no weights."""
        qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


def rewrite(tower: Any) -> None:
    """Change an image tower in place, for inference only. What is not one of open_clip's own
    blocks stays as it is."""
    for block in tower.modules():
        if not isinstance(block, ResidualAttentionBlock):
            continue
        attention = block.attn
        own = attention.in_proj_weight is not None and attention.bias_k is None
        if own and attention.batch_first and not attention.add_zero_attn:
            block.attn = SelfAttention(attention)
        if isinstance(block.mlp.gelu, QuickGELU):
            _fold_quick_gelu(block.mlp)


def _fold_quick_gelu(mlp: Any) -> None:
    """c_proj(QuickGELU(c_fc(x))) with both factors 1.702 multiplied into the layers around it."""
    with torch.no_grad():
        for tensor in (mlp.c_fc.weight, mlp.c_fc.bias):
            tensor.mul_(QUICK)
        mlp.c_proj.weight.div_(QUICK)
    mlp.gelu = nn.SiLU(inplace=True)
