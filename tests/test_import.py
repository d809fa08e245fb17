"""Features made elsewhere: read as they were written, named by the data set's own ids."""

import csv

import h5py
import numpy as np
import pytest
import torch
from synthetic import small_store

from pcmci.cache.schema import NO_VLM, Status
from pcmci.cache.store import open_store
from pcmci.cache.upkeep.export import export
from pcmci.errors import UsageError, VideoError
from pcmci.extract.imported.files import FeatureFiles, guess_layout, pool
from pcmci.extract.video.frames import sample_indices

D, LENGTHS = 7, {"a__x": 20, "a__y": 33, "b__z": 6, "b__w": 50}


@pytest.fixture
def tokens():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((n, D), dtype=np.float32) for name, n in LENGTHS.items()}


@pytest.fixture
def table(tmp_path):
    """The annotation of a `folder` data set: four videos with features, one without."""
    path = tmp_path / "labels.csv"
    rows = [["video", "split", "activity", "steps"]]
    for k, name in enumerate([*LENGTHS, "b__v"]):
        split = "test" if k % 2 else "train"
        rows.append([f"{name.replace('__', '/')}.mp4", split, "tea" if k % 3 else "milk", "pour"])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def write(form, folder, tokens, layout="TD"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in tokens.items():
        array = array if layout == "TD" else np.ascontiguousarray(array.T)
        if form == "npy":
            np.save(folder / f"{name}.npy", array)
        elif form == "npz":
            np.savez(folder / f"{name}.npz", features=array)
        elif form == "pt":
            torch.save(torch.from_numpy(array), folder / f"{name}.pt")
        elif form == "pt in a dict":
            torch.save({"features": torch.from_numpy(array)}, folder / f"{name}.pt")
        elif form == "tree":
            (folder / name.replace("__", "/")).parent.mkdir(exist_ok=True)
            np.save(folder / f"{name.replace('__', '/')}.npy", array[None])
    if form == "h5":
        with h5py.File(folder / "all.h5", "w") as file:
            for name, array in tokens.items():
                file[name] = array if layout == "TD" else array.T
        return folder / "all.h5"
    return folder


def imported(pcmci, table, source, out, *options):
    return pcmci(
        "import", "--dataset", "folder", "--annotations", str(table), "--name", "i3d",
        "--videos-from", str(source), "--out", str(out), "--frames", "8", *options,
    )  # fmt: skip


@pytest.mark.parametrize("layout", ["TD", "DT"])
@pytest.mark.parametrize("form", ["npy", "npz", "pt", "pt in a dict", "h5", "tree"])
def test_every_form_gives_the_same_store(pcmci, table, tokens, tmp_path, form, layout):
    if (form, layout) == ("tree", "DT"):
        pytest.skip("the tree is of [1, T, D]")
    source = write(form, tmp_path / "features", tokens, layout)
    out = tmp_path / "store.zarr"
    answer = imported(pcmci, table, source, out)
    assert answer.code == 0, answer.err
    assert f"i3d: taken as {'[T, D]' if layout == 'TD' else '[D, T]'}" in answer.out
    with open_store(out) as store:
        assert store.counts[Status.DONE] == 4
        assert dict(zip(store.ids, store.reasons, strict=True))["b__v"] == "no i3d features"
        assert store.spec.video.width == D
        assert store.spec.video.weights.startswith("imported")
        assert store.spec.vlm.name == NO_VLM
        for name, array in tokens.items():
            (indices,) = sample_indices(len(array), 8)
            found = store.read("video", [store.ids.index(name)])[0, 0]
            np.testing.assert_array_equal(found, array[indices].astype(np.float16))


def test_the_mean_of_each_part(tokens):
    for array in tokens.values():
        found = pool(array, 8, "mean")
        assert found.shape == (8, D)
        if len(array) >= 8:
            sizes = np.diff(np.arange(9) * len(array) // 8)
            np.testing.assert_allclose((found * sizes[:, None]).sum(0), array.sum(0), rtol=1e-4)


def test_as_many_tokens_as_frames_stay_as_they_are(tokens):
    for how in ("middle", "mean"):
        assert pool(tokens["a__x"], 20, how) is tokens["a__x"]


@pytest.mark.parametrize(
    ("shapes", "layout"),
    [([(20, 7), (33, 7)], "TD"), ([(7, 20), (7, 33)], "DT"), ([(7, 7), (9, 7)], "TD")],
)
def test_the_axis_that_stays_is_the_features(shapes, layout):
    assert guess_layout(shapes) == layout


@pytest.mark.parametrize("shapes", [[(16, 7), (16, 7)], [(16, 7), (15, 8)]])
def test_what_shapes_do_not_tell_is_asked(shapes):
    with pytest.raises(UsageError, match="--layout TD"):
        guess_layout(shapes)


def test_what_cannot_be_read_or_is_not_finite_has_failed(pcmci, table, tokens, tmp_path):
    tokens["a__y"][3:] = np.nan
    source = write("npy", tmp_path / "features", tokens)
    (source / "b__z.npy").write_bytes(b"no array")
    answer = imported(pcmci, table, source, tmp_path / "store.zarr")
    assert answer.code == 0, answer.err
    assert "failed: b__z: its features cannot be read" in answer.out
    assert "failed: a__y: the video encoder gave NaN or infinity" in answer.out
    with open_store(tmp_path / "store.zarr") as store:
        assert store.counts[Status.FAILED] == 2


def test_a_pickle_is_not_executed(tmp_path):
    torch.save({"a": print}, tmp_path / "x.pt")
    files = FeatureFiles.under(tmp_path)
    with pytest.raises(VideoError, match="holds more than tensors"):
        files.read("x")


def test_another_content_is_another_store(pcmci, table, tokens, tmp_path):
    source = write("npy", tmp_path / "features", tokens)
    out = tmp_path / "store.zarr"
    assert imported(pcmci, table, source, out).code == 0
    assert imported(pcmci, table, source, out).code == 0  # the same again: nothing to do
    np.save(source / "a__x.npy", tokens["a__x"] + 1)
    answer = imported(pcmci, table, source, out)
    assert answer.code == 2
    assert "video.weights" in answer.err
    assert "of other files" in answer.err


def test_names_may_have_more_than_the_id(pcmci, table, tokens, tmp_path):
    source = write("npy", tmp_path / "f", {f"{name}_rgb": x for name, x in tokens.items()})
    answer = imported(pcmci, table, source, tmp_path / "s.zarr")
    assert answer.code == 2
    assert "expected for example a__x; --pattern says how they are named" in answer.err
    assert imported(pcmci, table, source, tmp_path / "s.zarr", "--pattern", "{id}_rgb").code == 0


def test_without_texts_only_heads_that_need_none(pcmci, table, tokens, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "store.zarr"
    assert imported(pcmci, table, write("npy", tmp_path / "f", tokens), out).code == 0
    answer = pcmci("train-heads", "--features", str(out))
    assert answer.code == 2
    assert "heads that need none: linear, mlp" in answer.err
    train = ("train-heads", "--features", str(out), "--head", "linear", "--epochs", "1")
    assert pcmci(*train, "--labels", "activity").code == 0


@pytest.mark.parametrize("form", ["npy", "npz", "h5"])
def test_what_was_exported_comes_back_with_the_same_bits(tmp_path, form, monkeypatch):
    from pcmci.extract.datasets.records import Dataset, Video
    from pcmci.extract.imported.importing import Half, import_features

    with open_store(small_store(tmp_path / "ours.zarr", failed=(3,))) as ours:
        folders = {name: tmp_path / name for name in ("vlm", "video")}
        for name, folder in folders.items():
            assert export(ours, folder, name, form) == 59
        spec = ours.spec
        videos = tuple(
            Video(
                id=name, path=None, split=ours.splits[k],
                activity=spec.activity.names[ours.activity[k]],
                steps=tuple(np.array(spec.steps.names)[ours.steps[k] > 0]),
                session=ours.sessions[k], group=ours.groups[k],
            )
            for k, name in enumerate(ours.ids)
        )  # fmt: skip
        texts = np.load(tmp_path / "vlm.text.npz")
        halves = {
            name: Half(
                FeatureFiles.under(folder / "features.h5" if form == "h5" else folder),
                name, layout="TD",
            )
            for name, folder in folders.items()
        }  # fmt: skip
        import_features(
            Dataset("small", videos, spec.activity, spec.steps), tmp_path / "back.zarr",
            halves["video"], 6, vlm=halves["vlm"], text=lambda labels, _: texts[labels],
            progress=False,
        )  # fmt: skip
        with open_store(tmp_path / "back.zarr") as back:
            assert back.ids == ours.ids
            rows = ours.done_rows
            assert back.done_rows.tolist() == rows.tolist()
            for name in ("vlm", "video"):
                np.testing.assert_array_equal(back.read(name, rows), ours.read(name, rows))
            for labels in ("activity", "steps"):
                np.testing.assert_array_equal(back.text(labels), ours.text(labels))


def test_the_vlms_half_of_a_store(pcmci, table, tokens, tmp_path):
    """Of one over the same videos; of another it is refused."""
    source = write("npy", tmp_path / "f", tokens)
    vlm = write("npy", tmp_path / "g", {name: x[:, :4] for name, x in tokens.items()})
    np.savez(tmp_path / "text.npz", activity=np.eye(2, 4), steps=np.eye(1, 4))
    first = tmp_path / "first.zarr"
    both = ("--vlm-from", str(vlm), "--text", str(tmp_path / "text.npz"))
    answer = imported(pcmci, table, source, first, *both)
    assert answer.code == 0, answer.err
    answer = imported(pcmci, table, source, tmp_path / "x.zarr", "--vlm-from", str(vlm))
    assert answer.code == 2
    assert "--text a file of them" in answer.err
    second = tmp_path / "second.zarr"
    assert imported(pcmci, table, source, second, "--vlm-from", str(first)).code == 0
    with open_store(first) as one, open_store(second) as two:
        np.testing.assert_array_equal(
            one.read("vlm", one.done_rows), two.read("vlm", two.done_rows)
        )
        assert two.spec.vlm == one.spec.vlm
    other = small_store(tmp_path / "other.zarr")
    answer = imported(pcmci, table, source, tmp_path / "y.zarr", "--vlm-from", str(other))
    assert answer.code == 2
    assert "is over other videos" in answer.err


def test_store_export_by_its_command(pcmci, tmp_path):
    path = small_store(tmp_path / "small.h5")
    answer = pcmci("store", "export", str(path), str(tmp_path / "out"), "--layout", "DT")
    assert answer.code == 0, answer.err
    assert np.load(tmp_path / "out" / "v0.npy").shape == (24, 6)
    answer = pcmci("store", "export", str(path), str(tmp_path / "out"))
    assert answer.code == 2
    assert "is not empty" in answer.err


@pytest.mark.parametrize("options", [["--pool", "mean"], ["--layout", "DT"], ["--key", "other"]])
def test_read_in_another_way_is_another_store(pcmci, table, tmp_path, options):
    """Square, so that either layout could be meant; both arrays are there."""
    rng = np.random.default_rng(1)
    (tmp_path / "features").mkdir()
    for name in LENGTHS:
        arrays = {key: rng.standard_normal((9, 9), dtype=np.float32) for key in ("rgb", "other")}
        np.savez(tmp_path / "features" / f"{name}.npz", **arrays)
    source, out = tmp_path / "features", tmp_path / "store.zarr"
    assert imported(pcmci, table, source, out, "--layout", "TD", "--key", "rgb").code == 0
    answer = imported(pcmci, table, source, out, "--layout", "TD", "--key", "rgb", *options)
    assert answer.code == 2
    assert "made with other settings" in answer.err
    assert "--video-weights" not in answer.err  # which import does not have


@pytest.mark.parametrize("how", ["class folders", "a table beside them"])
def test_a_folder_of_features_names_its_own_videos(pcmci, table, tokens, tmp_path, how):
    source = write("tree", tmp_path / "features", tokens)
    if how == "a table beside them":
        table.replace(source / "labels.csv")
    out = tmp_path / "store.zarr"
    answer = pcmci(
        "import", "--dataset", "folder", "--name", "i3d", "--videos-from", str(source),
        "--out", str(out), "--frames", "8",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    with open_store(out) as store:
        assert set(LENGTHS) <= set(store.ids)
        assert len(store.done_rows) == len(LENGTHS)


@pytest.mark.parametrize("content", [["no tensor"], [torch.zeros(9, D)]])
def test_a_file_of_something_else_fails_alone(pcmci, table, tokens, tmp_path, content):
    source = write("pt", tmp_path / "features", tokens)
    torch.save(content, source / "a__x.pt")
    answer = imported(pcmci, table, source, tmp_path / "store.zarr")
    assert answer.code == 0
    assert "failed: a__x: its file holds a list, no tensor" in answer.out


def test_braces_in_a_pattern_are_themselves(pcmci, table, tokens, tmp_path):
    tokens = {f"{name}{{cam}}": array for name, array in tokens.items()}
    source = write("npy", tmp_path / "features", tokens)
    answer = imported(pcmci, table, source, tmp_path / "s.zarr", "--pattern", "{id}{cam}")
    assert answer.code == 0, answer.err


def test_a_damaged_array_among_many_fails_alone(pcmci, table, tokens, tmp_path):
    path = tmp_path / "all.h5"
    with h5py.File(path, "w") as file:
        for name, array in tokens.items():
            file.create_dataset(name, data=array, compression="gzip")
        where = file["b__z"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(where.byte_offset)
        raw.write(b"\xff" * where.size)
    answer = imported(pcmci, table, path, tmp_path / "s.zarr")
    assert answer.code == 0, answer.err
    assert "failed: b__z: its features cannot be read" in answer.out


def test_what_was_measured_of_a_store_goes_with_it(pcmci, table, tokens, tmp_path):
    source = write("npy", tmp_path / "features", tokens)
    out = tmp_path / "store.zarr"
    assert imported(pcmci, table, source, out).code == 0
    speed = tmp_path / "store.zarr.speed.json"
    speed.write_text("[]")
    assert imported(pcmci, table, source, out).code == 0
    assert speed.exists()
    assert imported(pcmci, table, source, out, "--overwrite").code == 0
    assert not speed.exists()


def test_one_video_more_is_said_by_its_name(pcmci, table, tokens, tmp_path):
    source, out = write("npy", tmp_path / "features", tokens), tmp_path / "store.zarr"
    assert imported(pcmci, table, source, out).code == 0
    with table.open("a", newline="") as file:
        csv.writer(file).writerow(["a/new.mp4", "train", "tea", "pour"])
    answer = imported(pcmci, table, source, out)
    assert answer.code == 2
    assert "1 video more, 0 fewer: a__new" in answer.err
