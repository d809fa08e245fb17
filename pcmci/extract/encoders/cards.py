"""What is known of each model before it is loaded: where its weights come from, what they cost, and
what they have seen. Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from pcmci.errors import WeightsError
from pcmci.extract.config import AUTO, DEFAULT_VIDEO_ENCODER, DEFAULT_VLM, OWN, SHIPPED, is_shipped


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


TEXTS, WEBLI = "images with texts (WIT)", "images with texts (WebLI)"
IN21K = "ImageNet-1k, ImageNet-21k"
TEXTS_129M = "images with texts (129 million)"
COCO = f"COCO's captions, {TEXTS_129M}"
APACHE, NC = "Apache-2.0", "CC-BY-NC-4.0"
BSD, UNKNOWN = "BSD-3-Clause", "unknown"
BLIP, BLIP2 = "Salesforce/blip-itm", "Salesforce/blip2-itm-vit-g"
DINOV2 = "timm/vit_base_patch14_reg4_dinov2.lvd142m"
MAMBA, F16 = "hf-hub:OpenGVLab/VideoMamba/videomamba_", "f16_res224.pth"
K400 = "Kinetics-400, ImageNet"
MASKED = "Kinetics-400, features of CLIP ViT-B-16"

CARDS: tuple[Card, ...] = (
    # kind, name, weights, licence, parameters, GFLOP a frame, frames a clip, trained on
    Card("vlm", *DEFAULT_VLM, "MIT", 149_620_737, 35.1, 1, TEXTS),
    Card("vlm", "ViT-L-14-quickgelu", "openai", "MIT", 427_616_513, 162.0, 1, TEXTS),
    Card("vlm", "ViT-B-16-SigLIP", "webli", APACHE, 203_155_970, 35.4, 1, WEBLI),
    Card("vlm", "ViT-B-16-SigLIP2", "webli", APACHE, 375_187_970, 35.4, 1, WEBLI),
    Card(
        "vlm", "PE-Core-B-16", "meta", APACHE, 447_660_545, 35.6, 1,
        "images with texts, videos with synthetic captions",
    ),
    Card("vlm", "blip-base", f"{BLIP}-base-coco", BSD, 195_375_872, 111.0, 1, COCO),
    Card("vlm", "blip-large", f"{BLIP}-large-coco", BSD, 413_041_664, 382.1, 1, COCO),
    Card("vlm", "blip2", BLIP2, UNKNOWN, 1_172_030_720, 533.5, 1, TEXTS_129M),
    Card("vlm", "blip2-queries", BLIP2, UNKNOWN, 1_172_030_720, 533.5, 1, TEXTS_129M),
    Card("vlm", "blip2-coco", f"{BLIP2}-coco", UNKNOWN, 1_172_622_080, 1458.1, 1, COCO),
    Card("vlm", "blip2-coco-queries", f"{BLIP2}-coco", UNKNOWN, 1_172_622_080, 1458.1, 1, COCO),
    Card("vlm", SHIPPED, OWN, "MIT", 1_518_361, 0.1, 1, "captioned frames of the kitchen world"),
    Card("video", *DEFAULT_VIDEO_ENCODER, NC, 121_258_752, 46.3, 8, K400),
    Card(
        "video", "timesformer-hr", "facebook/timesformer-hr-finetuned-k400", NC, 121_716_480,
        201.8, 16, K400,
    ),
    Card(
        "video", "timesformer-long", "TimeSformer_divST_96x4_224_K400.pyth", NC, 121_326_336,
        46.9, 96, K400, fetched=False,
    ),
    Card("video", SHIPPED, OWN, "MIT", 535_008, 0.1, 8, "atomic actions of the kitchen world"),
    Card(
        "video", "vit-tiny", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", APACHE, 5_524_416,
        2.5, 1, IN21K,
    ),
    Card(
        "video", "vit-small", "timm/vit_small_patch16_224.augreg_in21k_ft_in1k", APACHE,
        21_665_664, 9.2, 1, IN21K,
    ),
    Card(
        "video", "vit-base", "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k", APACHE,
        85_798_656, 35.1, 1, IN21K,
    ),
    Card(
        "video", "vit-large", "timm/vit_large_patch16_224.augreg_in21k_ft_in1k", APACHE,
        303_301_632, 123.1, 1, IN21K,
    ),
    Card("video", "dinov2-base", DINOV2, APACHE, 86_582_016, 304.2, 1, "images (LVD-142M)"),
    Card("video", "dinov2-base@224", DINOV2, APACHE, 85_727_232, 47.1, 1, "images (LVD-142M)"),
    Card(
        "video", "dinov3-base", "timm/vit_base_patch16_dinov3.lvd1689m", "DINOv3", 85_641_216,
        47.1, 1, "images (LVD-1689M)",
    ),
    Card("video", "videomamba-ti", f"{MAMBA}t16_k400_{F16}", APACHE, 6_958_080, 2.9, 16, K400),
    Card("video", "videomamba-s", f"{MAMBA}s16_k400_{F16}", APACHE, 25_417_728, 10.3, 16, K400),
    Card("video", "videomamba-m", f"{MAMBA}m16_k400_{F16}", APACHE, 73_649_664, 29.5, 16, K400),
    Card(
        "video", "videomamba-m", f"{MAMBA}m16_k400_mask_ft_f16_res224.pth", APACHE, 73_649_664,
        29.5, 16, MASKED,
    ),
    Card(
        "video", "videomamba-m", f"{MAMBA}m16_breakfast_mask_ft_f32_res224.pth", APACHE,
        73_658_880, 29.5, 32, f"Breakfast, {MASKED}", ("breakfast",),
    ),
    Card(
        "video", "videomamba-m", f"{MAMBA}m16_coin_mask_ft_f32_res224.pth", APACHE, 73_658_880,
        29.5, 32, f"COIN, {MASKED}", ("coin",),
    ),
    Card(
        "video", "x3d-s", "X3D_S.pyth of pytorchvideo's model zoo", "unknown", 2_974_674, 0.3, 16,
        "Kinetics-400 (clips of 13 frames)", fetched=False,
    ),
    Card(
        "video", "x3d-m", "X3D_M.pyth of pytorchvideo's model zoo", "unknown", 2_974_674, 0.6, 16,
        "Kinetics-400", fetched=False,
    ),
    Card(
        "video", "x3d-l", "X3D_L.pyth of pytorchvideo's model zoo", "unknown", 5_333_784, 2.3, 16,
        "Kinetics-400", fetched=False,
    ),
    Card(
        "video", "videomae-base", "MCG-NJU/videomae-base-finetuned-kinetics", NC, 86_227_200,
        22.5, 16, "Kinetics-400, first without labels",
    ),
    Card(
        "video", "vjepa2-large", "facebook/vjepa2-vitl-fpc64-256", "MIT", 303_885_312, 103.5,
        16, "videos without labels (VideoMix22M)",
    ),
)  # fmt: skip
"""The models that are known by name; any other of open_clip and timm runs too. Of several cards of
one name the first is meant where no weights are named."""


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
    if card is None and is_shipped(name):
        return OWN
    if card is None:
        return DEFAULT_VLM[1] if kind == "vlm" else AUTO
    if not card.fetched:
        flag = "--vlm-weights" if kind == "vlm" else "--video-weights"
        raise WeightsError(
            f"the weights of {name} have to be fetched by hand: give {flag} with the path of "
            f"{card.weights}, or random:0"
        )
    return card.weights


LABELLED = re.compile(r"videomamba_[tsm]16_(breakfast|coin)_")
"""How the names of files begin whose authors trained them on a benchmark's labels; the cards name
some of them."""


def labels_seen(weights: str) -> tuple[str, ...]:
    """Data sets whose own labels a checkpoint was trained on, as its file's name tells."""
    name = PurePath(weights).name
    if known := LABELLED.match(name):
        return (known[1],)
    return next(
        (
            card.labels_seen
            for card in CARDS
            if card.labels_seen and PurePath(card.weights).name == name
        ),
        (),
    )
