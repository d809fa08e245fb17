"""The pace of the clips that video models were trained on; torch-free."""

from __future__ import annotations

from pcmci.errors import UsageError
from pcmci.extract.encoders.families import video_family

STRIDES = {
    "x3d": 5,
    "x3d-s": 6,
    "videomae": 4,
    "vjepa2": 4,
    "timesformer": 32,
    "timesformer-hr": 16,
    "timesformer-long": 4,
}
"""Frames at 30 a second between those of a clip in training, by a model's name or its family's."""


def stride_of(name: str) -> int | None:
    """Of a video encoder, None for one that was not trained on clips of a fixed pace. Raises
    WeightsError for a name of none."""
    return STRIDES.get(name, STRIDES.get(video_family(name)))


def native_stride(name: str) -> int:
    """Of a video encoder. Raises UsageError for one that was not trained on clips of a fixed
    pace: an image model, or VideoMamba, whose clips are whole videos."""
    stride = stride_of(name)
    if stride is None:
        raise UsageError(
            f"--windows dense is not for {name}: it was not trained on clips of a fixed pace, as "
            f"{', '.join(sorted({one.split('-')[0] for one in STRIDES}))} were; --windows uniform"
        )
    return stride
