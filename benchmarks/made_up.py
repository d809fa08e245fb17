"""Stores of made-up features whose labels can be learned, on any label structure."""

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
from pcmci.cache.writing.writer import StoreWriter


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
    encoder: str = "made-up",
    labels_seen: tuple[str, ...] = (),
) -> Path:
    """Each frame of a video shows one of its labels' vectors under noise; the VLM's text
    embeddings are these vectors, the video encoder's are others. encoder: the latter's name."""
    rng = np.random.default_rng(seed)
    pre = Preprocessing(224, 224, "bicubic", (0.5,) * 3, (0.5,) * 3)
    spec = StoreSpec(
        dataset=dataset,
        activity=activity,
        steps=steps,
        sampling=Sampling(frames, views),
        vlm=EncoderSpec("made-up", "none", "0" * 64, frames, width, pre, parameters=1000),
        video=EncoderSpec(
            encoder, "none", "1" * 64, frames, video_width, pre, 500, labels_seen=labels_seen
        ),
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
    things = np.random.default_rng([seed, 1])
    for name, words in spec.texts.items():
        if name not in text:  # of entities
            text[name] = things.standard_normal((len(words), width), dtype=np.float32)
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
