"""What `pcmci store stats` says equals numpy on the whole array, and it finds planted copies."""

import dataclasses
import shutil
import tracemalloc
from fractions import Fraction

import av
import dask
import numpy as np
import pytest
from store_contract import contents, flip, make_spec, make_table, make_text

from pcmci.cache.schema import FEATURES, VideoTable
from pcmci.cache.store import StoreWriter, create_store, open_store
from pcmci.cache.upkeep import copies as copies_module
from pcmci.cache.upkeep.stats import store_stats
from pcmci.errors import StoreError
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets import load_dataset
from pcmci.extract.pipeline import extract

SPLITS = ("train", "train", "test", "val", "train", "test")


def table_of(splits):
    return dataclasses.replace(make_table(len(splits)), splits=tuple(splits))


def fill(path, splits, vlm, video, failed=(), chunk_rows=8):
    """A store of these features, [n, views, L, D] each."""
    table: VideoTable = table_of(splits)
    spec = make_spec(table, vlm.shape[1])
    sizes = {
        name: dataclasses.replace(getattr(spec, name), tokens=array.shape[2], width=array.shape[3])
        for name, array in (("vlm", vlm), ("video", video))
    }
    spec = dataclasses.replace(spec, **sizes)
    text = {
        name: np.ones((len(array), vlm.shape[3]), np.float32)
        for name, array in make_text(spec).items()
    }
    create_store(path, spec, table, text, chunk_rows=chunk_rows)
    with StoreWriter(path, sync_seconds=60) as writer:
        for row in range(len(table)):
            if row in failed:
                writer.fail(row, "made up")
            else:
                writer.put(row, vlm[row], video[row])
    return path


def some_features(n, views=2, frames=4, width=16, seed=0):
    """Videos that differ more than their frames do, all of them around one far vector."""
    rng = np.random.default_rng(seed)
    far = 5 * rng.standard_normal(width)
    videos = rng.standard_normal((n, 1, 1, width))
    return far + videos + 0.3 * rng.standard_normal((n, views, frames, width))


@pytest.fixture(params=[".zarr", ".h5"])
def path(request, tmp_path):
    return tmp_path / f"store{request.param}"


def test_the_numbers_are_numpys(path, monkeypatch):
    monkeypatch.setattr("pcmci.cache.upkeep.stats.BLOCK_BYTES", 1)
    monkeypatch.setattr("pcmci.cache.upkeep.stats.PIECE_BYTES", 1000)
    splits = [SPLITS[k % 6] for k in range(45)]
    scale = 1 + np.arange(45)[:, None, None, None]
    vlm, video = some_features(45) * scale, 300 * some_features(45, frames=7, width=24, seed=1)
    fill(path, splits, vlm, video, failed=(0, 8, 9, 44))
    with open_store(path) as store:
        found = store_stats(store).features
        assert [(one.encoder, one.split) for one in found] == [
            (encoder, split) for encoder in FEATURES for split in ("train", "test", "val")
        ]
        for one in found:
            whole = store.read(one.encoder, store.rows(one.split, done=True)).astype(np.float64)
            norms = np.linalg.norm(whole, axis=-1)
            expected = (whole.mean(), whole.std(), norms.mean(), norms.min(), norms.max())
            numbers = (one.mean, one.sd, one.norm, one.norm_min, one.norm_max)
            np.testing.assert_allclose(numbers, expected, rtol=1e-12)
            assert (one.videos, one.done) == (len(store.rows(one.split)), len(whole))
            assert (one.zero, one.still) == ((), ())


def test_half_precision_would_overflow(path):
    vlm = np.full((6, 1, 4, 16), 60000.0)
    vlm[:, :, :, 0] = -60000
    fill(path, SPLITS, vlm, vlm)
    with open_store(path) as store:
        one = store_stats(store).features[0]
    value = float(np.float16(60000))
    assert one.mean == value * 14 / 16
    assert one.norm == pytest.approx(4 * value, rel=1e-12)


def test_odd_videos_are_named(path):
    vlm, video = some_features(40), some_features(40, seed=1)
    splits = [SPLITS[k % 6] for k in range(40)]
    vlm[7] = vlm[7, 0, 0]  # a film without change
    vlm[8, 1, 2] = 0  # one token
    video[9] *= 3
    fill(path, splits, vlm, video)
    with open_store(path) as store:
        found = store_stats(store).features
        named = {
            (one.encoder, one.split, kind): getattr(one, kind)
            for one in found
            for kind in ("zero", "still", "unusual")
            if getattr(one, kind)
        }
        ids = store.ids
    assert named[("vlm", splits[7], "still")] == (ids[7],)
    assert named[("vlm", splits[8], "zero")] == (ids[8],)
    assert named[("video", splits[9], "unusual")] == (ids[9],)
    assert len(named) == 3


def test_one_token_a_video_is_no_still_film(path):
    fill(path, SPLITS, *(some_features(6, 1, 1, seed=k) for k in range(2)))
    with open_store(path) as store:
        assert not any(one.still for one in store_stats(store).features)


def test_planted_copies_are_found_and_nothing_else(path):
    n = 60
    rng = np.random.default_rng(3)
    arrays = [some_features(n), some_features(n, width=24, seed=1)]
    splits = [SPLITS[k % 6] for k in range(n)]
    of = {k: [row for row in range(n) if splits[row] == k] for k in ("train", "test", "val")}
    test, val, train = of["test"], of["val"], of["train"]
    planted = [(test[3], train[20], 0.0), (val[1], train[5], 0.02), (test[0], train[5], 0.1)]
    for array in arrays:
        for copy, original, noise in planted:
            array[copy] = array[original] + noise * rng.standard_normal(array[0].shape)
        array[train[6]] = array[train[5]]  # in train twice
        array[test[5]] = array[test[6]]  # in test twice: not asked for
    arrays[0][test[9]] = arrays[0][train[9]]  # like another to one encoder alone
    fill(path, splits, *arrays, failed=(train[29], test[10]))
    with open_store(path) as store:
        found = store_stats(store).copies
        ids, raw = store.ids, store.read("vlm", slice(20)).mean((1, 2), dtype=np.float32)
    assert [(p.id, p.split, p.train, p.among) for p in found.pairs] == [
        (ids[copy], splits[copy], ids[original], 2 if original == train[5] else 1)
        for copy, original, _ in planted
    ]
    first = found.pairs[0]
    assert first.alike == pytest.approx(1, abs=1e-6)
    assert all(p.alike == pytest.approx(min(p.vlm, p.video), abs=1e-6) for p in found.pairs)
    assert [(one.split, one.videos, one.copies) for one in found.compared] == [
        ("test", len(test) - 1, 2), ("val", len(val), 1)
    ]  # fmt: skip
    assert found.compared[0].median < 0.9
    # With the mean in them, the cosines of videos that have nothing in common are above 0.9.
    raw /= np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.median(raw @ raw.T) > 0.9


def test_blocks_of_cosines_are_put_together_right(monkeypatch):
    rng = np.random.default_rng(0)
    others, train = ([rng.standard_normal((m, 5)).astype("f4") for _ in "ab"] for m in (23, 31))
    train[0][20], train[1][20] = train[0][3], train[1][3]  # equally near: the first counts
    for array in (*others, *train):
        array /= np.linalg.norm(array, axis=1, keepdims=True)
    cosines = np.minimum(others[0] @ train[0].T, others[1] @ train[1].T)
    monkeypatch.setattr(copies_module, "TEST_ROWS", 5)
    monkeypatch.setattr(copies_module, "TRAIN_ROWS", 4)
    nearest, alike, among = copies_module._nearest(others, train, 0.3)
    assert nearest.tolist() == cosines.argmax(1).tolist()
    np.testing.assert_allclose(alike, cosines.max(1), rtol=1e-5)
    assert among.tolist() == (cosines >= 0.3).sum(1).tolist()
    assert 0 < among.sum() < among.size * 31


@pytest.mark.parametrize(
    ("splits", "failed", "says"),
    [
        (("test",) * 6, (), "no video of train"),
        (("train",) * 6, (), "no video but of train"),
        (SPLITS, (0, 1, 4), "no video of train"),
        (SPLITS, (2, 3, 5), "no video but of train"),
        (SPLITS, range(6), "no video of train"),
    ],
)
def test_nothing_to_compare(path, pcmci, splits, failed, says):
    fill(path, splits, some_features(6), some_features(6), failed)
    answer = pcmci("store", "stats", path)
    assert answer.code == 0, answer
    assert f"nothing to compare: {says} has features\n" in answer.out
    found = pcmci("store", "stats", path, "--json").json
    assert found["copies"]["compared"] == found["copies"]["pairs"] == []
    assert [one["mean"] is None for one in found["features"]] == [
        one["done"] == 0 for one in found["features"]
    ]


@pytest.fixture
def with_copies(path):
    """Three of ten test videos are in train: vidéo-2, -5 and -8 as vidéo-0, -1 and -6."""
    arrays = [some_features(30), some_features(30, seed=1)]
    for k, (copy, original) in enumerate(((2, 0), (5, 1), (8, 6))):
        for array in arrays:
            array[copy] = array[original] + 0.05 * k
    return fill(path, [SPLITS[k % 6] for k in range(30)], *arrays)


def test_what_the_command_prints(pcmci, with_copies):
    answer = pcmci("store", "stats", with_copies, "--top", 2)
    assert (answer.code, answer.err) == (0, "")
    listed = [line.split()[1:6:2] for line in answer.out.splitlines() if "│ vidéo-" in line]
    assert listed == [["vidéo-2", "test", "vidéo-0"], ["vidéo-5", "test", "vidéo-1"]]
    assert "1 pairs more: --top 3" in answer.out
    rows = [line.split("│") for line in answer.out.splitlines() if line.startswith("│ vlm")]
    assert [[cell.strip() for cell in row[1:5]] for row in rows] == [
        ["vlm", "train", "15", "15"], ["vlm", "test", "10", "10"], ["vlm", "val", "5", "5"]
    ]  # fmt: skip


def test_what_a_script_reads(pcmci, with_copies):
    answer = pcmci("store", "stats", with_copies, "--json")
    assert (answer.code, answer.err) == (0, "")
    found = answer.json
    assert found["store"] == str(with_copies)
    assert [(p["id"], p["train"]) for p in found["copies"]["pairs"]] == [
        ("vidéo-2", "vidéo-0"), ("vidéo-5", "vidéo-1"), ("vidéo-8", "vidéo-6")
    ]  # fmt: skip
    assert len(found["features"]) == 6
    all_pairs = pcmci("store", "stats", with_copies, "--json", "--above", -1, "--top", 100).json
    assert len(all_pairs["copies"]["pairs"]) == 15
    assert pcmci("store", "stats", with_copies, "--json", "--top", 0).json["copies"]["pairs"] == []


def test_odd_videos_are_a_line(pcmci, path):
    vlm = some_features(30)
    vlm[[0, 1, 4, 6, 7]] = 0
    fill(path, [SPLITS[k % 6] for k in range(30)], vlm, some_features(30))
    assert "vlm, train, zero: vidéo-0, vidéo-1, vidéo-4 and 2 more\n" in (
        pcmci("store", "stats", path).out
    )


def test_damage_is_one_line_that_names_the_video(pcmci, with_copies):
    with open_store(with_copies) as store:
        raw = store.read("video", [9]).tobytes()
    files = contents(with_copies).items()
    [(name, place)] = [(name, all_.index(raw)) for name, all_ in files if raw in all_]
    flip(with_copies / name, place)
    answer = pcmci("store", "stats", with_copies)
    assert answer.code == 1
    assert "chunk 1 of video" in answer.err
    assert "videos hurt: vidéo-9." in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    with open_store(with_copies) as store, pytest.raises(StoreError, match="vidéo-9"):
        store_stats(store)


def test_a_film_that_was_encoded_anew_is_found(tmp_path, shared_videos, tiny_encoders):
    films = tmp_path / "films"
    films.mkdir()
    rows = ["video,split,activity,steps"]
    for name in ("arm_wrestling.mp4", "flipping_a_pancake.mkv", "nasa_13013.mp4", "test.avi"):
        shutil.copyfile(shared_videos / name, films / name)
        rows.append(f"{name},train,x,")
    again = films / "again.mp4"
    encode_anew(films / "arm_wrestling.mp4", again)
    assert again.stat().st_size < (films / "arm_wrestling.mp4").stat().st_size / 3
    for name in ("v_GGSY1Qvo990.mp4", "vid1.mp4", "h265_video.mp4"):
        shutil.copyfile(shared_videos / name, films / name)
        rows.append(f"{name},test,x,")
    rows.append("again.mp4,test,x,")
    (films / "labels.csv").write_text("\n".join(rows) + "\n")
    path = tmp_path / "store.zarr"
    config = ExtractConfig(frames=8, **tiny_encoders)
    extract(load_dataset("folder", films), path, config, progress=False)
    with open_store(path) as store:
        found = store_stats(store).copies
    [pair] = found.pairs
    assert (pair.id, pair.train) == ("again", "arm_wrestling")
    assert pair.alike > 0.99
    [test] = found.compared
    assert (test.videos, test.copies) == (4, 1)
    assert test.median < 0.9


def encode_anew(source, target):
    """The same film at half the size and a low quality."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        rate = round(old.streams.video[0].average_rate)
        stream = new.add_stream("libx264", rate=rate, options={"crf": "32", "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        for k, frame in enumerate(old.decode(video=0)):
            width, height = frame.width // 4 * 2, frame.height // 4 * 2
            if k == 0:
                stream.width, stream.height = width, height
            small = frame.reformat(width=width, height=height, format="yuv420p")
            small.pts, small.time_base = k, Fraction(1, rate)
            new.mux(stream.encode(small))
        new.mux(stream.encode())


def test_a_store_larger_than_what_it_may_take(path):
    """320 MB of features; all that is live at a time is counted, numpy's memory too."""
    n, block = 2560, some_features(1, 1, 64, 512).astype(np.float16)
    features = np.broadcast_to(block, (n, 1, 64, 512))
    fill(path, [SPLITS[k % 6] for k in range(n)], features, features, chunk_rows=64)
    limit = 80 * 2**20
    with open_store(path) as store, dask.config.set(num_workers=2):
        store.to_dask("vlm")  # what is imported is not counted
        assert peak(lambda: store.read("vlm", slice(n // 2 + 1))) > limit
        assert peak(lambda: store_stats(store)) < limit


def peak(work):
    """Most bytes that were live at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
