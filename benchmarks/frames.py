"""Claim: 16 exact frames of a long video cost a fraction of decoding it whole, with equal pixels.

    python benchmarks/frames.py [--repeats 3]

Draws and encodes its videos, then reads 16 frames of each in turn with `iter_frames` and with what
a user would write instead, and prints the ratio of their times: the median over the repeats, ours
and theirs one right after the other. decord and torchcodec take part where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from pcmci.extract.frames import FrameReader, iter_frames, sample_indices

FRAMES = 16


@dataclass(frozen=True)
class Film:
    """A video to encode: `gop` frames from key frame to key frame."""

    title: str
    suffix: str
    codec: str
    seconds: int
    rate: int
    size: tuple[int, int]
    gop: int

    def write(self, folder: str) -> Path:
        path = Path(folder) / f"{self.title.replace(' ', '_')}{self.suffix}"
        width, height = self.size
        rng = np.random.default_rng(0)
        # Blotches that drift over each other, and a little noise.
        blotches = rng.integers(0, 256, (2, height // 8 * 2, width // 8 * 2, 3), np.uint8)
        layers = blotches.repeat(8, 1).repeat(8, 2)
        noise = rng.integers(0, 5, (8, height, width, 3), np.uint8)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(self.codec, rate=self.rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.gop_size = self.gop
            if self.codec == "libx264":
                stream.options = {"preset": "veryfast", "x264-params": f"min-keyint={self.gop}"}
            for k in range(self.seconds * self.rate):
                top, left = int(height / 2 * (1 + np.sin(k / 90))), k % width
                picture = layers[0, top : top + height, left : left + width] // 2
                picture += layers[1, :height, width - left : 2 * width - left] // 3
                picture += noise[k % 8]
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = k
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path


FILMS = (
    Film("5 min 320x240 15 fps h264 gop 250", ".mp4", "libx264", 300, 15, (320, 240), 250),
    Film("5 min 320x240 15 fps h264 gop 15", ".mp4", "libx264", 300, 15, (320, 240), 15),
    Film("3 min 640x360 30 fps h264 gop 250", ".mp4", "libx264", 180, 30, (640, 360), 250),
    Film("3 min 640x360 30 fps h264 gop 30", ".mp4", "libx264", 180, 30, (640, 360), 30),
    Film("5 min 320x240 15 fps mpeg4 gop 12", ".avi", "mpeg4", 300, 15, (320, 240), 12),
    Film("10 s 320x240 25 fps h264 one gop", ".mp4", "libx264", 10, 25, (320, 240), 250),
)


def ours(path: Path) -> list[np.ndarray]:
    return [frame for _, frame in iter_frames(path, FRAMES)]


def pyav(path: Path, threads: str) -> list[np.ndarray]:
    """Decode everything, keep what is wanted; the count is taken from the header, for free."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = threads
        if threads == "NONE":
            stream.codec_context.thread_count = 1
        wanted = set(sample_indices(stream.frames, FRAMES)[0].tolist())
        decoded = enumerate(container.decode(stream))
        return [frame.to_ndarray(format="rgb24") for k, frame in decoded if k in wanted]


def torchcodec(path: Path) -> list[np.ndarray]:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", seek_mode="exact")
    wanted = sample_indices(len(decoder), FRAMES)[0].tolist()
    return list(decoder.get_frames_at(wanted).data.numpy())


def decord(path: Path) -> list[np.ndarray]:
    from decord import VideoReader

    reader = VideoReader(str(path))
    return list(reader.get_batch(sample_indices(len(reader), FRAMES)[0].tolist()).asnumpy())


def rivals() -> dict[str, Callable[[Path], list[np.ndarray]]]:
    found: dict[str, Callable[[Path], list[np.ndarray]]] = {
        "PyAV, all threads": lambda path: pyav(path, "AUTO"),
        "PyAV, one thread": lambda path: pyav(path, "NONE"),
    }
    for name, function in (("torchcodec", torchcodec), ("decord", decord)):
        if importlib.util.find_spec(name):
            found[name] = function
    return found


def seconds(function: Callable[[Path], list[np.ndarray]], path: Path) -> float:
    start = time.perf_counter()
    function(path)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    against = rivals()
    print(f"PyAV {av.__version__}, {os.cpu_count()} cores, median of {repeats} paired runs\n")
    print(
        "| video | kbit/s | ours, ms | frames decoded |", *(f"ours / {name} |" for name in against)
    )
    print("|" + "---|" * (4 + len(against)))
    with tempfile.TemporaryDirectory() as folder:
        for film in FILMS:
            path = film.write(folder)
            for mine, theirs in zip(ours(path), pyav(path, "AUTO"), strict=True):
                assert np.array_equal(mine, theirs), f"{film.title}: pixels differ"
            reader = FrameReader(path)
            list(reader.read(lambda count: sample_indices(count, FRAMES)[0]))
            assert not reader.in_order
            times, ratios = [], {name: [] for name in against}
            for _ in range(repeats):
                for name, rival in against.items():
                    times.append(seconds(ours, path))
                    ratios[name].append(times[-1] / seconds(rival, path))
            share = reader.decoded / (film.seconds * film.rate)
            cells = (f"{np.median(ratios[name]):.2f} |" for name in against)
            rate = path.stat().st_size / film.seconds / 125
            print(
                f"| {film.title} | {rate:.0f} | {1000 * np.median(times):.0f} | {share:.0%} |",
                *cells,
            )


if __name__ == "__main__":
    main()
