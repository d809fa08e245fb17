"""The demo goes the whole way, ends with a page, and goes on where it was stopped."""

import json

import pytest
from children import forked

from pcmci import demo as demo_module
from pcmci.cache.schema import Status
from pcmci.cache.store import open_store
from pcmci.heads.training.run import train_heads
from pcmci.kitchen import SHIFTS, Knobs, twins_of, write_world


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    with forked():
        return out, demo_module.demo(out, videos=30, epochs=2)


def test_the_whole_way_on_a_small_world(done):
    out, found = done
    assert list(found.runs) == ["none", "ich,ici,ivc"]
    with open_store(out / "features" / "kitchen.zarr") as store:
        assert store.counts[Status.DONE] == len(store) == 30 + 3 + 6 + 5 * 6
        assert store.spec.vlm.weights == store.spec.video.weights == "own"
    for run in found.runs.values():
        assert run.metrics["shift-all"]["coverage"] == 1
        assert not run.reused
    for by_order in found.against_none.values():
        assert list(by_order) == ["ich,ici,ivc"]
        assert set(by_order["ich,ici,ivc"]) == {"test", *SHIFTS, "cause"}


def test_the_page_shows_what_the_runs_found(done):
    out, found = done
    page = found.page.read_text()
    assert found.page == out / "index.html"
    for run in found.runs.values():
        assert f"{100 * run.metrics['shift-h']['mAP']:.2f}" in page
        assert str(run.path) in page
        effect = run.effects["activity"]["shift-c"]
        assert f"{effect['cde']['value']:.2f}" in page
        assert 0 < run.effects["activity"]["shift-h"]["videos"] <= 6
        assert run.effects["activity"]["cause"]["videos"] == 6
    assert "What each variable does to the answers" in page
    assert page.count("<svg") == 4
    assert page.count("data:image/png") >= 2


def test_again_nothing_is_done_again(done):
    out, found = done
    again = demo_module.demo(out, epochs=2)  # as many videos as are there
    assert all(run.reused for run in again.runs.values())
    assert {name: run.metrics for name, run in again.runs.items()} == {
        name: run.metrics for name, run in found.runs.items()
    }


def test_a_script_can_read_what_it_found(done, pcmci):
    out, found = done
    answer = pcmci("demo", "--out", out, "--videos", 30, "--epochs", 2, "--full", "--json")
    assert answer.code == 0
    assert answer.json["page"] == str(out / "index.html")
    assert list(answer.json["scores"]) == ["none", "ich", "ich,ici", "ich,ici,ivc"]
    for order, run in found.runs.items():  # those of the first page, not others like them
        assert answer.json["runs"][order] == str(run.path)
        assert answer.json["scores"][order] == run.metrics
    interval = answer.json["against_none"]["Acc"]["ich,ici"]["shift-c"]
    assert interval["low"] <= interval["value"] <= interval["high"]


def test_without_confounders_the_shifts_change_no_score(tmp_path):
    world = write_world(
        tmp_path / "world", 12, val=2, test=6, knobs=Knobs(0, 0, 0), workers=1, progress=False
    )
    data = demo_module.load_dataset("kitchen", world / "videos", world)
    demo_module.extract(data, tmp_path / "k.zarr", progress=False)
    with open_store(tmp_path / "k.zarr") as store:
        run = train_heads(
            store, "ich,ici,ivc", out=tmp_path / "runs", epochs=2, feedforward=32, progress=False
        )
    for shift in SHIFTS:
        assert run.metrics[shift] == run.metrics["test"]


def test_the_next_command_can_be_typed(tmp_path):
    command = demo_module.next_command(tmp_path / "my demo", 5)
    assert command.startswith("pcmci ablate --features '")


def test_a_world_of_before_keeps_the_twins_that_it_has(tmp_path):
    """A demo goes on in a folder that was made before there were causal twins."""
    assert twins_of(tmp_path) is None
    splits = {"train": 3, "val": 1, "test": 2, "shift-h": 2, "shift-all": 2}
    (tmp_path / "world.json").write_text(json.dumps({"splits": splits}))
    assert twins_of(tmp_path) == ("shift-h", "shift-all")
