"""What the pipeline asks of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from pcmci.cache.schema import EncoderSpec
from pcmci.errors import UsageError


class Encoder(Protocol):
    """A frozen model from frames to vectors.

    spec: what the store records of it; `spec.tokens` vectors of `spec.width` a view.
    clip_frames: F, how many frames one forward pass takes together: 1 for an image model, the
        native length for a video model. A view's L frames are L / F clips, in order.
    clip_tokens: how many vectors a clip becomes: F where there is one a frame, 1 for an image
        model, F / 2 where two frames make one; `spec.tokens` is L / F times as many.
    libraries: distributions beside those of every extraction that its features pass through
        (`transformers`): their versions belong to the spec.
    """

    spec: EncoderSpec
    clip_frames: int
    clip_tokens: int
    libraries: tuple[str, ...]

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8, upright RGB, to [size, size, 3] uint8. Called from many threads."""
        ...

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """[B, F, size, size, 3] uint8 on the model's device to [B, clip_tokens, width] float32."""
        ...


class Vlm(Encoder, Protocol):
    """An encoder whose frames and texts lie in one space."""

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        """[N] prompts, N at least 1, to [N, width] float32.

        Raises UsageError for a prompt with more tokens than the model reads: it would be cut.
        """
        ...


def require_multiple(frames: int | None, native: int, name: str) -> int:
    """A view's frames, those of one clip for None. Raises UsageError unless they can be cut into
    clips of the native length."""
    if frames is None:
        return native
    if frames < 1 or frames % native:
        below = max(frames // native, 1) * native
        raise UsageError(
            f"{frames} frames cannot be cut into the clips of {native} that {name} takes: use a "
            f"multiple of {native}, such as {below} or {below + native}"
        )
    return frames
