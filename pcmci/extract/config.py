"""Every choice of an extraction, with its default; torch-free, so that `--help` is quick."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pcmci.cache.replaced import FAIL
from pcmci.cache.windows import UNIFORM, WINDOWS
from pcmci.errors import UsageError


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


DAMAGED = (FAIL, "frames")
"""What becomes of a video that cannot be decoded whole."""

SHIPPED = "kitchen"
"""The name of the tiny encoders that come with the package, and of the world they are made for."""

OWN = "own"
"""The weights that a model brings along."""

AUTO = "auto"

FOLDER = "local-dir:"
"""open_clip's prefix of a folder that holds a model's config and weights."""

DEFAULT_VLM = ("ViT-B-16-quickgelu", "openai")
DEFAULT_VIDEO_ENCODER = ("timesformer-base", "facebook/timesformer-base-finetuned-k400")


@dataclass(frozen=True)
class ExtractConfig:
    """What is computed (frames to precision, all of it part of the store's spec) and how."""

    frames: int = _option(16, "Frames a video, spread uniformly.")
    views: int = _option(1, "Temporally shifted samplings a video; view 0 is the uniform one.")
    vlm: str = _option(
        AUTO,
        "A model of pcmci encoders or any of open_clip, kitchen, or a JSON config; auto: "
        f"{DEFAULT_VLM[0]}, and the tiny kitchen for the kitchen world.",
    )
    vlm_weights: str = _option(
        AUTO,
        "An open_clip tag, a local file, a BLIP's folder or hub id, own (what the model brings "
        "along), or random:SEED; auto: those that pcmci encoders names.",
    )
    video_encoder: str = _option(
        AUTO,
        "A model of pcmci encoders, timm:NAME, kitchen, or a JSON config; auto: "
        f"{DEFAULT_VIDEO_ENCODER[0]}, and kitchen for the kitchen world.",
    )
    video_weights: str = _option(
        AUTO,
        "A hub id, a local folder, a checkpoint, own (what the model brings along), or "
        "random:SEED; auto: those that pcmci encoders names.",
    )
    windows: str = _option(
        UNIFORM,
        "What a video model's clips are: a view's frames, cut up (uniform), or around each of them "
        "a clip as the model was trained on, a few seconds long (dense).",
    )
    precision: str = _option("auto", "fp32, bf16, or auto: bf16 on CUDA.")
    device: str = _option("auto", "auto, cpu, cuda or cuda:N.")
    batch_frames: int = _option(0, "Frames a forward pass; 0: 8 on a CPU, 256 on CUDA.")
    decode_threads: int = _option(0, "Videos decoded at a time; 0: 1 on a CPU, 8 for CUDA.")
    decode_seconds: int = _option(
        300, "Seconds that decoding one video may take; one that takes longer has failed."
    )
    entities: str = _option(
        "",
        "A file of nouns, one a line: those that stand in the labels' texts are embedded beside "
        "them, for --head two-stream.",
    )
    damaged: str = _option(
        FAIL,
        "fail, or frames: the nearest frame that can be decoded stands in for each that cannot; "
        "the store counts them.",
    )

    def __post_init__(self) -> None:
        if self.damaged not in DAMAGED:
            raise UsageError(f"--damaged {self.damaged!r} must be {' or '.join(DAMAGED)}")
        if self.windows not in WINDOWS:
            raise UsageError(f"--windows {self.windows!r} must be {' or '.join(WINDOWS)}")
        for name, least in (
            ("frames", 1),
            ("views", 1),
            ("batch_frames", 0),
            ("decode_threads", 0),
            ("decode_seconds", 1),
        ):
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least {least}")

    def resolved(self, dataset: str) -> ExtractConfig:
        """The same with both encoders named: what `auto` stands for on a data set, and files by
        their whole paths, so that they are found from another folder too."""
        vlm = _chosen(self.vlm, self.vlm_weights, DEFAULT_VLM, dataset)
        video = _chosen(self.video_encoder, self.video_weights, DEFAULT_VIDEO_ENCODER, dataset)
        return dataclasses.replace(
            self,
            vlm=_whole(vlm[0]), vlm_weights=_whole(vlm[1]),
            video_encoder=_whole(video[0]), video_weights=_whole(video[1]),
        )  # fmt: skip


def is_shipped(name: str) -> bool:
    """Whether a model is one of the tiny ones: `kitchen`, or `kitchen:h0`, pretrained otherwise."""
    return name.partition(":")[0] == SHIPPED


def _chosen(name: str, weights: str, default: tuple[str, str], dataset: str) -> tuple[str, str]:
    """A model and its weights; those of a model that is no default's are left to its card."""
    if name == AUTO:
        name = SHIPPED if dataset == SHIPPED else default[0]
    if weights == AUTO and (is_shipped(name) or name == default[0]):
        weights = OWN if is_shipped(name) else default[1]
    return name, weights


def _whole(text: str) -> str:
    """A name or weights; the path of a file, or of a folder as `local-dir:` has it, absolute."""
    if text.startswith(FOLDER):
        return FOLDER + os.path.abspath(text.removeprefix(FOLDER))
    is_folder = os.sep in text and Path(text).is_dir()
    if text.endswith(".json") or is_folder or (Path(text).suffix and Path(text).is_file()):
        return os.path.abspath(text)
    return text
