"""ICI: the codependency illusion, by relations between labels and a back-door adjustment."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from pcmci.heads.config import ModelConfig
from pcmci.heads.method.mixing import stage_mixer
from pcmci.heads.method.relations import Relations
from pcmci.heads.method.streams import Streams


class ICI(nn.Module):
    """T* = [T', R(T')] W_I, mixing along the label axis. Rewrites the text.

    With `order_bias` the scores of basis k are biased by beta_k N A, A the order of the labels in
    the video (`pcmci.heads.method.precedence`): in units of what a pair has on average, for a
    video's frame pairs are shared out between N^2 pairs of labels.
    """

    def __init__(self, width: int, n_labels: int, config: ModelConfig) -> None:
        super().__init__()
        self.relations = Relations(width, config.relations)
        self.mixer = stage_mixer("labels", width, n_labels, config)
        self.norm = nn.LayerNorm(width) if config.norm else nn.Identity()
        self.beta = nn.Parameter(torch.ones(config.relations)) if config.order_bias else None

    def _bias(self, streams: Streams) -> Tensor | None:
        """[B, K, N, N] of the relations' scores."""
        if self.beta is None:
            return None
        assert streams.precedence is not None  # PCMCI.forward sees to it
        n_labels = streams.precedence.shape[-1]
        return self.beta[:, None, None] * n_labels * streams.precedence[:, None]

    def forward(self, streams: Streams) -> Streams:
        related = self.relations(streams.text, self._bias(streams))
        text = self.mixer(streams.text, related)
        return dataclasses.replace(streams, text=self.norm(text))
