"""A planted confounder: what was asked for alone is changed, and its effect is measured."""

import csv
import json

import numpy as np
import pytest
from synthetic import made_up_store, names, small_store, small_table

from pcmci.cache import planted as drawing
from pcmci.cache.planted import NOBODY, TWINS
from pcmci.cache.schema import StoreSpec
from pcmci.cache.store import open_store
from pcmci.cache.upkeep.convert import convert
from pcmci.cache.upkeep.plant import Planting, plant
from pcmci.cache.writing.writer import StoreWriter
from pcmci.errors import SpecMismatch, UsageError
from pcmci.heads.ablation.ablate import ablate
from pcmci.heads.explaining.representations import representations
from pcmci.heads.scoring.leakage import leakage
from pcmci.heads.training.run import load_run, train_heads
from pcmci.heads.training.unchanged import unchanged_twins
from pcmci.report.ablation import write_report
from pcmci.stopping import StoppedError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("source") / "small.zarr", failed=(8, 9))


def planted(source, out, vectors=None, **asked):
    with open_store(source) as store:
        return plant(store, out, Planting(**asked), vectors=vectors, progress=False)


def test_a_store_is_not_planted_over_itself_whatever_it_is_called(source, tmp_path):
    (tmp_path / "other").symlink_to(source)
    for name in (source, source.parent / "x" / ".." / source.name, tmp_path / "other"):
        with open_store(source) as store, pytest.raises(UsageError, match="the store itself"):
            plant(store, name, Planting(), overwrite=True, progress=False)
    with open_store(source) as store:
        assert len(store.done_rows) == 58


def test_entities_go_along(tmp_path):
    steps = names("step", 5, entities=("bowl", "cup"))
    at = made_up_store(
        tmp_path / "s.zarr", "small", names("activity", 3), steps, small_table(),
        frames=6, width=16, video_width=24,
    )  # fmt: skip
    planted(at, tmp_path / "out.zarr")
    with open_store(at) as one, open_store(tmp_path / "out.zarr") as other:
        np.testing.assert_array_equal(one.entities("steps"), other.entities("steps"))


def test_what_is_asked_amiss_is_refused_before_anything_is_written(source, tmp_path):
    with open_store(source) as store, pytest.raises(UsageError, match="there is no folder"):
        plant(store, tmp_path / "out.zarr", truth=tmp_path / "no" / "truth.csv", progress=False)
    assert not (tmp_path / "out.zarr").exists()


def arrays(path):
    with open_store(path) as store:
        return {name: store.read(name) for name in ("vlm", "video")}, store.table, store.spec


def same_bits(one, other):
    np.testing.assert_array_equal(one.view(np.uint16), other.view(np.uint16))


@pytest.mark.parametrize(
    "asked",
    [
        {"share": 0.0},
        {"scale": 0.0},
        {"strength": 0.0, "otherwise": "none"},
    ],
)
def test_where_nothing_is_planted_all_bits_are_equal(source, tmp_path, asked):
    planted(source, tmp_path / "out.zarr", **asked)
    before, table, _ = arrays(source)
    after, _, _ = arrays(tmp_path / "out.zarr")
    for name in before:
        same_bits(after[name][: len(table)], before[name])


@pytest.mark.parametrize("array", ["vlm", "video"])
@pytest.mark.parametrize("run", [False, True])
def test_what_is_planted_is_a_share_of_frames_of_one_array(source, tmp_path, array, run):
    planted(source, tmp_path / "out.h5", array=array, share=0.5, strength=1.0, run=run)
    before, table, _ = arrays(source)
    after, _, spec = arrays(tmp_path / "out.h5")
    other = {"vlm": "video", "video": "vlm"}[array]
    same_bits(after[other][: len(table)], before[other])
    changed = (after[array][: len(table)] != before[array]).any(-1)[:, 0]
    done = np.isfinite(before[array]).all((1, 2, 3))
    assert done.sum() == 58
    assert (changed[done].sum(1) == 3).all()  # of 6 frames
    if run:
        places = [np.flatnonzero(row) for row in changed[done]]
        assert all((np.diff(row) == 1).all() for row in places)
    assert spec.planted.frames == 3


def test_the_direction_is_that_of_the_label_as_often_as_asked(source, tmp_path):
    vectors = np.eye(3, 16)
    planted(
        source, tmp_path / "out.zarr", vectors, share=1.0, strength=1.0, test_strength=0.0, scale=9
    )
    before, table, _ = arrays(source)
    after, _, spec = arrays(tmp_path / "out.zarr")
    moved = after["vlm"].astype(float)[: len(table), 0] - before["vlm"].astype(float)[:, 0]
    for row in np.flatnonzero(np.isfinite(moved).all((1, 2))):
        length = np.linalg.norm(before["vlm"][row, 0].astype(float), axis=1).mean()
        own, _, _ = drawing.draw(
            spec.planted, row, table.activity[row], 3, 6, training=table.splits[row] == "train"
        )
        wanted = np.zeros(16) if own == NOBODY else 9 * length * vectors[own]
        np.testing.assert_allclose(moved[row], np.tile(wanted, (6, 1)), atol=0.03 * length)
        assert table.splits[row] != "train" or own == table.activity[row]


def test_twins_differ_in_the_companion_alone(source, tmp_path):
    vectors = np.eye(3, 16)
    grown = planted(source, tmp_path / "out.zarr", vectors, share=0.5, strength=1.0)
    after, table, spec = arrays(tmp_path / "out.zarr")
    row_of = {name: row for row, name in enumerate(table.ids)}
    tests = [row for row, split in enumerate(table.splits) if split == "test"]
    assert {grown.videos[split] for split in TWINS} == {len(tests)}
    assert grown.companions.get("planted-none", 0) == 0
    for row in tests:
        name = table.ids[row]
        for split in TWINS:
            twin = row_of[f"{name}_{split}"]
            assert table.sessions[twin] == table.sessions[row]
            if split == "cause":
                assert table.activity[twin] != table.activity[row]
                continue
            same_bits(after["video"][twin], after["video"][row])
            same_bits(after["vlm"][twin][..., 3:], after["vlm"][row][..., 3:])
            assert table.activity[twin] == table.activity[row]
            np.testing.assert_array_equal(table.steps[twin], table.steps[row])
    with open_store(tmp_path / "out.zarr") as store:
        unchanged = unchanged_twins(store)
        drawn = [
            drawing.draw(spec.planted, row, table.activity[row], 3, 6, training=False)
            for row in tests
        ]
        same = {table.ids[row] for row, (own, other, _) in zip(tests, drawn, strict=True)
                if own == other and store.status[row] == 1}  # fmt: skip
    assert {n.removesuffix("_shift-planted") for n in unchanged if "shift" in n} == same
    assert not any("wrong" in name for name in unchanged)


def test_a_stopped_planting_goes_on_to_the_same_bits(source, tmp_path, monkeypatch):
    planted(source, tmp_path / "whole.zarr")
    put, calls = StoreWriter.put, []

    def dying(self, *arguments):
        calls.append(1)
        if len(calls) > 20:
            raise StoppedError(15, "enough")
        put(self, *arguments)

    monkeypatch.setattr(StoreWriter, "put", dying)
    with pytest.raises(StoppedError):
        planted(source, tmp_path / "out.zarr")
    monkeypatch.setattr(StoreWriter, "put", put)
    planted(source, tmp_path / "out.zarr")
    with open_store(tmp_path / "out.zarr") as one, open_store(tmp_path / "whole.zarr") as other:
        assert one.content_digest == other.content_digest
    with pytest.raises(SpecMismatch, match=r"planted\.share: the store has 0\.25, asked for 0\.5"):
        planted(source, tmp_path / "out.zarr", share=0.5)


def test_a_planted_store_says_so_and_others_say_nothing(source, tmp_path, pcmci):
    answer = pcmci("plant", source, tmp_path / "out.zarr", "--json", "--truth", tmp_path / "t.csv")
    assert answer.code == 0, answer.err
    assert answer.json["planted"]["frames"] == 2
    with open_store(tmp_path / "out.zarr") as store, open_store(source) as before:
        assert store.spec.dataset == "small (planted)"
        assert store.spec.format_version == 3
        assert StoreSpec.from_json(store.spec.to_json()) == store.spec
        assert store.fingerprint != before.fingerprint
        assert "planted" not in before.spec.to_json()
    assert "PLANTED" in pcmci("store", "info", tmp_path / "out.zarr").out
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(answer.json["videos"].values())
    there = sum(bool(row["companion_of"]) for row in rows)
    assert there == sum(answer.json["with a companion"].values())
    convert(tmp_path / "out.zarr", tmp_path / "copy.h5")
    with open_store(tmp_path / "copy.h5") as store:
        assert store.spec.planted
    with pytest.raises(UsageError, match="planted already"):
        planted(tmp_path / "out.zarr", tmp_path / "twice.zarr")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--array", "audio"], "--array audio"),
        (["--share", "1.5"], "--share 1.5: it lies between 0 and 1"),
        (["--share", "0.01"], "--share 0.01 of 6 frames is none; 1/6 is one"),
        (["--test-strength", "-1"], "--test-strength -1"),
        (["--scale", "nan"], "--scale nan"),
        (["--scale", "1e6"], "--scale 1e"),
        (["--otherwise", "maybe"], "--otherwise maybe: any or none"),
        (["--split", "train"], "--split train: twins are of test"),
        (["--bound", "0.5", "--array", "video"], "--bound"),
        (["--vectors", "nothing.npy"], "--vectors nothing.npy: cannot be read"),
    ],
)
def test_what_cannot_be_planted_is_refused_in_one_line(source, tmp_path, pcmci, flags, said):
    answer = pcmci("plant", source, tmp_path / "out.zarr", *flags, "--json")
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


# --- effects, from a store to a page -------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory):
    """A planted store, a run on it, and a sweep."""
    folder = tmp_path_factory.mktemp("planted")
    planted(source, folder / "out.zarr", share=1.0, strength=1.0, scale=2.0)
    settings = {"out": folder / "runs", "epochs": 6, "feedforward": 32, "progress": False}
    with open_store(folder / "out.zarr") as store:
        run = train_heads(store, "ich", **settings)
        found = ablate(
            store, "none; ich", 2, reference="ich", results=folder / "ablations", workers=1,
            resamples=50, **settings,
        )  # fmt: skip
        measured = run.effects_on(store)
    return run, found, measured


def test_a_head_that_never_sees_what_was_planted_has_no_effect_of_it(trained):
    _, found, _ = trained
    rows = {(r["variant"], r["labels"], r["split"]): r for r in found.effects}
    for labels in ("activity", "steps"):
        for split in ("shift-planted", "planted-none", "planted-wrong"):
            none = rows["none", labels, split]
            assert none["cde"] == none["flips"] == 0
            assert rows["ich", labels, split]["cde"] != 0
            assert none["videos"] > 0
        assert rows["none", labels, "cause"]["cde"] != 0
        assert rows["none", labels, "cause"]["ratio"] is None
    assert rows["ich", "activity", "planted-wrong"]["cde"] > 0
    assert rows["ich", "activity", "planted-wrong"]["reference"]
    assert rows["none", "activity", "planted-wrong"]["difference"] < 0


def test_a_probe_finds_what_was_planted_where_it_is_and_nowhere_else(trained):
    run, _, _ = trained
    with open_store(run.config["store"]["path"]) as store:
        rows = store.rows("shift-planted", done=True)  # where it says nothing of the label
        spec, of = store.spec.planted, {name: row for row, name in enumerate(store.ids)}
        companion = [
            drawing.draw(spec, of[store.ids[row].removesuffix("_shift-planted")],
                         int(store.activity[row]), 3, 6, training=False)[1]
            for row in rows
        ]  # fmt: skip
        found = representations(run.models()["activity"], store, rows)
        with pytest.raises(UsageError, match="1 videos have no features: v8"):
            representations(run.models()["activity"], store, np.array([8]))
    assert set(found) == {"V", "V^P", "text after ich", "z"}
    assert found["text after ich"].shape == (len(rows), 3, 16)
    sure = {name: leakage(x, companion).accuracy for name, x in found.items()}
    assert sure["V^P"] > 0.9
    assert sure["text after ich"] > 0.7
    assert sure["V"] < 0.7


def test_a_run_keeps_its_effects_and_an_older_one_is_measured_again(trained, source, tmp_path):
    run, _, measured = trained
    assert run.effects == measured
    content = json.loads((run.path / "metrics.json").read_text())
    assert content["effects"] == run.effects
    old = {name: value for name, value in content.items() if name != "effects"}
    (run.path / "metrics.json").write_text(json.dumps(old))
    older = load_run(run.path)
    (run.path / "metrics.json").write_text(json.dumps(content))
    assert older.effects == {}
    with open_store(run.config["store"]["path"]) as store:
        assert older.effects_on(store) == run.effects


def test_without_twins_nothing_is_said_of_effects(source, tmp_path):
    with open_store(source) as store:
        run = train_heads(store, "none", out=tmp_path, epochs=1, progress=False)
        assert run.effects_on(store) == {}
    assert "effects" not in json.loads((run.path / "metrics.json").read_text())


def test_tables_and_page_show_the_effects(trained, pcmci):
    run, found, _ = trained
    page = write_report(found.path).read_text()
    assert "What each variable does to the answers" in page
    assert "what is done" in page
    assert "PLANTED" in page
    answer = pcmci(
        "train-heads", "--features", run.config["store"]["path"], "--order", "ich", "--epochs", 6,
        "--feedforward", 32, "--out", run.path.parent,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "already there" in answer.out
    assert "PLANTED" in answer.err
    for heading in ("CDE planted", "CDE planted-none", "what is done"):
        assert heading in answer.out
