"""Sweeps: shared and resumed runs, a fair choice, failures that stop nobody, rows that add up."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from children import Child, command, forked
from synthetic import small_store

import pcmci as package
from pcmci.cache.store import open_store
from pcmci.errors import PcmciError, UsageError
from pcmci.heads.ablation import pool
from pcmci.heads.ablation.ablate import Ablator, ablate
from pcmci.heads.ablation.outcomes import Outcome, choose
from pcmci.heads.scoring.bootstrap import Bootstrap, interval
from pcmci.heads.scoring.metrics import coprediction, implausible_pairs
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.scoring.scores import score, sigmoid
from pcmci.heads.training import frozen, learning
from pcmci.heads.training.run import load_run, train_heads
from pcmci.report.ablation import write_report

QUICK = {"epochs": 2, "relations": 4, "decoder_heads": 4, "feedforward": 24, "batch_size": 16}
ALONE = {"workers": 1, "progress": False}
ORDERS = "none; ich; ich,ici"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with open_store(small_store(folder / "small.h5", failed=(9, 20))) as opened:
        yield opened


@pytest.fixture(scope="module")
def swept(store, tmp_path_factory):
    """Three orders, two rates to choose from, two seeds: twelve runs."""
    out = tmp_path_factory.mktemp("swept")
    return ablate(
        store, ORDERS, 2, grid={"lr": (1e-4, 1e-2)}, tau=(0.3, 0.6, 0.9), out=out / "runs",
        results=out / "ablations", resamples=50, validation=0.25, **QUICK, **ALONE,
    )  # fmt: skip


def runs_of(swept):
    return {(r["order"], r["tried"], r["seed"]): load_run(r["run"]) for r in swept.rows}


def assert_alike(found, run):
    for labels, part in run.predictions.labels.items():
        logits = found.predictions.labels[labels].logits
        np.testing.assert_allclose(logits, part.logits, rtol=1e-3, atol=1e-4)
    assert found.config["key"] == run.config["key"]


def never(*arguments, **options):
    pytest.fail("trained again")


def test_every_combination_is_one_run(swept):
    assert (swept.done, swept.trained, swept.failures) == (12, 12, {})
    assert len(runs_of(swept)) == 12
    assert len({row["run"] for row in swept.rows}) == 12


def test_runs_are_those_of_train_heads(store, swept, tmp_path):
    row = next(r for r in swept.rows if (r["order"], r["lr"], r["seed"]) == ("ich", 1e-2, 1))
    out = swept.path.parents[1] / "runs"
    options = {"lr": 1e-2, "seed": 1, "validation": 0.25, "progress": False, **QUICK}
    assert train_heads(store, ("ich",), out=out, **options).reused
    alone = train_heads(store, ("ich",), out=tmp_path, **options)
    assert_alike(alone, load_run(row["run"]))


def test_what_is_there_is_not_trained_again(store, swept, monkeypatch, tmp_path):
    monkeypatch.setattr(learning, "fit_together", never)
    out = swept.path.parents[1] / "runs"
    options = {"out": out, "results": tmp_path, "validation": 0.25, **QUICK, **ALONE}
    again = ablate(store, ORDERS, 2, grid={"lr": (1e-4, 1e-2)}, tau=(0.5,), resamples=0, **options)
    assert (again.done, again.trained) == (12, 0)
    assert again.path.name == swept.path.name
    assert "test/ODD@0.5" in again.rows[0]  # a new tau costs no training
    part = ablate(store, "ich,ici", (1,), resamples=0, lr=1e-2, **options)  # two sweeps overlap
    assert (part.done, part.trained) == (1, 0)


def test_a_sweep_goes_on_where_it_was_killed(store, swept, tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    shutil.copytree(swept.path.parents[1] / "runs", runs)
    lost = [load_run(row["run"]).path.name for row in swept.rows[:2]]
    for name in lost:
        shutil.rmtree(runs / name)
    again = ablate(
        store, ORDERS, 2, grid={"lr": (1e-4, 1e-2)}, out=runs, results=tmp_path, resamples=0,
        validation=0.25, **QUICK, **ALONE,
    )  # fmt: skip
    assert (again.done, again.trained) == (12, 2)
    for name in lost:
        first, second = (folder / name / "predictions.npz" for folder in (
            swept.path.parents[1] / "runs", runs))  # fmt: skip
        assert first.read_bytes() == second.read_bytes()


def test_workers_and_stacks_change_no_result(store, swept, tmp_path):
    """Up to rounding, which depends on the number of threads."""
    options = {"grid": {"lr": (1e-4, 1e-2)}, "validation": 0.25, "resamples": 0, "progress": False}
    with forked():
        many = ablate(
            store, ORDERS, 2, out=tmp_path / "a", results=tmp_path, workers=2, **options, **QUICK
        )
    stacked = ablate(
        store, ORDERS, 2, out=tmp_path / "b", results=tmp_path, workers=1, stack=4, **options,
        **QUICK,
    )  # fmt: skip
    assert {row["stack"] for row in stacked.rows} == {4}
    alone, by_many, by_stack = (runs_of(found) for found in (swept, many, stacked))
    for key, run in alone.items():
        assert_alike(by_many[key], run)
        assert_alike(by_stack[key], run)


def test_plans_are_solved_once_for_the_whole_sweep(tmp_path, monkeypatch):
    solved = []
    solve = frozen._solve
    monkeypatch.setattr(frozen, "_solve", lambda *a: solved.append(a[1]) or solve(*a))
    with open_store(small_store(tmp_path / "small.h5")) as store:
        ablate(
            store, "ich; ich,ici; ivc,ich", 2, out=tmp_path, results=tmp_path, resamples=0,
            **QUICK, **ALONE,
        )  # fmt: skip
    assert sorted(solved) == ["activity", "steps"]


def test_rows_add_up(swept):
    for row in swept.rows:
        run = load_run(row["run"])
        again = score(run.predictions, (0.3, 0.6, 0.9))
        for split, values in again.items():
            for name, value in values.items():
                assert row[f"{split}/{name}"] == value
        assert row["test/Acc"] == row["test/Acc correct"] / row["test/Acc videos"]
        assert (row["seed"], row["lr"]) == (
            run.config["train"]["seed"],
            run.config["train"]["lr"],
        )
        assert row["fingerprint"] == run.config["store"]["fingerprint"]
        assert row["seconds"] == sum(facts["seconds"] for facts in run.heads.values())
        assert row["commit"] == run.config["machine"]["commit"]


def test_files_hold_the_rows(swept):
    kept = pq.read_table(swept.path / "results.parquet").to_pylist()
    assert [row["run"] for row in kept] == [row["run"] for row in swept.rows]
    assert [row["test/mAP"] for row in kept] == [row["test/mAP"] for row in swept.rows]
    with (swept.path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["test/Acc"]) for line in lines] == [r["test/Acc"] for r in swept.rows]


def test_the_summary_is_of_the_chosen_runs(swept):
    for row in swept.summary:
        labels = "activity" if row["score"] == "Acc" else "steps"
        values = [
            run[f"{row['split']}/{row['score']}"]
            for run in swept.rows
            if run["variant"] == row["variant"] and run[f"chosen for {labels}"]
        ]
        assert len(values) == row["seeds"] == 2
        assert row["mean"] == pytest.approx(statistics.fmean(values))
        assert row["sd"] == pytest.approx(statistics.stdev(values))
        assert row["settings tried"] == 2


def test_every_order_has_the_best_on_validation(swept):
    headline = {"activity": "Acc", "steps": "mAP"}
    for order in ("none", "ich", "ich,ici"):
        for labels, name in headline.items():
            means = {
                tried: statistics.fmean(
                    row[f"val/{name}"]
                    for row in swept.rows
                    if (row["order"], row["tried"]) == (order, tried)
                )
                for tried in ("lr=0.0001", "lr=0.01")
            }
            (chosen,) = {
                row["tried"]
                for row in swept.rows
                if row["order"] == order and row[f"chosen for {labels}"]
            }
            assert means[chosen] == max(means.values())


def test_the_test_split_chooses_nothing(store, swept):
    """Whatever the test scores say, the choice stays."""
    ablator = Ablator(
        store, ORDERS, 2, {"lr": (1e-4, 1e-2)}, out=swept.path.parents[1] / "runs",
        values={"validation": 0.25, **QUICK}, progress=False,
    )  # fmt: skip
    outcomes = ablator.train()

    def pretend(outcome: Outcome, val: dict[float, float], test: float) -> Outcome:
        metrics = {"val": {"Acc": val[outcome.trial.recipe.train.lr]}, "test": {"Acc": test}}
        return dataclasses.replace(outcome, run=dataclasses.replace(outcome.run, metrics=metrics))

    for val, best in (({1e-4: 0.9, 1e-2: 0.1}, 1e-4), ({1e-4: 0.1, 1e-2: 0.9}, 1e-2)):
        pretended = [
            pretend(outcome, val, test=1 - val[outcome.trial.recipe.train.lr])
            for outcome in outcomes
        ]
        chosen = choose(ablator.sweep, pretended, "activity")
        assert set(chosen.values()) == {(("lr", best),)}
    failed = [
        dataclasses.replace(o, run=None)
        if (o.trial.recipe.train.lr, o.trial.seed) == (1e-2, 1)
        else o
        for o in pretended
    ]  # the better setting lost a seed: it comes after those that went well
    assert set(choose(ablator.sweep, failed, "activity").values()) == {(("lr", 1e-4),)}


def test_differences_are_the_paired_bootstrap(swept):
    by_order = {
        order: [
            Predictions.load(load_run(row["run"]).path / "predictions.npz")
            for row in swept.rows
            if row["order"] == order and row["chosen for steps"]
        ]
        for order in ("none", "ich,ici")
    }
    draws = Bootstrap(by_order["none"][0], "test", resamples=50)
    values = [draws.scores(by_order[order], "mAP") for order in ("ich,ici", "none")]
    expected = interval(values[0] - values[1])
    row = next(
        r
        for r in swept.summary
        if (r["order"], r["score"], r["split"]) == ("ich,ici", "mAP", "test")
    )
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert row["excludes zero"] == expected.excludes_zero
    none = next(r for r in swept.summary if r["reference"])
    assert none["order"] == "none"
    assert none["difference"] is None


def test_implausible_pairs_are_counted_and_named(swept):
    tables = swept.results.tables
    matrices = swept.results.matrices
    for order in ("none", "ich", "ich,ici"):
        runs = [r for r in swept.rows if r["order"] == order and r["chosen for steps"]]
        found = []
        for row in runs:
            seen = load_run(row["run"]).predictions
            rows = (seen.splits == "test") & seen.present
            part = seen.labels["steps"]
            found.append(coprediction(sigmoid(part.logits[rows])))
        q = np.mean(found, axis=0)
        np.testing.assert_allclose(matrices[f"q/{order}"], q, rtol=1e-6)
        above = implausible_pairs(q, part.q_train)
        pairs = [row for row in tables["pairs"] if row["variant"] == order]
        assert len(pairs) == above.sum()  # there are fewer than are cut off
        for row in pairs:
            i, j = part.names.index(row["predicted"]), part.names.index(row["given"])
            assert above[i, j]
            assert row["q"] == pytest.approx(q[i, j])
            assert row["variants with it"] == sum(
                (other["predicted"], other["given"]) == (row["predicted"], row["given"])
                for other in tables["pairs"]
            )


def test_settings_of_the_model_are_rows_of_their_own(store, tmp_path):
    quick = {name: value for name, value in QUICK.items() if name != "relations"}
    found = ablate(
        store, "none; ich; ici", 1, grid={"relations": (2, 4), "transport.lambda": (0.5, 2.0)},
        out=tmp_path, results=tmp_path, resamples=0, **quick, **ALONE,
    )  # fmt: skip
    assert [row["variant"] for row in found.rows] == [
        "none",
        "ich transport_lambda=0.5",
        "ich transport_lambda=2.0",
        "ici relations=2",
        "ici relations=4",
    ]


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_run_that_diverges_is_recorded_and_the_sweep_goes_on(store, tmp_path, monkeypatch):
    options = {
        "grid": {"lr": (1e-3, 1e30)}, "out": tmp_path / "runs", "results": tmp_path,
        "resamples": 20, "validation": 0.25, "clip": 1e30, **QUICK, **ALONE,
    }  # fmt: skip
    found = ablate(store, "none; ich", 2, **options)
    assert found.done == 4
    assert len(found.failures) == 4
    failed = [row for row in found.rows if row["status"] == "failed"]
    assert {row["failed step"] for row in failed} == {2}
    assert all("not finite in epoch 1, step 2" in row["reason"] for row in failed)
    assert {row["chosen setting"] for row in found.summary} == {"lr=0.001"}
    monkeypatch.setattr(learning, "fit_together", never)
    again = ablate(store, "none; ich", 2, **options)
    assert again.failures == found.failures
    monkeypatch.undo()
    tried = []
    fit = learning.fit_together
    monkeypatch.setattr(
        learning, "fit_together", lambda models, *a, **k: tried.append(1) or fit(models, *a, **k)
    )
    ablate(store, "none; ich", 2, retry_failed=True, **options)
    assert len(tried) == 4


def test_plans_that_cannot_be_solved_stop_their_runs_only(store, tmp_path):
    found = ablate(
        store, "none; ich", 1, grid={"transport_temperature": (0.5, 1e-307)}, out=tmp_path,
        transport_lambda=1e-3, results=tmp_path, resamples=0, **QUICK, **ALONE,
    )  # fmt: skip
    assert found.done == 2
    assert list(found.failures) == ["ich transport_temperature=1e-307 seed 0"]
    assert "not finite" in next(iter(found.failures.values()))


def test_where_every_run_fails_that_is_the_error(store, tmp_path):
    with pytest.raises(PcmciError, match="every run failed, the first with: training diverged"):
        ablate(
            store, "none", 1, out=tmp_path, results=tmp_path, lr=1e30, clip=1e30, **QUICK, **ALONE
        )


def test_a_worker_that_was_killed_is_said():
    future: Future[str | None] = Future()
    future.set_exception(BrokenProcessPool("gone"))
    with pytest.raises(PcmciError, match="a worker was killed"):
        pool._result(future)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"grid": {"lr": (1e-3, 1e-2)}}, "--validation 0.1"),
        ({"grid": {"lr": (1e-3,)}, "lr": 1e-2}, "lr is both in --grid and a setting"),
        ({"reference": "ivc"}, "--reference ivc is not among the orders: none; ici"),
        ({"labels": "verbs"}, "--labels 'verbs'"),
        ({"grid": {"validation": (0.1, 0.3)}}, "--grid validation: scores on different videos"),
        ({"validation": 0.999}, "validation 0.999 of"),
        ({"relations": 7}, "relations 7 does not divide the width 16"),
        ({"seeds": (1, 1)}, r"--seeds \[1, 1\]"),
        ({"seeds": 0}, r"--seeds \[\]"),
        ({"seed": 3}, "seed=3: a sweep takes `seeds`"),
        ({"workers": 0}, "--workers 0"),
        ({"stack": 0}, "--stack 0"),
        ({"epochs": 0}, "epochs 0"),
    ],
)
def test_what_cannot_be_planned(store, tmp_path, options, says):
    with pytest.raises(UsageError, match=says):
        ablate(store, "none; ici", out=tmp_path, **{"seeds": 1, "progress": False, **options})
    assert not list(tmp_path.iterdir())


def test_a_script_needs_no_guard(store, tmp_path):
    """Workers do not run the caller's script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import pcmci\n"
        f"store = pcmci.open_store({str(store.path)!r})\n"
        f"table = pcmci.ablate(store, 'none; ivc', 1, out={str(tmp_path)!r}, "
        f"results={str(tmp_path)!r}, workers=2, resamples=0, epochs=1, relations=4, "
        "decoder_heads=4, progress=False)\n"
        "print('done', table.done)\n"
    )
    said = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert said.stdout == "done 2\n"


def test_too_wide_a_stack_is_halved(store, tmp_path, monkeypatch):
    widths = []
    make = pool.make_runs

    def make_few(store, recipes, *arguments, **options):
        widths.append(len(recipes))
        if len(recipes) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.\nmore")
        return make(store, recipes, *arguments, **options)

    monkeypatch.setattr(pool, "make_runs", make_few)
    options = {"out": tmp_path, "results": tmp_path, "resamples": 0, **QUICK, **ALONE}
    found = ablate(store, "none", 5, stack=5, **options)
    assert widths == [5, 2, 3, 1, 2]
    assert found.done == 5

    def make_none(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setattr(pool, "make_runs", make_none)
    again = ablate(store, "none; ivc", 5, stack=5, **options)
    assert set(again.failures.values()) == {"out of memory: CUDA out of memory."}
    assert len(again.failures) == 5  # of ivc; the others are there


def test_plans_of_a_store_that_cannot_be_written_are_kept_with_the_runs(tmp_path, monkeypatch):
    path = small_store(tmp_path / "small.h5")
    (tmp_path / "small.h5.plans").write_text("in the way: nothing can be written here")
    with open_store(path) as store:
        options = {"out": tmp_path / "runs", "results": tmp_path, "resamples": 0, **QUICK, **ALONE}
        ablate(store, "ich", 1, labels="steps", **options)
        assert list((tmp_path / "runs" / "plans").glob("*.npy"))
        monkeypatch.setattr(frozen, "_solve", lambda *a: pytest.fail("solved again"))
        ablate(store, "ich", 2, labels="steps", **options)


def test_taus_may_come_in_any_order(store, swept, tmp_path):
    options = {"out": swept.path.parents[1] / "runs", "results": tmp_path, "resamples": 0}
    found = ablate(
        store, ORDERS, 2, grid={"lr": (1e-4, 1e-2)}, tau=(0.9, 0.3, 0.9), validation=0.25,
        **options, **QUICK, **ALONE,
    )  # fmt: skip
    rows = found.results.tables["densities"]
    assert [row["tau"] for row in rows[:4]] == [0.3, 0.9, 0.3, 0.9]
    write_report(found.path)


def test_a_row_whose_runs_all_failed_stays_in_the_tables(store, tmp_path):
    found = ablate(
        store, "none; ich", 1, grid={"transport_temperature": (0.5, 1e-307)}, out=tmp_path,
        transport_lambda=1e-3, results=tmp_path, resamples=10, reference="ich", **QUICK, **ALONE,
    )  # fmt: skip
    rows = {(r["variant"], r["score"]): r for r in found.summary if r["split"] == "test"}
    lost = rows["ich transport_temperature=1e-307", "mAP"]
    assert (lost["seeds"], lost["failed"], lost["mean"]) == (0, 1, None)
    write_report(found.path)


def test_it_is_public():
    assert package.ablate is ablate


# --- the command ----------------------------------------------------------------------------------

FLAGS = [
    "--epochs", 2, "--relations", 4, "--decoder-heads", 4, "--feedforward", 24, "--workers", 1,
    "--resamples", 20,
]  # fmt: skip


def test_the_command_makes_rows_and_a_page(pcmci, store, tmp_path):
    place = ["--out", tmp_path / "runs", "--results", tmp_path / "ablations", *FLAGS]
    before = pcmci("ablate", "--features", store.path, "--dry-run", *place)
    assert before.code == 0
    assert before.out.startswith("80 runs: 0 are there, 80 to train\nabout ")
    assert not (tmp_path / "runs").exists()
    small = ["--features", store.path, "--orders", "none;ich,ici", "--seeds", 2, *place]
    answer = pcmci("ablate", *small)
    assert answer.code == 0
    for said in ("Acc on test", "mAP on test", "difference to none", "✓", "ich,ici", "reference"):
        assert said in answer.out
    page = tmp_path / "ablations" / next((tmp_path / "ablations").iterdir()) / "index.html"
    assert str(page) in answer.out
    assert page.is_file()
    preview = pcmci("ablate", *small, "--dry-run", "--json").json
    assert (preview["runs"], preview["there"], preview["seconds"]) == (4, 4, None)
    told = pcmci("ablate", *small, "--json").json
    assert (told["done"], told["trained"], told["failed"]) == (4, 0, {})
    assert {row["score"] for row in told["summary"]} == {"Acc", "mAP", "ODD@0.6"}


def test_a_setting_and_a_grid_of_it_do_not_go_together(pcmci, store):
    """Even where the setting is the default's: nothing is dropped silently."""
    answer = pcmci(
        "ablate", "--features", store.path, "--lr", 1e-3, "--grid", "lr=3e-3", "--orders", "none"
    )
    assert answer.code == 2
    assert "lr is both in --grid and a setting of all runs" in answer.err


def test_the_command_fails_where_a_run_failed(pcmci, store, tmp_path):
    answer = pcmci(
        "ablate", "--features", store.path, "--orders", "none", "--seeds", 1, "--validation", 0.25,
        "--grid", "lr=1e-3,1e30", "--clip", 1e30, "--out", tmp_path, "--results", tmp_path, *FLAGS,
    )  # fmt: skip
    assert answer.code == 1
    assert "failed: none lr=1e+30 seed 0: training diverged" in answer.err
    assert "Acc on test" in answer.out


@pytest.mark.parametrize(
    ("number", "to_all"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
def test_a_signal_stops_it_and_leaves_nothing_half_done(store, tmp_path, number, to_all):
    """Sent to the command, or to its workers too, as `scancel` and `timeout` do."""
    child = Child(
        command, "ablate", "--features", store.path, "--seeds", 20, "--out", tmp_path / "runs",
        "--results", tmp_path / "ablations", "--epochs", 30, *FLAGS[2:-4], "--workers", 2,
    )  # fmt: skip
    finished = tmp_path / "runs"
    while not list(finished.glob("small_*")):
        assert child.alive(), child.wait()
        time.sleep(0.1)
    child.send_signal(number, to_all)
    code, said = child.wait()
    assert code == 128 + number
    assert "the same command goes on from here" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not list(finished.glob(".small*"))
    for folder in finished.glob("small_*"):
        load_run(folder)


def test_facts_say_where_the_rows_came_from(swept, store):
    facts = json.loads((swept.path / "sweep.json").read_text())
    assert facts["fingerprint"] == store.fingerprint
    assert [lost["reason"] for lost in facts["lost videos"]] == ["made up", "made up"]
    done, total = (sum(column) for column in zip(*facts["coverage"].values(), strict=True))
    assert (done, total) == (58, 60)
    assert facts["grid"] == {"lr": [1e-4, 1e-2]}
