"""What the stages hand to each other, and the views of both encoders that any head may look at."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pcmci.heads.config import VIEWS


@dataclass(frozen=True)
class Others:
    """Other videos, for each of a batch. tokens: [P, Lv, D] of some videos, projected. which:
    [B, K] of these."""

    tokens: Tensor
    which: Tensor


@dataclass(frozen=True)
class Streams:
    """The text and the video as they stand, and the frozen view of the VLM.

    text: [B or 1, N, D] label embeddings; 1 as long as no stage has looked at the video.
    video: [B, M, D] tokens: M = Lv before ivc, M = N after it.
    frames: [B, L, D] the VLM's frames, projected and normalised; None where nothing looks.
    weights: [B, N, L] S~ of the frozen embeddings, or None where no stage wants it.
    aligned: [B, L, D] the frames that S is asked of, where they are not `frames` themselves: those
    may be centred, swapped or in their places, and what is said of a frame is no matter of that.
    mediator: M [B, N, D] of ivc, where it is not the text. others: the videos that its V' is of.
    precedence: [B, N, N] the order of the labels in the video, for an ici that looks at it.
    """

    text: Tensor
    video: Tensor
    frames: Tensor | None
    weights: Tensor | None
    aligned: Tensor | None = None
    mediator: Tensor | None = None
    others: Others | None = None
    precedence: Tensor | None = None


def centred(tokens: Tensor, share: float = 1.0) -> Tensor:
    """V_l - gamma mean_t V: what a video's tokens have in common, taken from each.

    tokens: [B, M, D]. share: gamma; at 1 only what changes is left, at 0 they stay as they are.
    """
    if share == 0:
        return tokens
    return tokens - share * tokens.mean(1, keepdim=True)


def view(name: str, vlm: Tensor, video: Tensor) -> Tensor:
    """One of `pcmci.heads.config.VIEWS`. vlm: [B, L, D]. video: [B, Lv, Dv]."""
    encoder, share = VIEWS[name]
    return centred({"vlm": vlm, "video": video}[encoder], share)
