"""A mediator a video: what of each label its own frames show, and nothing else of it.

The front door needs a mediator that the label's evidence passes through, that varies from video to
video, and that the confounder does not reach. The text, which IVC takes for it, is the same for all
videos, or after ICH holds their frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MEDIATOR = "mediator"
"""Its name among a head's voices."""


class Mediator(nn.Module):
    """M_n = pi_n present_n + (1 - pi_n) absent_n, pi_n the mean over frames of a label's posterior.

    The posteriors are of the label set that is learned, from the projected tokens: softmax over
    activities, a sigmoid a step. They learn from a loss of their own alone (`Mediator.forward`
    returns what it looks at): nothing but what is seen of the labels can pass.
    """

    def __init__(self, width: int, n_labels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.detect = nn.Linear(width, n_labels)
        self.present = nn.Parameter(torch.randn(n_labels, width))
        self.absent = nn.Parameter(torch.randn(n_labels, width))

    def forward(self, tokens: Tensor, *, one_label: bool) -> tuple[Tensor, Tensor]:
        """tokens: [B, Lv, D]. Returns M [B, N, D], and the logits of what it says by itself [B, N]:
        log mean_l exp of those of the frames, for a step may be seen in a few of them."""
        seen = self.detect(self.norm(tokens))
        alone = seen.logsumexp(1) - math.log(seen.shape[1])
        posterior = seen.softmax(-1) if one_label else seen.sigmoid()
        share = posterior.detach().mean(1)[..., None]
        return share * self.present + (1 - share) * self.absent, alone
