"""Videos made at random, of every kind that can be made here: each shows what decoding it in order
does, whichever of its frames are asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from av.stream import Disposition
from films import Picture, drop_frames, hide_keys, split_frames, with_edits, write_streams
from test_frames import Film, assert_exact, reference

from faults.conftest import short_and_long

CONTAINERS = {
    "libx264": ("mp4", "mov", "mkv", "ts", "flv", "avi"),
    "libx265": ("mp4", "mkv", "ts"),
    "mpeg4": ("mp4", "mov", "mkv", "avi"),
    "mpeg2video": ("mp4", "mkv", "ts", "mpg"),
    "libvpx": ("webm", "avi"),
    "libvpx-vp9": ("webm", "mp4", "ivf"),
    "libsvtav1": ("mp4", "mkv"),
    "mjpeg": ("mov", "avi", "mkv"),
    "ffv1": ("mkv", "avi"),
    "prores": ("mov",),
}
EDITED = ("mp4", "mov")


@dataclass(frozen=True)
class Made:
    """One that was drawn. frames: how many it shows, where that can be said without decoding.
    what: in words, for whoever looks for a fault. size: of the film among several."""

    path: Path
    frames: int | None
    what: str
    size: tuple[int, int] | None = None


def drawn(seed: int, folder: Path) -> Made:
    """The same for the same seed."""
    rng = np.random.default_rng(seed)
    codec = list(CONTAINERS)[seed % len(CONTAINERS)]
    suffix = str(rng.choice(CONTAINERS[codec]))
    film = draw_film(codec, suffix, rng)
    path = folder / f"made{seed}.{suffix}"
    kinds = ["plain", "streams"]
    if suffix in EDITED:
        kinds += ["edits"] * 2
    if codec in ("mpeg4", "libvpx-vp9", "libsvtav1") and suffix not in ("webm", "mov"):
        kinds.append("hidden")
    kind = str(rng.choice(kinds))
    if kind == "streams" and suffix in ("mp4", "mov", "mkv", "avi", "ts"):
        return draw_streams(path, film, rng)
    whole = film.write(path)
    if kind == "edits" and b"elst" in whole.read_bytes():
        return draw_edits(whole, film, rng)
    if kind == "hidden":
        return draw_hidden(whole, film, rng)
    return Made(whole, film.count, f"{film}")


def draw_film(codec: str, suffix: str, rng: np.random.Generator) -> Film:
    gop, b_frames = int(rng.choice([1, 3, 12, 25, 100])), int(rng.integers(4))
    film = Film(codec, count=int(rng.integers(2, 50)), gop=gop)
    if codec in ("libx264", "libx265"):
        open_gop = int(rng.integers(2))
        x264 = f"keyint={gop}:bframes={b_frames}:open-gop={open_gop}:scenecut=0"
        film = replace(film, x264=x264)
    elif codec in ("mpeg4", "mpeg2video"):
        # In an AVI FFmpeg's muxer refuses times that go back.
        film = replace(film, b_frames=min(b_frames, 2) if gop > 3 else 0)
    elif codec == "libsvtav1":
        film = replace(film, size=(128, 96), options={"preset": "12"}, gop=max(gop, 3))
    elif codec in ("mjpeg", "prores"):
        film = replace(film, pixels={"mjpeg": "yuvj420p", "prores": "yuv422p10le"}[codec])
    if suffix in EDITED and rng.integers(2):
        turn = int(rng.choice([0, 90, 180, 270]))
        film = replace(film, orientation=(turn,))
    return film


def draw_streams(path: Path, film: Film, rng: np.random.Generator) -> Made:
    """Beside other streams, before or behind them: a cover, a smaller film, a sound."""
    film = replace(film, orientation=(), count=max(2, film.count))
    others: list[tuple[Film | Picture | str, Disposition | None]] = []
    if path.suffix in (".mp4", ".mov", ".mkv"):
        flag = rng.choice([None, Disposition.default, Disposition.attached_pic])
        others.append((Picture("mjpeg", (160, 120)), flag))
    if rng.integers(2):
        small = Film("mpeg4" if path.suffix != ".ts" else "mpeg2video", count=10, size=(32, 24))
        others.append((small, None))
    if rng.integers(2):
        others.append(("1", None))
    if film.codec == "libsvtav1":  # PyAV makes no stream after a decoder of dav1d
        others = []
    parts = [(film, Disposition.default), *others]
    rng.shuffle(parts := list(parts))
    flags = [flag for _, flag in parts]
    if not others:
        return Made(film.write(path), film.count, f"{film}")
    made = write_streams(path, *(part for part, _ in parts), flags=flags)
    return Made(made, film.count, f"{parts}", film.size)


def draw_edits(whole: Path, film: Film, rng: np.random.Generator) -> Made:
    """Pieces of the film in any order, perhaps after a while of nothing."""
    edits: list[tuple[int, int | None]] = [(3, None)] if rng.integers(2) else []
    for _ in range(int(rng.integers(1, 4))):
        start = int(rng.integers(film.count))
        edits.append((int(rng.integers(1, film.count - start + 1)), start))
    path = whole.with_name(f"edited_{whole.name}")
    path.write_bytes(with_edits(whole.read_bytes(), edits))
    frames = sum(count for count, start in edits if start is not None)
    # Leading pictures of HEVC are lost where an edit leads to their key frame.
    known = film.codec != "libx265" or len(edits) == 1
    return Made(path, frames if known else None, f"{film}, {edits}")


def draw_hidden(whole: Path, film: Film, rng: np.random.Generator) -> Made:
    path = whole.with_name(f"hidden_{whole.name}")
    if film.codec == "mpeg4":
        if film.b_frames:
            return Made(whole, film.count, f"{film}")
        chosen = set(rng.integers(1, film.count, int(rng.integers(1, 6))).tolist())
        drop_frames(whole, path, lambda k: k in chosen)
        left = film.count - len(chosen) + (film.count - 1 in chosen)
        return Made(path, left, f"{film}, without {sorted(chosen)}")
    if film.codec == "libvpx-vp9":
        plain = replace(film, options={"auto-alt-ref": "0", "lag-in-frames": "0"}, orientation=())
        hide_keys(plain.write(whole.with_suffix(".webm")), path, bool(rng.integers(2)))
        return Made(path, None, f"{film}, keys hidden")
    split_frames(whole, path.with_suffix(".mkv"))
    return Made(path.with_suffix(".mkv"), film.count, f"{film}, split")


@short_and_long("count", 12, 120)
def test_made_videos(count: int, tmp_path: Path, tally) -> None:
    kinds = {"by seeking": 0, "in order": 0}
    for seed in range(count):
        made = drawn(seed, tmp_path)
        try:
            expected = len(reference(made.path, size=made.size))
            reader = assert_exact(made.path, singles=3, same_way=False, size=made.size)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {made.what}: {error}") from error
        assert made.frames in (None, expected), f"seed {seed}: {made.what}"
        kinds["in order" if reader.in_order else "by seeking"] += 1
    tally("made videos", right=count, wrong=0)
    assert min(kinds.values()) > 0, kinds
