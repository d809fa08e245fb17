"""Inference: label queries cross-attend to the video, one linear unit a label reads the answer.

The paper: one layer, hidden width 512, 8 heads. Here the width is the VLM's (512 for ViT-B/16).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcmci.errors import UsageError
from pcmci.heads.config import ModelConfig
from pcmci.heads.head import keep_mask
from pcmci.heads.method.attention import attention, attention_weights
from pcmci.heads.method.relations import Relations


def grouped_linear(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One unit a label on its own query: logit_n = <w_n, z_n> + b_n.

    z: [B, N, D]. weight: [N, D]. bias: [N]. Returns [B, N].
    """
    return (z * weight).sum(-1) + bias


class Decoder(nn.Module):
    """Z = CrossAttention(Q = T*, K = V = V*), feed-forward, and the classifier.

    Dropout is a pair of masks that the caller draws (`draw_dropout`), not a hidden global random
    number: a run is then the same alone and stacked with others.
    """

    def __init__(self, width: int, n_labels: int, config: ModelConfig) -> None:
        super().__init__()
        if width % config.decoder_heads:
            raise UsageError(
                f"decoder-heads {config.decoder_heads} does not divide the width {width}"
            )
        self.heads = config.decoder_heads
        self.p = config.dropout
        self.among = Relations(width, config.decoder_heads) if config.self_attention else None
        self.norm_among = nn.LayerNorm(width) if config.self_attention else None
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm_attention = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.feedforward)
        self.down = nn.Linear(config.feedforward, width)
        self.norm_feedforward = nn.LayerNorm(width)
        self.weight = nn.Parameter(torch.randn(n_labels, width) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(n_labels))

    def draw_dropout(self, batch: int, generator: torch.Generator) -> Tensor | None:
        """[2, B, N, D] masks of 0 and 1 / (1 - p), for after the attention and after the
        feed-forward layer; None where p = 0."""
        if self.p == 0:
            return None
        shape = (2, batch, *self.weight.shape)
        return keep_mask(shape, self.p, generator, self.weight.dtype)

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The same as `Head.draw` gives it."""
        mask = self.draw_dropout(batch, generator)
        return {} if mask is None else {"dropout": mask}

    def forward(self, text: Tensor, tokens: Tensor, dropout: Tensor | None = None) -> Tensor:
        """text: [B or 1, N, D]. tokens: [B, M, D]. dropout: see `draw_dropout`. Returns [B, N]."""
        return grouped_linear(self.embed(text, tokens, dropout), self.weight, self.bias)

    def embed(self, text: Tensor, tokens: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Z [B, N, D], what the classifier reads. The arguments are those of `forward`."""
        text = self._queries(text)
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        query = self.query(text).expand(len(tokens), -1, -1)
        attended = self.out(attention(query, key, value, self.heads))
        if dropout is not None:
            attended = attended * dropout[0]
        z = self.norm_attention(text + attended)
        transformed = self.down(F.gelu(self.up(z)))
        if dropout is not None:
            transformed = transformed * dropout[1]
        embedded: Tensor = self.norm_feedforward(z + transformed)
        return embedded

    def looks(self, text: Tensor, tokens: Tensor) -> Tensor:
        """Where the query of each label looks: the weights of `embed`'s attention [B, P, N, M], P
        heads, rows that sum to 1. text: [B or 1, N, D]. tokens: [B, M, D]."""
        key, _ = self.key_value(tokens).chunk(2, dim=-1)
        query = self.query(self._queries(text)).expand(len(tokens), -1, -1)
        return attention_weights(query, key, self.heads)

    def _queries(self, text: Tensor) -> Tensor:
        if self.among is None or self.norm_among is None:
            return text
        queries: Tensor = self.norm_among(text + self.among(text))
        return queries
