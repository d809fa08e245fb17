"""`--damaged frames`: of a damaged video what can be decoded, each frame its own or the nearest;
the store says how many are not their own."""

from __future__ import annotations

import dataclasses
import json
import os
import re

import numpy as np
import pytest
from films import hurt_packets, packets_of, with_edits
from store_contract import features, make_spec, make_table, make_text
from test_frames import EITHER, IN_ORDER, OPEN_GOP, SOUGHT, Film, reference

from pcmci.cache.replaced import replaced_frames, replaced_note
from pcmci.cache.schema import Status, StoreSpec
from pcmci.cache.store import create_store, open_store
from pcmci.cache.upkeep.convert import convert
from pcmci.cache.upkeep.repair import repair
from pcmci.cache.upkeep.verify import verify
from pcmci.cache.writing.writer import StoreWriter
from pcmci.errors import SpecMismatch, StoreError, UsageError, VideoError
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets import load_dataset
from pcmci.extract.pipeline import extract
from pcmci.extract.video.frames import FrameReader
from pcmci.extract.video.standins import nearest

FRAMES = 8
SHORT_GOPS = Film("mpeg4", count=60, gop=12, size=(48, 48))


def read(path, choose, mend=True):
    """Pictures by place, and the reader."""
    reader, found = FrameReader(path, mend), {}
    for places, frame in reader.read(choose):
        found |= dict.fromkeys(places.tolist(), frame)
    return found, reader


# Frames


@pytest.mark.parametrize(
    ("name", "film"),
    [
        ("film.avi", Film("mpeg4")),
        ("film.mp4", Film("mpeg4", b_frames=2)),
        ("b.avi", IN_ORDER["mpeg4_b.avi"]),
        ("b.mkv", IN_ORDER["mpeg4_b.mkv"]),
        ("open.mp4", Film(x264=OPEN_GOP)),
        ("open.mkv", SOUGHT["open_gop.mkv"]),
        ("motion.avi", SOUGHT["motion.avi"]),
        ("film.mkv", Film("ffv1", gop=1)),
        ("film.mov", Film("prores", pixels="yuv422p10le")),
        ("av1.mp4", Film("libsvtav1", options={"preset": "11"}, size=(128, 96), gop=12)),
    ],
)
@pytest.mark.parametrize("hurt", [[24], [29], [29, 31, 50], [59]])
def test_each_frame_is_its_own_or_the_nearest(name, film, hurt, tmp_path):
    whole = film.write(tmp_path / name)
    sizes = [len(data) for data, _ in packets_of(whole)]
    hurt = [
        max(range(k - 4, k + 1), key=sizes.__getitem__) for k in hurt
    ]  # AV1 has some of 3 bytes
    path = hurt_packets(whole, tmp_path / f"hurt_{name}", hurt)
    with pytest.raises(VideoError):
        read(path, np.arange, mend=False)
    expected = reference(whole)
    number = {picture.tobytes(): k for k, picture in enumerate(expected)}
    found, reader = read(path, np.arange)
    assert sorted(found) == list(range(60))
    taken = [number[found[k].tobytes()] for k in range(60)]  # nothing that was concealed
    own = {k for k in range(60) if taken[k] == k}
    assert reader.replaced == 60 - len(own) > 0
    assert reader.damage
    for k in range(60):
        assert taken[k] in own
        assert abs(taken[k] - k) == min(abs(other - k) for other in own)
    assert len(own) >= 60 - 26 * len(hurt)  # two GOPs at most, of twelve and a B-frame
    if film.gop == 1 or film.codec in ("mjpeg", "prores"):  # each frame is for itself
        assert own == set(range(60)) - set(hurt)


@pytest.mark.parametrize("name", ["film.avi", "film.mp4"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_what_follows_a_lost_first_frame_is_no_frame(name, b_frames, tmp_path):
    """MPEG-4's decoder predicts it from grey, and says nothing."""
    whole = Film("mpeg4", b_frames=b_frames).write(tmp_path / name)
    path = hurt_packets(whole, tmp_path / f"hurt_{name}", [0])
    with pytest.raises(VideoError):
        read(path, np.arange, mend=False)
    expected = reference(whole)
    found, reader = read(path, np.arange)
    # The B-frames before the second key frame need a frame that is lost.
    first = next(k for k in range(60) if found[k].tobytes() == expected[k].tobytes())
    assert first in (12, 13)
    for k in range(60):
        np.testing.assert_array_equal(found[k], expected[max(k, first)])
    assert reader.replaced == first


def test_frames_before_an_edit_lists_start_are_looked_at(tmp_path):
    whole = Film("mpeg4").write(tmp_path / "whole.mp4")
    edited = tmp_path / "edited.mp4"
    edited.write_bytes(with_edits(whole.read_bytes(), [(40, 5)]))
    path = hurt_packets(edited, tmp_path / "hurt.mp4", [20])
    expected = reference(edited)
    found, reader = read(path, np.arange)
    assert reader.replaced == 4  # 20 to 23, the fifteenth of those shown and what needs it
    for k in range(40):
        stands_in = {15: 14, 16: 14, 17: 19, 18: 19}.get(k, k)
        np.testing.assert_array_equal(found[k], expected[stands_in])


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4_b.mp4", "vp9.webm", "av1.mp4", "mpeg2.mpg"])
def test_what_is_not_damaged_is_as_without(name, tmp_path):
    path = (SOUGHT | EITHER)[name].write(tmp_path / name)
    (found, plain), (mended, other) = (read(path, np.arange, mend) for mend in (False, True))
    assert (other.replaced, other.damage, other.in_order) == (0, "", plain.in_order)
    assert other.decoded == plain.decoded
    for k in found:
        np.testing.assert_array_equal(mended[k], found[k])


def test_places_are_counted_not_frames(tmp_path):
    """Of those that were asked for, however often."""
    path = hurt_packets(SHORT_GOPS.write(tmp_path / "a.avi"), tmp_path / "hurt.avi", [30])
    _, reader = read(path, lambda count: np.array([5, 5, 32, 32, 32, 50]))
    assert reader.replaced == 3
    _, reader = read(path, lambda count: np.array([5, 50]))
    assert reader.replaced == 0  # decoding from key frames does not meet the damage
    assert reader.damage == ""


def test_of_two_that_are_as_near_the_earlier():
    order = [10, 11, 12, 13, 14]
    assert nearest(order, {10, 12, 14}, np.arange(5)).tolist() == [10, 10, 12, 12, 14]
    assert nearest(order, {14}, np.arange(5)).tolist() == [14] * 5


def test_a_video_without_a_frame_that_can_be_decoded_fails_as_without(tmp_path):
    film = Film("mpeg4", count=20, gop=100)
    path = hurt_packets(film.write(tmp_path / "a.avi"), tmp_path / "hurt.avi", [0])
    reasons = []
    for mend in (False, True):
        with pytest.raises(VideoError) as caught:
            read(path, np.arange, mend)
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]


def test_what_was_cut_off_fails_as_without(tmp_path):
    """It is not there to be replaced; the whole file may be had somewhere."""
    raw = Film("mpeg4", muxer={"movflags": "faststart"}).write(tmp_path / "a.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(raw[: len(raw) * 2 // 3])
    with pytest.raises(VideoError, match="cut off: "):
        read(path, np.arange)


def test_notes():
    note = replaced_note(3, 16, "decoding fails at 3.00 s: Invalid data")
    assert note == "3 of 16 frames replaced: decoding fails at 3.00 s: Invalid data"
    assert replaced_frames(note) == 3
    assert replaced_frames("") == replaced_frames("decoding fails at 3 of 16") == 0


# The store


@pytest.fixture
def spec():
    return dataclasses.replace(make_spec(make_table(12)), damaged="frames")


@pytest.fixture(params=[".zarr", ".h5"])
def store(request, spec, tmp_path):
    path = tmp_path / f"store{request.param}"
    create_store(path, spec, make_table(12), make_text(spec), chunk_rows=4)
    return path


NOTES = {1: replaced_note(2, 4, "damaged frame at 1.00 s"), 9: replaced_note(1, 4, "why")}


def fill(writer, rows):
    for row in rows:
        writer.put(row, *features(writer.spec, row), NOTES.get(row, ""))


def check_notes(path, rows):
    with open_store(path) as opened:
        assert opened.done_rows.tolist() == list(rows)
        assert {r: opened.reasons[r] for r in rows if opened.reasons[r]} == {
            row: note for row, note in NOTES.items() if row in rows
        }
        expected = [replaced_frames(NOTES.get(r, "")) * (r in rows) for r in range(12)]
        assert opened.replaced.tolist() == expected


def test_only_what_is_asked_for_is_in_the_spec():
    plain = make_spec(make_table(12))
    asked = dataclasses.replace(plain, damaged="frames")
    assert "damaged" not in json.loads(plain.to_json())
    assert json.loads(plain.to_json())["format_version"] == 1
    assert json.loads(asked.to_json())["format_version"] == 2  # an older program says: upgrade
    assert plain.fingerprint != asked.fingerprint
    for spec in (plain, asked):
        assert StoreSpec.from_json(spec.to_json()) == spec
    assert plain.differences(asked) == ["damaged: the store has 'fail', asked for 'frames'"]


def test_notes_are_kept_through_everything(store, tmp_path):
    with StoreWriter(store) as writer:
        fill(writer, [0, 1, 2])  # a chunk that is not complete
    check_notes(store, [0, 1, 2])
    with StoreWriter(store) as writer:
        fill(writer, [3, 8, 9])
    check_notes(store, [0, 1, 2, 3, 8, 9])
    with StoreWriter(store) as writer:
        writer.fail(4, "no video")
        writer.reset([2])
        fill(writer, [2, 5, 6, 7, 10, 11])
    check_notes(store, [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11])
    assert verify(store) == []
    other = tmp_path / ("copy.h5" if store.suffix == ".zarr" else "copy.zarr")
    convert(store, other)
    check_notes(other, [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11])


def test_notes_are_kept_through_a_kill(store):
    """In the journal, before anything is committed and after a part of a chunk was."""
    for rows in ([0, 1], [2, 3, 8, 9]):
        child = os.fork()
        if not child:
            try:
                fill(StoreWriter(store), rows)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    check_notes(store, [0, 1, 2, 3, 8, 9])


def test_what_was_replaced_is_not_forgotten_where_reasons_are_damaged(store, spec):
    """The videos themselves become pending: how many frames were replaced is not known any more."""
    with StoreWriter(store) as writer:
        fill(writer, range(12))
    with open_store(store) as opened:
        chunks, bad = opened.chunks, np.frombuffer(b"3 of", np.uint8)
        where = store / "reasons" / "c.0.0" if store.is_dir() else store
        offset = 200 if store.is_dir() else chunks._arrays["reasons"].offsets[0] + 200
    raw = bytearray(where.read_bytes())
    raw[offset : offset + 4] = bad.tobytes()
    where.write_bytes(raw)
    assert [damage.rows for damage in verify(store)] == [(0, 1, 2, 3)]
    texts = make_text(spec)
    repair(store, spec, lambda name: texts[name])
    check_notes(store, range(4, 12))


def test_a_store_that_takes_none_refuses_a_note(tmp_path):
    spec = make_spec(make_table(4))
    path = tmp_path / "store.zarr"
    create_store(path, spec, make_table(4), make_text(spec))
    with StoreWriter(path) as writer:
        with pytest.raises(StoreError, match="takes no damaged videos: vidéo-1"):
            fill(writer, [1])
        fill(writer, [0])


# An extraction


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Six films, two of them damaged, one that is none."""
    folder = tmp_path_factory.mktemp("films")
    rows = ["video,split,activity,steps"]
    for k in range(6):
        film = dataclasses.replace(SHORT_GOPS, count=40 + k)
        path = film.write(folder / f"film{k}.avi")
        if k in (1, 3):
            hurt_packets(path, path, [26 + k])
        split = "test" if k % 3 == 0 else "train"
        rows.append(
            f"{path.name},{split},{'tea' if k % 2 else 'coffee'},{'pour' if k % 3 else 'stir'}"
        )
    (folder / "none.avi").write_text("no film")
    (folder / "labels.csv").write_text("\n".join([*rows, "none.avi,train,tea,pour"]) + "\n")
    return folder


@pytest.fixture(scope="module")
def dataset(films):
    return load_dataset("folder", films)


@pytest.fixture(scope="module")
def config(tiny_encoders):
    return ExtractConfig(frames=FRAMES, **tiny_encoders)


@pytest.fixture(scope="module")
def taking(config):
    return dataclasses.replace(config, damaged="frames")


@pytest.fixture(scope="module")
def mended(dataset, taking, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "mended.zarr"
    return out, extract(dataset, out, taking, progress=False)


def content(path):
    with open_store(path) as opened:
        return opened.fingerprint, opened.content_digest, opened.reasons, opened.replaced.tolist()


def test_damaged_videos_are_done_and_counted(mended, dataset, config, tmp_path):
    out, summary = mended
    plain = tmp_path / "plain.zarr"
    lost = extract(dataset, plain, config, progress=False)
    assert set(lost.failures) == {"film1", "film3", "none"}
    assert lost.replaced == {}
    assert set(summary.failures) == {"none"}
    assert set(summary.replaced) == {"film1", "film3"}
    with open_store(out) as opened, open_store(plain) as other:
        for name in ("film1", "film3"):
            row = opened.ids.index(name)
            note = opened.reasons[row]
            assert note == summary.replaced[name]
            assert note == replaced_note(int(opened.replaced[row]), FRAMES, lost.failures[name])
            assert 0 < opened.replaced[row] < FRAMES
        assert (opened.replaced > 0).sum() == 2
        sound = other.done_rows
        for array in ("vlm", "video"):  # the others have the bits that they have without
            assert opened.read(array, sound).tobytes() == other.read(array, sound).tobytes()
        assert not other.replaced.any()
        assert (
            other.spec.to_json()
            == dataclasses.replace(opened.spec, damaged="fail", format_version=1).to_json()
        )


def test_a_resumed_extraction_ends_with_the_same(mended, dataset, taking, tmp_path):
    out, _ = mended
    part = tmp_path / "part.zarr"
    extract(dataset, part, taking, progress=False)
    with StoreWriter(part) as writer:
        writer.reset([0, 1])
    extract(dataset, part, taking, progress=False)
    assert content(part) == content(out)


def test_a_store_made_without_takes_damaged_videos_from_then_on(
    mended, dataset, config, taking, tmp_path, capsys
):
    """So that a few damaged videos do not cost the features of all the others."""
    out, _ = mended
    for suffix in (".zarr", ".h5"):
        store = tmp_path / f"store{suffix}"
        extract(dataset, store, config, progress=False)
        with open_store(store) as opened:
            before = {r: opened.read("vlm", [r]).tobytes() for r in opened.done_rows.tolist()}
        capsys.readouterr()
        summary = extract(dataset, store, taking, retry_failed=True, progress=False)
        assert summary.videos == 2  # no other was computed again
        assert "from now on it takes damaged videos too" in capsys.readouterr().err
        with open_store(store) as opened:
            for row, raw in before.items():
                assert opened.read("vlm", [row]).tobytes() == raw
        assert verify(store) == []
        assert content(store) == content(out)
        with pytest.raises(SpecMismatch, match="damaged: the store has 'frames', asked for 'fail'"):
            extract(dataset, store, config, progress=False)


def test_other_settings_do_not_change_the_store_they_do_not_fit(dataset, config, taking, tmp_path):
    store = tmp_path / "store.zarr"
    extract(dataset, store, config, progress=False)
    before = content(store)
    with pytest.raises(SpecMismatch, match=r"sampling\.frames"):
        extract(dataset, store, dataclasses.replace(taking, frames=16), progress=False)
    assert content(store) == before


# The commands


def test_what_a_reader_is_told(pcmci, films, tiny_encoders, tmp_path):
    store = tmp_path / "store.zarr"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in tiny_encoders.items()]
    command = ["extract", "--dataset", "folder", "--videos", films, "--out", store, *options]
    answer = pcmci(*command, "--frames", FRAMES, "--damaged", "frames")
    assert answer.code == 0, answer.err
    assert re.search(r"damaged: film1: \d of 8 frames replaced: d", answer.out)

    info = pcmci("store", "info", store, "--json").json
    assert info["damaged"]["videos with replaced frames"] == 2
    assert info["damaged"]["replaced frames"] >= 2
    assert info["format"] == 2
    assert "videos with replaced frames: 2" in pcmci("store", "info", store).out

    listed = pcmci("store", "failures", store)
    assert "done\ttest\tfilm3\t" in listed.out
    assert "failed\ttrain\tnone\t" in listed.out
    assert "videos with replaced frames: 2" in listed.err
    rows = pcmci("store", "failures", store, "--json").json
    assert [row["video"] for row in rows["replaced"]] == ["film1", "film3"]
    assert [row["video"] for row in rows["failures"]] == ["none"]

    quick = ["--epochs", 2, "--relations", 4, "--decoder-heads", 4, "--feedforward", 24]
    train = ["train-heads", "--features", store, "--order", "ich", "--out", tmp_path / "runs"]
    trained = pcmci(*train, *quick)
    assert trained.code == 0, trained.err
    assert "2 of 7 videos are damaged: " in trained.err
    assert ", 1 damaged" in trained.out
    again = pcmci(*train, *quick, "--json")
    scores = again.json["scores"]["test"]
    assert (scores["videos"], scores["coverage"], scores["with replaced frames"]) == (2, 1, 1)
    scored = pcmci("evaluate", again.json["run"], "--json").json["scores"]["test"]
    assert scored["with replaced frames"] == 1


def test_a_way_that_there_is_not(pcmci):
    with pytest.raises(UsageError, match="--damaged 'skip' must be fail or frames"):
        ExtractConfig(damaged="skip")
    answer = pcmci("extract", "--dataset", "folder", "--damaged", "skip")
    assert answer.code == 2
    assert answer.err.startswith("pcmci: --damaged 'skip' must be fail or frames")


def test_without_the_flag_nothing_is_said(pcmci, films, tiny_encoders, tmp_path):
    store = tmp_path / "store.zarr"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in tiny_encoders.items()]
    command = ["extract", "--dataset", "folder", "--videos", films, "--out", store, *options]
    answer = pcmci(*command, "--frames", FRAMES, "--json")
    assert "replaced" not in answer.json
    assert "damaged" not in pcmci("store", "info", store, "--json").json
    assert set(pcmci("store", "failures", store, "--json").json) == {"store", "failures"}
    with open_store(store) as opened:
        assert opened.counts[Status.FAILED] == 3
