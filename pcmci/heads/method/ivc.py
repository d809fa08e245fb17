"""IVC: visual confounders, by a front-door adjustment with the text as its mediator."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from pcmci.heads.config import ModelConfig
from pcmci.heads.method.mixing import stage_mixer
from pcmci.heads.method.relations import Relations
from pcmci.heads.method.streams import Others, Streams


def conditional_transform(mediator: Tensor, tokens: Tensor, w_q: Tensor, w_k: Tensor) -> Tensor:
    """V' = softmax(A(M, F(V))) F(V), with the bilinear A(M, F) = M W_q (F W_k)^T / sqrt(D).

    mediator: M [B or 1, N, D]. tokens: F(V) [B, Lv, D]. w_q, w_k: [D, D]. Returns [B, N, D].
    """
    scores = (mediator @ w_q) @ (tokens @ w_k).mT / math.sqrt(tokens.shape[-1])
    return scores.softmax(-1) @ tokens


class IVC(nn.Module):
    """V* = [M, V'] W_C, mixing along the label axis. Rewrites the video: one token a label.

    By the formula (`front_door` cross), M is a mediator a video, and V' is the mean over K other
    videos of what M finds in them: the sum over v' ~ P(v') moved inside, as NWGM does. With K = 0
    there is no V', and V* is what M says.
    """

    def __init__(self, width: int, n_labels: int, config: ModelConfig) -> None:
        super().__init__()
        if config.front_door == "own" or config.front_door_videos:
            self.relations = Relations(width, config.relations)
            self.w_q = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, width)))
            self.w_k = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, width)))
        self.mixer = stage_mixer("labels", width, n_labels, config)
        self.norm = nn.LayerNorm(width) if config.norm else nn.Identity()

    def forward(self, streams: Streams) -> Streams:
        if streams.mediator is not None:
            mediator, adjusted = streams.mediator, self._across(streams.mediator, streams.others)
        else:
            mediator = streams.text
            related = self.relations(streams.video)
            adjusted = conditional_transform(mediator, related, self.w_q, self.w_k)
        video = self.norm(self.mixer(mediator, adjusted))
        return dataclasses.replace(streams, video=video)

    def _across(self, mediator: Tensor, others: Others | None) -> Tensor:
        """V' [B, N, D] of other videos. mediator: [B, N, D]."""
        if others is None:
            return torch.zeros_like(mediator)
        related = self.relations(others.tokens)[others.which]
        found = conditional_transform(mediator[:, None], related, self.w_q, self.w_k)
        return found.mean(1)
