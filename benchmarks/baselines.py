"""What a reviewer would ask to see beside the method, from the same cached features.

Zero-shot CLIP, a linear layer and an MLP are heads of the program; here is how wide a decoder
without stages has to be to have as many parameters as one with all three.
"""

from __future__ import annotations

import numpy as np

from pcmci.heads.config import STAGES, ModelConfig
from pcmci.heads.training.fit import build_model

ZERO_SHOT = "zero-shot CLIP"
"""Its logits are cosines: they rank, but no probability comes from them."""

BASELINES = {
    ZERO_SHOT: "zero-shot",
    "linear layer on the means of both": "linear",
    "MLP on the means of both": "mlp",
}
"""Row -> head."""


def as_many_parameters(text: np.ndarray, video_width: int, feedforward: int) -> int:
    """The feed-forward width at which a model without stages has as many parameters as one with
    all three has at `feedforward`. text: [N, D]."""

    def parameters(order: tuple[str, ...], width: int) -> int:
        config = ModelConfig(order=order, feedforward=width)
        return build_model(config, text, video_width, seed=0).trained_parameters()

    missing = parameters(STAGES, feedforward) - parameters((), feedforward)
    each = parameters((), feedforward + 1) - parameters((), feedforward)
    return feedforward + round(missing / each)
