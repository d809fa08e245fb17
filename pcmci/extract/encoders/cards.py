"""What is known of each model before it is loaded: where its weights come from, what they cost, and
what they have seen. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from pcmci.errors import WeightsError
from pcmci.extract.config import AUTO, DEFAULT_VIDEO_ENCODER, DEFAULT_VLM


@dataclass(frozen=True)
class Card:
    """A model and the weights that are meant where no others are named.

    kind: `vlm` or `video`.
    name: as `--vlm` or `--video-encoder` takes it.
    weights: their source, as `--vlm-weights` or `--video-weights` takes it; where pcmci does not
        fetch them (`fetched`), the name of the file and where it lies.
    licence: of the weights, "unknown" where their authors name none.
    parameters: of the encoder as features need it, without a classifier; of a VLM with its text
        tower.
    gflops: 10^9 floating point operations a frame of the image or video tower, a multiplication and
        an addition being two; of a video model a clip's share.
    clip_frames: F, frames of a clip.
    trained_on: what the weights were trained on, the last first.
    labels_seen: data sets of this program whose labels that was, see `EncoderSpec.labels_seen`.
    """

    kind: str
    name: str
    weights: str
    licence: str
    parameters: int
    gflops: float
    clip_frames: int
    trained_on: str
    labels_seen: tuple[str, ...] = ()
    fetched: bool = True


CARDS: tuple[Card, ...] = (
    Card("vlm", *DEFAULT_VLM, "MIT", 149_620_736, 35.1, 1, "WIT: 400 M images with their texts"),
    Card(
        "video",
        *DEFAULT_VIDEO_ENCODER,
        "CC-BY-NC-4.0",
        121_258_752,
        49.1,
        8,
        "Kinetics-400, ImageNet-21k",
    ),
)
"""The models that are known by name; any other of open_clip and timm runs too."""


def card_of(kind: str, name: str) -> Card | None:
    """None for a model that has none."""
    return next((card for card in CARDS if (card.kind, card.name) == (kind, name)), None)


def default_weights(kind: str, name: str, weights: str) -> str:
    """`weights`, or where they are `auto` what the model's card names; still `auto` for a video
    encoder without a card, the tag of the default VLM for a VLM without one.

    Raises WeightsError for a model whose weights have to be fetched by hand.
    """
    if weights != AUTO:
        return weights
    card = card_of(kind, name)
    if card is None:
        return DEFAULT_VLM[1] if kind == "vlm" else AUTO
    if not card.fetched:
        flag = "--vlm-weights" if kind == "vlm" else "--video-weights"
        raise WeightsError(
            f"the weights of {name} have to be fetched by hand: give {flag} with the path of "
            f"{card.weights}, or random:0"
        )
    return card.weights


def labels_seen(weights: str) -> tuple[str, ...]:
    """Data sets whose own labels a checkpoint was trained on, as its file's name tells."""
    name = PurePath(weights).name
    return next(
        (
            card.labels_seen
            for card in CARDS
            if card.labels_seen and PurePath(card.weights).name == name
        ),
        (),
    )
