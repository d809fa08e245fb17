"""ICH: the co-occurrence hallucination, by optimal transport and a back-door adjustment."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from pcmci.heads.config import ModelConfig
from pcmci.heads.method.mixing import stage_mixer
from pcmci.heads.method.streams import Streams
from pcmci.heads.method.transport import alignment


def proxy(weights: Tensor, frames: Tensor) -> Tensor:
    """H = S~ V^P: for each label, the mean of the frames it is aligned with.

    weights: S~ [B, N, L], rows sum to 1. frames: [B, L, D]. Returns [B, N, D].
    """
    return weights.to(frames.dtype) @ frames


def asked(streams: Streams) -> tuple[Tensor, Tensor]:
    """The text [B or 1, N, D] and the frames [B, L, D] that S is asked of, where it is learned."""
    frames = streams.frames if streams.aligned is None else streams.aligned
    assert frames is not None  # `PCMCI.uses_frames` says so
    return streams.text, frames


class ICH(nn.Module):
    """T' = [T, H] W_H. Rewrites the text.

    frozen: whether S~ comes from the frozen embeddings (then it is given, for it is the same in
    every run) or from the streams as an earlier stage left them. Then `marginal_error` holds the
    worst relative one of any plan so far.
    """

    lam: Tensor
    marginal_error: Tensor

    def __init__(self, width: int, n_labels: int, config: ModelConfig, *, frozen: bool) -> None:
        super().__init__()
        self.config = config.transport
        self.frozen = frozen
        lam = torch.tensor(config.transport.lam, dtype=torch.float64)
        self.register_buffer("lam", lam, persistent=False)
        self.register_buffer("marginal_error", torch.zeros(()), persistent=False)
        self.mixer = stage_mixer("features", width, n_labels, config)
        self.norm = nn.LayerNorm(width) if config.norm else nn.Identity()

    def forward(self, streams: Streams) -> Streams:
        assert streams.frames is not None  # `PCMCI.uses_frames` says so
        weights = streams.weights
        if not self.frozen:
            text, frames = asked(streams)
            weights, error = alignment(text, frames, self.config, lam=self.lam)
            # in place: where runs are stacked, this is a part of the stack's
            self.marginal_error.copy_(torch.maximum(self.marginal_error, error.max()))
        assert weights is not None  # PCMCI.forward sees to it
        h = proxy(weights, streams.frames)
        return dataclasses.replace(streams, text=self.norm(self.mixer(streams.text, h)))
