"""A small store of made-up features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_up import made_up_store

from pcmci.cache.schema import LabelSet, VideoTable


def small_table(n: int = 60, classes: int = 3, steps: int = 5, seed: int = 0) -> VideoTable:
    """A third of the videos are for testing, four videos a person."""
    rng = np.random.default_rng(seed)
    activity = np.arange(n) % classes
    occurs = (rng.random((n, steps)) < 0.4).astype(np.uint8)
    if steps:
        occurs[np.arange(n), activity % steps] = 1
    return VideoTable(
        ids=tuple(f"v{i}" for i in range(n)),
        splits=tuple("test" if (i // 4) % 3 == 2 else "train" for i in range(n)),
        sessions=tuple(f"s{i // 2}" for i in range(n)),
        groups=tuple(f"p{i // 4}" for i in range(n)),
        activity=activity.astype(np.int32),
        steps=occurs,
    )


def names(kind: str, n: int, **extra) -> LabelSet:
    """`kind 0`, `kind 1`, ..."""
    words = tuple(f"{kind} {i}" for i in range(n))
    return LabelSet(words, words, "a video of {}", **extra)


def small_store(path: Path, **options) -> Path:
    """60 videos, 3 activities, 5 steps, 6 frames, widths 16 and 24."""
    sizes = {"frames": 6, "width": 16, "video_width": 24}
    return made_up_store(
        path, "small", names("activity", 3), names("step", 5), small_table(), **(sizes | options)
    )
