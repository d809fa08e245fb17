"""ICI: the codependency illusion, by relations between labels and a back-door adjustment."""

from __future__ import annotations

import dataclasses

from torch import nn

from pcmci.heads.config import ModelConfig
from pcmci.heads.method.mixing import stage_mixer
from pcmci.heads.method.relations import Relations
from pcmci.heads.method.streams import Streams


class ICI(nn.Module):
    """T* = [T', R(T')] W_I, mixing along the label axis. Rewrites the text."""

    def __init__(self, width: int, n_labels: int, config: ModelConfig) -> None:
        super().__init__()
        self.relations = Relations(width, config.relations)
        self.mixer = stage_mixer("labels", width, n_labels, config)
        self.norm = nn.LayerNorm(width) if config.norm else nn.Identity()

    def forward(self, streams: Streams) -> Streams:
        text = self.mixer(streams.text, self.relations(streams.text))
        return dataclasses.replace(streams, text=self.norm(text))
