"""Videos from strangers: each is done or failed with its reason, and hurts nobody else."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import write_video

from faults.conftest import content, short_and_long
from pcmci.cache.schema import Preprocessing, Sampling
from pcmci.errors import VideoError
from pcmci.extract.datasets import load_dataset
from pcmci.extract.pipeline import extract
from pcmci.extract.video import decoding
from pcmci.extract.video.decoding import Decoder, Input, prepare_video

SAMPLING = Sampling(8, 1)
INPUTS = {"vlm": Input(Preprocessing(32, 32, "bicubic", (0.5,) * 3, (0.5,) * 3), 1)}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.mp4"
    write_video(path, frames=24, seed=5)
    return path


def flipped(raw: bytes, rng: np.random.Generator) -> bytes:
    found = bytearray(raw)
    for at in rng.integers(0, len(raw), int(rng.integers(1, 20))):
        found[at] ^= int(rng.integers(1, 256))
    return bytes(found)


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)


def odd_times(path: Path, times: list[int], size: int = 48) -> None:
    """A film whose frames are shown at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        rng = np.random.default_rng(0)
        for time in times:
            picture = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = time
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def huge_header(path: Path) -> None:
    """A film of JPEGs that say 10,000 x 10,000."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height = 48, 32
        stream.pix_fmt = "yuvj420p"
        for k in range(10):
            picture = np.full((32, 48, 3), 20 * k, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    raw = path.read_bytes()
    said, claims = struct.pack(">HH", 32, 48), struct.pack(">HH", 10_000, 10_000)
    start = b"\xff\xc0\x00\x11\x08"  # a frame's header: its length, its precision, its size
    assert start + said in raw
    raw = raw.replace(start + said, start + claims)
    path.write_bytes(raw.replace(struct.pack("<ii", 48, 32), struct.pack("<ii", 10_000, 10_000)))


def mutants(folder: Path, good: Path, count: int) -> list[str]:
    """Names of `count` files, of every kind, the first few one of each."""
    rng = np.random.default_rng(0)
    raw = good.read_bytes()
    once = {
        "empty.mp4": lambda path: path.write_bytes(b""),
        "page.mp4": lambda path: path.write_text("<html><video src='x'></html>"),
        "suffix.avi": lambda path: path.write_bytes(raw),
        "audio.mp4": audio_only,
        "one.mp4": lambda path: write_video(path, frames=1, seed=0),
        "huge.avi": huge_header,
        "variable.mp4": lambda path: odd_times(path, [0, 1, 2, 50, 51, 400, 401, 402, 403, 900]),
        "negative.mkv": lambda path: odd_times(path, list(range(-20, 10))),
        "picture.mp4": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200)),
        "text.mkv": lambda path: path.write_text("#EXTM3U\nfile:///etc/passwd\n"),
        "zeros.webm": lambda path: path.write_bytes(bytes(5000)),
    }
    made = []
    for name, make in once.items():
        make(folder / name)
        made.append(name)
    kinds = ("flip", "cut", "noise", "splice")
    while len(made) < count:
        name = f"{kinds[len(made) % 4]}{len(made)}.mp4"
        if name.startswith("flip"):
            mutant = flipped(raw, rng)
        elif name.startswith("cut"):
            mutant = raw[: int(rng.integers(1, len(raw)))]
        elif name.startswith("noise"):
            mutant = raw[:64] + rng.bytes(int(rng.integers(1, 4000)))
        else:
            a, b = sorted(rng.integers(0, len(raw), 2))
            mutant = raw[:a] + raw[b:] + raw[a:b]
        (folder / name).write_bytes(mutant)
        made.append(name)
    return made


@short_and_long("count", 40, 1000)
def test_mutants_through_an_extraction(good, config, tiny_videos, tmp_path, whole, count, tally):
    folder = tmp_path / "films"
    folder.mkdir()
    names = mutants(folder, good, count)
    rows = ["video,split,activity,steps"]
    films = [f"film{k}.mp4" for k in range(8)]
    for k, name in enumerate(names):
        if k % max(1, count // 8) == 0 and films:  # good ones between them
            film = films.pop()
            shutil.copy(tiny_videos / film, folder / film)
            rows.append(f"{film},train,tea,pour")
        rows.append(f"{name},{'test' if k % 2 else 'train'},coffee,open")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "store.zarr"
    summary = extract(load_dataset("folder", folder), out, config, progress=False)
    expected, found = content(whole), content(out)
    for name in sorted(set(found) & set(expected)):
        assert found[name] == expected[name]
    assert len(set(found) & set(expected)) == 8 - len(films)
    done = failed = 0
    for name in names:
        status, reason, *_ = found[Path(name).stem]
        assert status in (1, 2), name
        assert (status == 2) == bool(reason), name
        done, failed = done + (status == 1), failed + (status == 2)
    assert len(summary.failures) == failed
    for name in ("empty", "page", "audio", "huge", "picture", "text", "zeros"):
        assert found[name][0] == 2, name
    for name in ("one", "variable", "suffix"):
        assert found[name][0] == 1, (name, found[name][1])
    tally("hostile videos", failed_with_their_reason=failed, done=done, crashed=0)
    tally("good videos among them", unharmed=8 - len(films), changed=0)


def test_a_decoder_that_takes_too_long_is_stopped(good):
    decoder = Decoder(SAMPLING, INPUTS, seconds=0)
    with pytest.raises(VideoError, match="decoding takes longer than 0 s"):
        decoder.prepare(good)
    decoder._seconds = 600
    found = decoder.prepare(good)  # the next one is none the worse
    np.testing.assert_array_equal(found["vlm"], prepare_video(good, SAMPLING, INPUTS)["vlm"])
    decoder.close()


def test_a_decoder_that_crashes_is_tried_once_more(good):
    decoder = Decoder(SAMPLING, INPUTS, seconds=600)
    expected = decoder.prepare(good)
    decoder._process.kill()
    np.testing.assert_array_equal(decoder.prepare(good)["vlm"], expected["vlm"])
    decoder.close()


def test_a_file_that_crashes_the_decoder_fails_with_its_reason(good, monkeypatch, tmp_path):
    """Twice, each time in a process of its own."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "from pcmci.extract.video.frames import FrameReader\n"
        "real = FrameReader.read\n"
        "def crash(self, choose):\n"
        "    if 'evil' in str(self.path): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return real(self, choose)\n"
        "FrameReader.read = crash\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    evil = tmp_path / "evil.mp4"
    shutil.copy(good, evil)
    decoder = Decoder(SAMPLING, INPUTS, seconds=600)
    with pytest.raises(VideoError, match="the decoder crashed on it: SIGSEGV"):
        decoder.prepare(evil)
    assert decoder.prepare(good)["vlm"].shape == (8, 1, 32, 32, 3)
    decoder.close()


def test_a_decoder_has_its_share_of_memory_and_no_more(tmp_path):
    large = tmp_path / "large.mp4"
    odd_times(large, list(range(3)), size=2048)
    decoder = Decoder(SAMPLING, INPUTS, seconds=600, memory=2**20)
    with pytest.raises(VideoError, match=r"memory|GiB"):
        decoder.prepare(large)
    decoder.close()
    assert prepare_video(large, SAMPLING, INPUTS)["vlm"].shape == (8, 1, 32, 32, 3)


def test_decoders_end_with_the_extraction(config, dataset, tmp_path):
    psutil = pytest.importorskip("psutil")
    extract(dataset, tmp_path / "store.zarr", config, progress=False)
    mine = psutil.Process().children(recursive=True)
    assert not [p for p in mine if "pcmci.extract.video.decoding" in " ".join(p.cmdline())]


def test_decoding_loads_no_torch():
    import subprocess
    import sys

    code = f"import sys, {decoding.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
