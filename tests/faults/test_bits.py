"""A flipped byte anywhere in a store: named, refused, or of no consequence. Never silent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_up import made_up_store
from synthetic import names, small_table

from faults.conftest import content, harm, short_and_long
from pcmci.cache.formats.choose import file_format
from pcmci.cache.schema import Status
from pcmci.cache.store import open_store
from pcmci.cache.upkeep.repair import repair
from pcmci.cache.upkeep.verify import verify
from pcmci.cache.writing.writer import StoreWriter
from pcmci.errors import PcmciError, StoreError
from pcmci.extract.pipeline import extract
from pcmci.heads.training.run import train_heads

QUICK = {"epochs": 1, "relations": 4, "decoder_heads": 4, "feedforward": 24, "progress": False}
VIDEOS = 150


@pytest.fixture(scope="module", params=[".zarr", ".h5"])
def store(request, tmp_path_factory) -> Path:
    """Three chunks; two videos failed."""
    return made_up_store(
        tmp_path_factory.mktemp("bits") / f"store{request.param}", "small", names("activity", 3),
        names("step", 5), small_table(VIDEOS), frames=4, width=16, video_width=24, failed=(3, 70),
    )  # fmt: skip


def files(store: Path) -> list[Path]:
    return [store] if store.is_file() else sorted(p for p in store.rglob("*") if p.is_file())


def copies(store: Path, folder: Path, flips: int) -> Iterator[tuple[Path, str]]:
    """Copies of a store, each with one byte changed at a random place of all its bytes."""
    rng = np.random.default_rng(0)
    sizes = np.array([file.stat().st_size for file in files(store)])
    for turn in range(flips):
        copy = folder / f"{turn}{store.suffix}"
        shutil.copytree(store, copy) if store.is_dir() else shutil.copy(store, copy)
        at = int(rng.integers(sizes.sum()))
        which = int(np.searchsorted(sizes.cumsum(), at, side="right"))
        offset = at - int(sizes[:which].sum())
        file = files(copy)[which]
        raw = bytearray(file.read_bytes())
        raw[offset] ^= int(rng.integers(1, 256))
        file.write_bytes(raw)
        yield copy, f"{file.relative_to(copy) if copy.is_dir() else file.name}@{offset}"
        shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
        shutil.rmtree(f"{copy}.plans", ignore_errors=True)


@short_and_long("flips", 12, 200)
def test_no_flipped_byte_is_silent(store, tmp_path, flips, tally):
    expected = content(store)
    with open_store(store) as opened:
        trained = train_heads(opened, (), out=tmp_path / "whole", **QUICK).metrics
        spec, text = opened.spec, {n: opened.text(n).copy() for n in opened.spec.label_sets}
    for turn, (copy, where) in enumerate(copies(store, tmp_path, flips)):
        what = f"byte flipped in a {store.suffix}"
        try:
            damage = [d for d in verify(copy) if not d.harmless]
        except PcmciError as error:  # its structure: nothing can be opened any more
            assert "\n" not in str(error), where
            with pytest.raises(PcmciError), open_store(copy):
                pass
            tally(what, refused_whole=1)
            continue
        if not damage:
            assert content(copy) == expected, where
            tally(what, without_consequence=1)
            continue
        try:
            with open_store(copy) as opened:
                found = train_heads(opened, (), out=tmp_path / f"runs{turn}", **QUICK).metrics
            assert found == trained, where  # what is hurt is not what a training reads
        except StoreError as error:
            assert "\n" not in str(error), where
        try:
            repair(copy, spec, text.__getitem__)
        except StoreError as error:
            assert "make the store anew" in str(error), where
            tally(what, named_and_refused=1)
            continue
        fill(copy, store)
        assert content(copy) == expected, where
        assert harm(copy) == [], where
        if store.suffix == ".zarr":  # a chunk is a file: it is the one that is named
            array, _, chunk = where.partition("@")[0].rpartition("/")
            assert (array, int(chunk.split(".")[1])) in [(d.array, d.chunk) for d in damage], where
        tally(what, named_and_repaired=1)
    tally(f"byte flipped in a {store.suffix}", silent=0)


def fill(copy: Path, store: Path) -> None:
    """Compute what is pending again: here, copy it from the store that is whole."""
    with open_store(store) as source, StoreWriter(copy) as writer:
        for row in writer.pending:
            if source.status[row] == Status.DONE:
                one = np.array([row])
                writer.put(row, source.read("vlm", one)[0], source.read("video", one)[0])
            else:
                writer.fail(row, source.reasons[row])


@pytest.mark.parametrize("after", [*range(1, 12), None])
def test_a_repair_may_be_cut_off_and_mends_several_things(store, tmp_path, monkeypatch, after):
    """Two videos of one chunk in different arrays, and what stands beside them."""
    copy = tmp_path / f"copy{store.suffix}"
    shutil.copytree(store, copy) if store.is_dir() else shutil.copy(store, copy)
    expected = content(store)
    with open_store(store) as opened:
        spec, text = opened.spec, {n: opened.text(n).copy() for n in opened.spec.label_sets}
        marks = [opened.read(a, np.array([r])).tobytes() for a, r in (("vlm", 5), ("video", 7))]
    marks.append(b"made up")  # the reason of a video that failed, of the first chunk
    for mark in marks:
        file = next(f for f in files(copy) if mark in f.read_bytes())
        raw = bytearray(file.read_bytes())
        raw[raw.index(mark) + 1] ^= 1
        file.write_bytes(raw)
    kind = file_format(copy)
    write, calls = kind.write, []

    def cut_off(self, *arguments):
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt
        write(self, *arguments)

    monkeypatch.setattr(kind, "write", cut_off)
    if after is not None and after <= 4:
        with pytest.raises(KeyboardInterrupt):
            repair(copy, spec, text.__getitem__)
    else:
        repair(copy, spec, text.__getitem__)
    monkeypatch.undo()
    repair(copy, spec, text.__getitem__)
    assert harm(copy) == []
    fill(copy, store)
    assert content(copy) == expected
    assert harm(copy) == []


def test_a_repair_computes_the_hurt_videos_alone(dataset, config, whole, tmp_path, monkeypatch):
    copy = tmp_path / "store.zarr"
    shutil.copytree(whole, copy)
    with open_store(copy) as opened:
        row = opened.ids.index("film2")
        value = opened.read("vlm", np.array([row])).tobytes()
    (chunk,) = (file for file in files(copy) if value in file.read_bytes())
    raw = bytearray(chunk.read_bytes())
    raw[raw.index(value) + 5] ^= 1
    chunk.write_bytes(raw)
    (damage,) = [d for d in verify(copy) if not d.harmless]
    assert damage.ids == ("film2",)
    with pytest.raises(StoreError, match="videos hurt: film2"), open_store(copy) as opened:
        opened.read("vlm", opened.done_rows)
    summary = extract(dataset, copy, config, repair=True, progress=False)
    assert summary.videos == 1
    assert content(copy) == content(whole)
    assert extract(dataset, copy, config, repair=True, progress=False).videos == 0


@pytest.mark.parametrize("array", ["status", "reasons", "checksums", "text/activity"])
def test_what_stands_beside_the_features_is_repaired_too(dataset, config, whole, tmp_path, array):
    copy = tmp_path / "store.zarr"
    shutil.copytree(whole, copy)
    (chunk,) = (f for f in (copy / array).rglob("*") if f.is_file() and f.name != "zarr.json")
    raw = bytearray(chunk.read_bytes())
    raw[1] ^= 1
    chunk.write_bytes(raw)
    assert harm(copy)
    extract(dataset, copy, config, repair=True, progress=False)
    assert content(copy) == content(whole)
    assert harm(copy) == []
    with open_store(copy) as mended, open_store(whole) as original:
        np.testing.assert_array_equal(mended.text("activity"), original.text("activity"))


def test_a_damaged_table_cannot_be_repaired(dataset, config, whole, tmp_path, pcmci, tiny_videos):
    copy = tmp_path / "store.zarr"
    shutil.copytree(whole, copy)
    (chunk,) = (f for f in (copy / "videos").rglob("*") if f.is_file() and f.name != "zarr.json")
    raw = bytearray(chunk.read_bytes())
    raw[3] ^= 1
    chunk.write_bytes(raw)
    with pytest.raises(StoreError, match="cannot be repaired, make the store anew: --overwrite"):
        extract(dataset, copy, config, repair=True, progress=False)
