"""Every choice of an extraction, with its default; torch-free, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pcmci.errors import UsageError


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class ExtractConfig:
    """What is computed (frames to precision, all of it part of the store's spec) and how."""

    frames: int = _option(16, "Frames a video, spread uniformly.")
    views: int = _option(1, "Temporally shifted samplings a video; view 0 is the uniform one.")
    vlm: str = _option("ViT-B-16-quickgelu", "An open_clip model, kitchen, or a JSON config.")
    vlm_weights: str = _option("openai", "An open_clip tag, a local file, or random:SEED.")
    video_encoder: str = _option(
        "timesformer-base", "timesformer-base, -hr, -long, -tiny, kitchen, or a JSON config."
    )
    video_weights: str = _option(
        "facebook/timesformer-base-finetuned-k400",
        "A hub id, a local folder, the authors' .pyth file, or random:SEED.",
    )
    precision: str = _option("auto", "fp32, bf16, or auto: bf16 on CUDA.")
    device: str = _option("auto", "auto, cpu, cuda or cuda:N.")
    batch_frames: int = _option(0, "Frames a forward pass; 0: 16 on a CPU, 256 on CUDA.")
    decode_threads: int = _option(0, "Videos decoded at a time; 0: 1 on a CPU, 8 for CUDA.")

    def __post_init__(self) -> None:
        for name, least in (
            ("frames", 1),
            ("views", 1),
            ("batch_frames", 0),
            ("decode_threads", 0),
        ):
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least {least}")
