"""`pcmci runs`: every folder is there once, whole ones with what they found, others with why."""

import json
import shutil
import subprocess
import sys

import pytest
from synthetic import small_store

from pcmci.cache.store import open_store
from pcmci.errors import UsageError
from pcmci.heads.training.choosing import chosen, parse_where, sorted_runs
from pcmci.heads.training.folders import (
    BROKEN,
    DIVERGED,
    DONE,
    UNFINISHED,
    folder_bytes,
    list_runs,
    look_at,
)
from pcmci.heads.training.held import held
from pcmci.heads.training.run import train_heads

QUICK = {"epochs": 1, "feedforward": 16, "relations": 2, "decoder_heads": 2, "progress": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with three runs, and the runs."""
    home = tmp_path_factory.mktemp("listed")
    with open_store(small_store(home / "small.zarr")) as store:
        runs = [
            train_heads(store, "ich", out=home / "runs", seed=1, lr=3e-3, **QUICK),
            train_heads(store, "none", out=home / "runs", labels="activity", **QUICK),
            train_heads(
                store, head="linear", out=home / "runs", epochs=1, progress=False, labels="steps"
            ),
        ]
    return home / "runs", runs


def test_a_run_is_listed_with_its_settings_scores_and_size(made):
    folder, runs = made
    listed = {one.path: one for one in list_runs([folder])}
    assert set(listed) == {run.path for run in runs}
    for run in runs:
        one = listed[run.path]
        assert (one.state, one.reason, one.scores) == (DONE, "", run.metrics)
        assert (
            one.bytes
            == run.bytes
            == sum(f.stat().st_size for f in run.path.rglob("*") if f.is_file())
        )
        assert (one.created, one.store) == (run.config["created"], run.config["store"]["path"])
        assert one.seed == run.config["train"]["seed"]
    ich, none, linear = (listed[run.path] for run in runs)
    assert (ich.head, ich.order, ich.labels) == ("pcmci", "ich", "activity,steps")
    assert ich.changed == {
        "epochs": 1, "feedforward": 16, "relations": 2, "decoder_heads": 2, "lr": 3e-3,
    }  # fmt: skip
    assert ich.settings["transport_lambda"] == 1.0
    assert ich.settings["centre"] == 0.0  # came later: not in the record
    assert (none.order, none.labels) == ("none", "activity")
    assert (linear.head, linear.order, linear.changed) == ("linear", "", {"epochs": 1})


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (["order=ich"], {0}),
        (["order=none"], {1}),
        (["order=ich", "order=none"], {0, 1}),
        (["order=ich", "seed=0"], set()),
        (["lr=0.003"], {0}),
        (["lr=3e-3"], {0}),
        (["transport.lambda=1"], {0, 1}),
        (["batch-size=32"], {0, 1, 2}),
        (["head=linear"], {2}),
        (["labels=steps"], {2}),
        (["norm=true"], {0, 1}),
        (["dataset=small", "state=done"], {0, 1, 2}),
        (["state=broken"], set()),
    ],
)
def test_runs_are_chosen_by_what_they_are(made, where, found):
    folder, runs = made
    wanted = parse_where(where)
    names = {one.path for one in list_runs([folder]) if chosen(one, wanted)}
    assert names == {runs[n].path for n in found}


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("order", "use KEY=VALUE"),
        ("order=ocr", "'ocr' is no stage"),
        ("ordr=ich", "did you mean 'order'"),
        ("frobnicate=1", "no setting is called 'frobnicate'"),
        ("head=mpl", "did you mean 'mlp'"),
        ("lr=fast", "lr is a number"),
        ("norm=7", "norm is True or False"),
        ("state=gone", "done, unfinished, diverged, broken"),
    ],
)
def test_what_no_run_can_be_is_refused(where, says):
    with pytest.raises(UsageError, match=says) as refused:
        parse_where([where])
    assert f"--where {where.partition('=')[0]}" in str(refused.value).replace("'", "")


def test_runs_are_sorted_by_score_setting_or_size(made):
    folder, _ = made
    listed = list_runs([folder])
    sizes = [one.bytes for one in sorted_runs(listed, "size", "test")]
    assert sizes == sorted(sizes, reverse=True)
    by_acc = sorted_runs(listed, "Acc", "test")
    scores = [one.scores["test"].get("Acc") for one in by_acc]
    assert scores[-1] is None  # the one that has steps alone comes last
    assert scores[:2] == sorted(scores[:2], reverse=True)
    assert [one.seed for one in sorted_runs(listed, "seed", "test")] == [0, 0, 1]
    with pytest.raises(UsageError, match="--sort Accc"):
        sorted_runs(listed, "Accc", "test")


def spoil(name):
    """A run of which one file is not as it was."""

    def missing(run):
        (run / name).unlink()

    def cut(run):
        path = run / name
        path.write_bytes(path.read_bytes()[:-9])

    return missing, cut


@pytest.mark.parametrize(
    "name", ["config.json", "metrics.json", "model.safetensors", "predictions.npz"]
)
@pytest.mark.parametrize("how", [0, 1], ids=["missing", "cut off"])
def test_a_broken_run_is_listed_with_its_reason(made, tmp_path, name, how):
    _, runs = made
    copy = tmp_path / runs[0].path.name
    shutil.copytree(runs[0].path, copy)
    assert look_at(copy).state == DONE
    spoil(name)[how](copy)
    (listed,) = list_runs([tmp_path])
    assert (listed.path, listed.state) == (copy, BROKEN)
    assert listed.reason.startswith(f"{name} is {('missing', 'damaged')[how]}")
    assert listed.bytes == folder_bytes(copy)


def test_a_run_of_a_newer_format_or_of_strange_contents_is_broken(made, tmp_path):
    _, runs = made
    for change, says in [({"format": 99}, "newer"), ({"train": None}, "not of a run")]:
        copy = tmp_path / runs[0].path.name
        shutil.copytree(runs[0].path, copy, dirs_exist_ok=True)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | change))
        (listed,) = list_runs([tmp_path])
        assert (listed.state, says in listed.reason) == (BROKEN, True)


def test_what_a_killed_or_a_running_training_leaves_is_told_apart(made, tmp_path):
    _, runs = made
    partial = tmp_path / f".{runs[0].path.name}.x1y2.partial"
    partial.mkdir()
    (listed,) = list_runs([tmp_path])
    assert (listed.state, "killed" in listed.reason) == (UNFINISHED, True)
    with held(partial):
        (listed,) = list_runs([tmp_path])
        assert listed.reason == "being trained now"
    old = tmp_path / f".{runs[0].path.name}.x1y2.old"
    partial.rename(old)
    (listed,) = list_runs([tmp_path])
    assert f"move it to {runs[0].path.name}" in listed.reason


def test_a_training_holds_its_folder(made, tmp_path, monkeypatch):
    _, runs = made
    seen = []

    def look(*_, **__):
        seen.extend(list_runs([tmp_path]))
        raise KeyboardInterrupt

    monkeypatch.setattr("pcmci.heads.training.run.Learner", look)
    with open_store(runs[0].config["store"]["path"]) as store, pytest.raises(KeyboardInterrupt):
        train_heads(store, "ich", out=tmp_path, **QUICK)
    assert [(one.state, one.reason) for one in seen] == [(UNFINISHED, "being trained now")]
    assert list_runs([tmp_path]) == []


def test_a_run_that_diverged_is_listed(made, tmp_path):
    _, runs = made
    (tmp_path / f"{runs[0].path.name}.failed.json").write_text('{"reason": "loss is nan"}')
    (listed,) = list_runs([tmp_path])
    assert (listed.state, listed.reason) == (DIVERGED, "loss is nan")


def test_each_run_is_there_once_however_it_is_named(made):
    folder, runs = made
    assert len(list_runs([folder, folder, runs[0].path, folder.parent])) == len(runs)


def test_the_command_shows_and_prints_what_is_there(made, tmp_path, pcmci):
    folder, runs = made
    broken = tmp_path / "x_activity_ich_seed0_00000000"
    broken.mkdir()
    answer = pcmci("runs", folder, tmp_path)
    assert answer.code == 0
    for run in runs:
        assert run.path.name in answer.out.replace("\n", "")
    assert "config.json is missing" in answer.out
    assert "3 runs, " in answer.out
    assert "; 1 broken" in answer.out
    found = pcmci("runs", folder, "--where", "order=ich", "--json").json
    assert [one["path"] for one in found["runs"]] == [str(runs[0].path)]
    assert found["runs"][0]["scores"] == runs[0].metrics
    assert found["bytes"] == runs[0].bytes


def test_a_run_of_a_head_that_nobody_knows_here_is_listed(made, tmp_path, pcmci):
    _, runs = made
    copy = tmp_path / runs[2].path.name
    shutil.copytree(runs[2].path, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"head": "mine"}))
    (listed,) = list_runs([tmp_path])
    assert (listed.state, listed.head, listed.settings["epochs"]) == (DONE, "mine", 1)
    assert "mine" in pcmci("runs", tmp_path).out


def test_a_folder_that_is_not_there_says_what_makes_one(pcmci, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = pcmci("runs")
    assert answer.code == 2
    assert "pcmci train-heads" in answer.err


def test_a_listing_waits_for_no_torch(made):
    folder, _ = made
    code = (
        "import sys\nsys.argv = ['pcmci', 'runs', sys.argv[1]]\n"
        "import atexit; atexit.register(lambda: print(*{'torch', 'numpy'} & set(sys.modules)))\n"
        "from pcmci.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == ""
