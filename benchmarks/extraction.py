"""`pcmci extract` against the bare forward passes of the same frames, decoded already.

    python benchmarks/extraction.py --videos ../shared/data/videos    about five minutes on 2 cores

ViT-B/16 and TimeSformer-base with random weights (their values do not matter for the time), 16
frames a video. The bare passes run in this process, with no decoder beside them, at the batch size
that is best here. Both are timed in turns; the extraction is a process of its own, as a user
starts it, and tells what of its time was decoding, encoding and storing, and what was start.

"a video" leaves out what happens once however many videos there are: starting Python, loading
weights, encoding label texts, making the store. "once" is that, in seconds.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# As `pcmci extract` sets it: threads that spin would take the core that decodes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from claims import parser, publish, row
from clips import REAL, make_tree, readable_clips

from pcmci.cache.schema import Sampling
from pcmci.extract.config import ExtractConfig
from pcmci.extract.pair import Encoders
from pcmci.extract.video.decoding import Prepared, prepare_video

FULL = {"vlm": "ViT-B-16-quickgelu", "video_encoder": "timesformer-base"}
QUICK = {"vlm": "kitchen", "video_encoder": "timesformer-tiny"}
WEIGHTS = {"vlm_weights": "random:0", "video_weights": "random:0"}
BATCHES = (8, 16, 32)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--videos", type=Path, default=REAL, help="a folder of real clips")
    options.add_argument("--count", type=int, default=10, help="videos an extraction")
    options.add_argument("--repeats", type=int, default=3)
    args = options.parse_args()
    models = (QUICK if args.quick else FULL) | WEIGHTS
    count = 4 if args.quick else args.count
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = make_tree(readable_clips(args.videos), folder / "videos", count)
        encoders = Encoders.load(ExtractConfig(**models))
        decoded = [prepare_video(path, Sampling(16), encoders.inputs) for path in videos]
        clips = {key: np.concatenate([video[key] for video in decoded]) for key in encoders.inputs}
        best = best_batches(encoders, clips)
        bare = [forward(encoders, clips, best)]
        told, wall = [], []
        for _ in range(args.repeats):
            began = time.perf_counter()
            told.append(extract(folder, models))
            wall.append(time.perf_counter() - began)
            bare.append(forward(encoders, clips, best))
    beside = [(before + after) / 2 for before, after in itertools.pairwise(bare)]
    ours = np.array([one["seconds"] for one in told])
    waiting = np.median([one["waiting_seconds"] for one in told])
    once = np.array(wall) - ours
    a_video = np.median(ours) / count
    note = (
        f"{count} videos, {a_video:.2f} / {np.median(beside) / count:.2f} s a video, "
        f"{waiting / np.median(ours):.1%} waiting for frames; best batches: "
        + ", ".join(f"{best[key]} frames for {key}" for key in best)
    )
    worth = f"as long as {np.median(once) / a_video:.1f} videos"
    rows = [
        row("extraction", "a video / bare passes", ours / beside, aim="at most 1.05", note=note),
        row("extraction", "once: process, weights, store", once, unit="s", note=worth),
    ]
    publish(rows, args.json)


def best_batches(encoders: Encoders, clips: Prepared) -> dict[str, int]:
    """By encoder, frames a batch with the least time a frame."""
    best = {}
    for name, encoder in encoders.named.items():
        taken = {}
        for frames in BATCHES:
            size = max(1, frames // encoder.clip_frames)
            batch = torch.from_numpy(np.resize(clips[name], (size, *clips[name].shape[1:])))
            encoder.encode(batch)
            began = time.perf_counter()
            encoder.encode(batch)
            taken[frames] = (time.perf_counter() - began) / (size * encoder.clip_frames)
        best[name] = min(taken, key=taken.__getitem__)
    return best


def forward(encoders: Encoders, clips: Prepared, frames: dict[str, int]) -> float:
    """Seconds of all passes and nothing else."""
    taken = 0.0
    for name, encoder in encoders.named.items():
        batches = torch.from_numpy(clips[name]).split(max(1, frames[name] // encoder.clip_frames))
        began = time.perf_counter()
        for batch in batches:
            encoder.encode(batch)
        taken += time.perf_counter() - began
    return taken


def extract(folder: Path, models: dict[str, str]) -> dict[str, float]:
    """`pcmci extract` in a process of its own; its own account."""
    settings = [
        part for key, value in models.items() for part in (f"--{key.replace('_', '-')}", value)
    ]
    command = [
        sys.executable, "-m", "pcmci", "extract", "--dataset", "folder",
        "--videos", str(folder / "videos"), "--annotations", str(folder / "videos"),
        "--out", str(folder / "store.zarr"), "--overwrite", "--json", *settings,
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


if __name__ == "__main__":
    main()
