"""A disk that is full, read-only or gone, and two writers at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from synthetic import small_store

from faults.conftest import content, harm, short_and_long
from pcmci.cache.store import open_store
from pcmci.cache.writing.writer import StoreWriter
from pcmci.errors import PcmciError
from pcmci.extract.pipeline import extract
from pcmci.heads.training.run import load_run, train_heads

QUICK = {"epochs": 1, "relations": 4, "decoder_heads": 4, "feedforward": 24, "progress": False}


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A small disk in memory: `disk("size=64k")` mounts it, and mounts it again otherwise."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        again = "remount," if mounted else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", str(place)],
            capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip("may not mount a disk here")
        mounted.append(options)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
@short_and_long("sizes", 3, 24)
def test_an_extraction_on_a_full_disk_goes_on_with_more(
    disk, dataset, config, whole, suffix, sizes, tally
):
    expected = content(whole)
    for size in [int(x) for x in (16 + 8 * k * 24 / sizes for k in range(sizes))]:
        place = disk(f"size={size}k")
        out = place / f"store{suffix}"
        full = False
        try:
            extract(dataset, out, config, progress=False)
        except (PcmciError, OSError) as error:
            full = True
            assert "\n" not in str(error)
            assert "space" in str(error).lower() or "write" in str(error).lower(), str(error)
        disk("size=64m")
        if out.exists():
            for name, video in content(out).items():
                assert video[0] == 0 or video == expected[name]
        extract(dataset, out, config, progress=False)
        assert content(out) == expected
        assert harm(out) == []
        tally(f"full disk under an extraction, {suffix}", **{
            "went on": int(full), "was large enough": int(not full), "videos lost": 0,
        })  # fmt: skip
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@short_and_long("sizes", 2, 10)
def test_a_training_on_a_full_disk_leaves_nothing_half(disk, tmp_path, sizes, tally):
    small = small_store(tmp_path / "small.h5")
    for size in [small.stat().st_size // 1024 + 8 + 120 * k // sizes for k in range(sizes)]:
        place = disk(f"size={size}k")
        shutil.copy(small, place / "small.h5")
        with open_store(place / "small.h5") as store:
            full = False
            try:
                train_heads(store, ("ich",), out=place / "runs", **QUICK)
            except (PcmciError, OSError) as error:
                full = True
                assert "space" in str(error) or "written" in str(error), repr(error)
            for folder in (place / "runs").glob("small_*"):
                load_run(folder)
            disk("size=64m")
            train_heads(store, ("ich",), out=place / "runs", **QUICK)
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        tally("full disk under train-heads", **{
            "left nothing half": int(full), "was large enough": int(not full),
        })  # fmt: skip


def test_a_read_only_disk_is_one_line(disk, pcmci, tiny_videos, config, whole, tmp_path):
    place = disk("size=64m")
    shutil.copytree(whole, place / "store.zarr")
    disk("ro")
    flags = ["--videos", tiny_videos, "--frames", 8, "--batch-frames", 16, "--vlm", config.vlm,
             "--vlm-weights", "random:0", "--video-encoder", "timesformer-tiny",
             "--video-weights", "random:0"]  # fmt: skip
    for out in ("new.zarr", "new.h5"):
        answer = pcmci("extract", "--dataset", "folder", "--out", place / out, *flags)
        assert answer.code in (1, 2)
        assert "ead-only" in answer.err.splitlines()[-1]
        assert "Traceback" not in answer.err
    answer = pcmci("train-heads", "--features", place / "store.zarr", "--out", place / "runs",
                   "--epochs", 1)  # fmt: skip
    assert answer.code == 2
    assert "ead-only" in answer.err.splitlines()[-1]
    # with the runs elsewhere it can be trained from, transport and all
    answer = pcmci("train-heads", "--features", place / "store.zarr", "--out", tmp_path / "runs",
                   "--epochs", 1, "--order", "ich", "--decoder-heads", 2)  # fmt: skip
    assert answer.code == 0
    assert list((tmp_path / "runs" / "plans").glob("*.npy"))


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_store_that_vanishes_is_one_line(dataset, config, tmp_path, monkeypatch, suffix):
    """Its folder is gone in the middle of an extraction."""
    folder = tmp_path / "mount"
    folder.mkdir()
    put, seen = StoreWriter.put, []

    def put_and_vanish(self, *arguments):
        put(self, *arguments)
        seen.append(1)
        if len(seen) == 2:
            shutil.rmtree(folder)

    monkeypatch.setattr(StoreWriter, "put", put_and_vanish)
    with pytest.raises((PcmciError, OSError)) as caught:
        extract(dataset, folder / f"store{suffix}", config, progress=False)
    assert "\n" not in str(caught.value)
    assert not folder.exists()  # nothing is written into what is not the mount any more


HOLD = """
import sys, time
from pcmci.cache.writing.writer import StoreWriter
with StoreWriter(sys.argv[1]):
    print("holds", flush=True)
    time.sleep(600)
"""


def test_a_second_extraction_is_refused_and_a_dead_one_holds_nobody_up(
    dataset, config, whole, tmp_path
):
    out = tmp_path / "store.zarr"
    shutil.copytree(whole, out)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"holds\n"
    with pytest.raises(PcmciError, match=str(holder.pid)):
        extract(dataset, out, config, retry_failed=True, progress=False)
    holder.kill()
    holder.wait()
    extract(dataset, out, config, retry_failed=True, progress=False)
    assert content(out) == content(whole)
