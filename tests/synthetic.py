"""Stores of made-up features whose labels can be learned, on real or small label structures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pcmci.cache.schema import (
    EncoderSpec,
    LabelSet,
    Preprocessing,
    Sampling,
    StoreSpec,
    VideoTable,
)
from pcmci.cache.store import create_store
from pcmci.cache.writer import StoreWriter


def made_up_store(
    path: Path,
    dataset: str,
    activity: LabelSet | None,
    steps: LabelSet | None,
    table: VideoTable,
    *,
    frames: int = 16,
    width: int = 512,
    video_width: int = 768,
    views: int = 1,
    failed: tuple[int, ...] = (),
    noise: float = 1.0,
    seed: int = 0,
) -> Path:
    """Each frame of a video shows one of its labels' vectors under noise; the VLM's text
    embeddings are these vectors, the video encoder's are others."""
    rng = np.random.default_rng(seed)
    pre = Preprocessing(224, 224, "bicubic", (0.5,) * 3, (0.5,) * 3)
    spec = StoreSpec(
        dataset=dataset,
        activity=activity,
        steps=steps,
        sampling=Sampling(frames, views),
        vlm=EncoderSpec("made-up", "none", "0" * 64, frames, width, pre, parameters=1000),
        video=EncoderSpec("made-up", "none", "1" * 64, frames, video_width, pre, parameters=500),
        precision="fp32",
        libraries={},
        videos_sha256=table.digest(),
    )
    shown = {}
    for name, size in (("vlm", width), ("video", video_width)):
        shown[name] = {
            labels: rng.standard_normal((len(spec.labels(labels)), size), dtype=np.float32)
            for labels in spec.label_sets
        }
    text = {labels: shown["vlm"][labels] for labels in spec.label_sets}
    create_store(path, spec, table, text)
    with StoreWriter(path, sync_seconds=60) as writer:
        for row in range(len(table)):
            if row in failed:
                writer.fail(row, "made up")
                continue
            features = {}
            for name, vectors in shown.items():
                size = width if name == "vlm" else video_width
                value = noise * rng.standard_normal((views, frames, size), dtype=np.float32)
                if activity is not None and table.activity[row] >= 0:
                    value += vectors["activity"][table.activity[row]]
                done = np.flatnonzero(table.steps[row])
                if steps is not None and len(done):
                    value += vectors["steps"][np.resize(done, frames)]
                features[name] = value
            writer.put(row, features["vlm"], features["video"])
    return path


def small_table(n: int = 60, classes: int = 3, steps: int = 5, seed: int = 0) -> VideoTable:
    """A third of the videos are for testing, four videos a person."""
    rng = np.random.default_rng(seed)
    activity = np.arange(n) % classes
    occurs = (rng.random((n, steps)) < 0.4).astype(np.uint8)
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
