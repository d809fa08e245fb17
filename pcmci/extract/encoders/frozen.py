"""What the frozen encoders have in common, and what a store records of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from pcmci.cache.schema import EncoderSpec, Preprocessing
from pcmci.extract.encoders.cards import labels_seen
from pcmci.extract.encoders.normalise import Normalise
from pcmci.extract.encoders.preprocess import resize_and_crop
from pcmci.extract.encoders.weights import state_dict_sha256


class FrozenEncoder:
    """A module on its device, and how its frames are made: of `pcmci.extract.encoders.protocol` all
    but `encode`."""

    libraries: tuple[str, ...] = ()

    def __init__(
        self,
        model: nn.Module,
        spec: EncoderSpec,
        device: torch.device,
        precision: str,
        *,
        clip_frames: int = 1,
        clip_tokens: int | None = None,
    ) -> None:
        """clip_tokens: one a frame, where it is not said."""
        self.spec = spec
        self.clip_frames = clip_frames
        self.clip_tokens = clip_frames if clip_tokens is None else clip_tokens
        self.device = device
        self.precision = precision
        self._model: Any = model.requires_grad_(False).eval().to(device)
        self._normalise = Normalise(spec.preprocessing, clip_frames).to(device)

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8, upright RGB, to [S, S, 3] uint8."""
        return resize_and_crop(frame, self.spec.preprocessing)


def spec_of(
    name: str,
    weights: str,
    state: Mapping[str, torch.Tensor],
    *,
    tokens: int,
    width: int,
    preprocessing: Preprocessing,
    parameters: Iterable[torch.Tensor] | None = None,
) -> EncoderSpec:
    """state: what the digest is of. parameters: which tensors are counted, by default all of it."""
    counted = state.values() if parameters is None else parameters
    return EncoderSpec(
        name=name,
        weights=weights,
        sha256=state_dict_sha256(dict(state)),
        tokens=tokens,
        width=width,
        preprocessing=preprocessing,
        parameters=sum(tensor.numel() for tensor in counted),
        labels_seen=labels_seen(weights),
    )
