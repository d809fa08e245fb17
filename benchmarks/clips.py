"""Real clips for a benchmark, as many as it needs."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import av

from pcmci.errors import VideoError
from pcmci.extract.video.frames import iter_frames

REAL = Path(__file__).parents[2] / "shared" / "data" / "videos"
SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm")
LEAST_FRAMES = 48
"""A clip with fewer is no video that one would sample."""


def readable_clips(folder: Path) -> list[Path]:
    """The clips of a folder that decode without an error, long enough to be sampled.

    Raises SystemExit where there is none.
    """
    found = [path for path in sorted(folder.glob("*")) if path.suffix in SUFFIXES]
    good = [path for path in found if _frames(path) >= LEAST_FRAMES]
    if not good:
        raise SystemExit(f"no readable clips of {LEAST_FRAMES} frames in {folder}: give --videos")
    return good


def make_tree(clips: list[Path], folder: Path, count: int) -> list[Path]:
    """`count` videos in a folder: copies of the clips, in turns (links out of it are not read)."""
    folder.mkdir(parents=True)
    copies = []
    for number, clip in zip(range(count), itertools.cycle(clips), strict=False):
        copies.append(folder / f"{number:04d}{clip.suffix}")
        shutil.copyfile(clip, copies[-1])
    return copies


def _frames(path: Path) -> int:
    """0 where decoding fails."""
    try:
        list(iter_frames(path, 16))
        with av.open(str(path)) as container:
            return sum(1 for packet in container.demux(video=0) if packet.size)
    except (VideoError, av.FFmpegError):
        return 0
