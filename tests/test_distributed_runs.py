"""A sweep on a Dask cluster: the same runs, read from the store once a worker."""

import os
import signal

import numpy as np
import pytest
from clusters import (
    CountsReads,
    DeadlyRun,
    OtherTorch,
    kill,
    local_client,
    reads,
    refused,
    work_waits_for,
)
from servers import upload
from synthetic import small_store

from pcmci.cache.store import open_store
from pcmci.errors import NoWorker
from pcmci.heads.ablation.ablate import Ablator, ablate
from pcmci.heads.ablation.distributed import Trainers
from pcmci.heads.training.run import load_run
from pcmci.stopping import StoppedError

QUICK = {"epochs": 2, "relations": 4, "decoder_heads": 4, "feedforward": 24, "batch_size": 16}
ORDERS = "none; ich; ici,ich"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with open_store(small_store(folder / "small.zarr", failed=(9, 20))) as opened:
        yield opened


@pytest.fixture(scope="module")
def swept(store, tmp_path_factory):
    """Six runs, trained in this process."""
    return sweep(store, tmp_path_factory.mktemp("swept"))


def cluster(workers, *plugins, environment=None):
    """With as many threads of torch as the one process has: they decide about the last bits."""
    threads = len(os.sched_getaffinity(0))
    return local_client(workers, *plugins, threads=threads, environment=environment)


def sweep(store, out, trainers=None, **options):
    ablator = Ablator(
        store, ORDERS, 2, out=out / "runs", workers=None if trainers else 1, progress=False,
        values=QUICK, trainers=trainers and [trainers], **options,
    )  # fmt: skip
    return ablator.run((0.5,), out / "ablations", resamples=0)


def on(client, store, out, **options):
    with Trainers(client, store, out / "runs", "auto", print) as trainers:
        return sweep(store, out, trainers, **options)


def by_variant(found):
    done = [row for row in found.rows if "run" in row]
    return {(row["order"], row["seed"]): load_run(row["run"]) for row in done}


def assert_same_bits(found, expected):
    found, expected = by_variant(found), by_variant(expected)
    assert found.keys() <= expected.keys()
    for key, run in found.items():
        assert run.config["key"] == expected[key].config["key"]
        for labels, part in run.predictions.labels.items():
            there = expected[key].predictions.labels[labels].logits
            np.testing.assert_array_equal(part.logits, there)


def leftovers(out):
    return [path for path in (out / "runs").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("stack", [None, 2])
def test_runs_are_those_of_one_process(stack, store, swept, tmp_path):
    with cluster(2, CountsReads()) as client:
        found = on(client, store, tmp_path, stack=stack)
        chunks = store.chunks.layout("vlm").chunks + store.chunks.layout("video").chunks
        # Both encoders' chunks once, whatever the number of runs (and the plans read one more).
        assert all(0 < count <= chunks for count in client.run(reads).values())
    assert (found.done, found.trained, found.failures) == (6, 6, {})
    if stack is None:
        assert_same_bits(found, swept)
    assert by_variant(found).keys() == by_variant(swept).keys()
    assert not leftovers(tmp_path)


def test_a_killed_worker_costs_no_run(store, swept, tmp_path):
    with cluster(2) as client, Trainers(client, store, tmp_path / "runs", "auto", print) as t:
        train = t.train

        def train_and_kill(*arguments):
            for number, outcome in enumerate(train(*arguments)):
                if number == 0:
                    kill(client, "1")
                yield outcome

        t.train = train_and_kill
        found = sweep(store, tmp_path, t)
    assert (found.done, found.failures) == (6, {})
    assert_same_bits(found, swept)


def test_a_stack_that_kills_its_workers_fails_and_no_other(store, swept, tmp_path):
    with cluster(2, DeadlyRun(seed=1)) as client:
        found = on(client, store, tmp_path)
    assert found.done == 3
    assert set(found.failures.values()) == {"3 workers were killed at it (out of memory?)"}
    assert all("seed 1" in name for name in found.failures)
    assert_same_bits(found, swept)


def test_a_worker_with_another_torch_gets_no_work(store, swept, tmp_path, capsys):
    with cluster(2) as client, Trainers(client, store, tmp_path / "runs", "auto", print) as t:
        names = {a: str(w["name"]) for a, w in client.scheduler_info()["workers"].items()}
        (other,) = names.keys() - {t._first}
        client.register_plugin(OtherTorch(names[other]))
        with work_waits_for(refused(names[other])):
            found = sweep(store, tmp_path, t)
    assert f"worker {names[other]} gets no work: torch 1.0, not" in capsys.readouterr().out
    assert_same_bits(found, swept)


def test_a_folder_that_no_worker_sees_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.touch", lambda path: None)
    with cluster(1) as client, pytest.raises(NoWorker, match=r"does not see .*runs: --out"):
        on(client, store, tmp_path)


def test_a_store_in_a_bucket(s3, store, swept, tmp_path):
    """The runs are the same, and its plans lie in the folder that all share."""
    upload(store.path, s3, "small.zarr")
    access = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with (
        open_store(f"s3://{s3}/small.zarr") as there,
        cluster(1, environment=access) as client,
    ):
        found = on(client, there, tmp_path)
    assert_same_bits(found, swept)
    assert list((tmp_path / "runs" / "plans").glob("*.npy"))


def test_a_stopped_sweep_goes_on(store, swept, tmp_path):
    with cluster(1) as client, Trainers(client, store, tmp_path / "runs", "auto", print) as t:
        train = t.train

        def train_and_stop(groups, memory, on_epochs):
            for outcome in train(groups, memory, on_epochs):
                yield outcome
                os.kill(os.getpid(), signal.SIGINT)
                on_epochs(0)

        t.train = train_and_stop
        with pytest.raises(StoppedError, match="runs are left: the same command goes on"):
            sweep(store, tmp_path, t)
    again = sweep(store, tmp_path)
    assert again.done == 6
    assert 0 < again.trained < 6
    assert_same_bits(again, swept)


def test_the_command(store, swept, tmp_path, pcmci):
    with cluster(2) as client:
        address = client.cluster.scheduler_address
        command = ["ablate", "--features", store.path, "--orders", ORDERS, "--seeds", 2]
        command += ["--out", tmp_path / "runs", "--results", tmp_path / "tables", "--tau", 0.5]
        command += ["--resamples", 0, "--scheduler", address]
        for name, value in QUICK.items():
            command += [f"--{name.replace('_', '-')}", value]
        preview = pcmci(*command, "--dry-run", "--json")
        assert preview.json["groups"] == 6
        assert preview.json["workers"] == 2
        answer = pcmci(*command)
        assert answer.code == 0, answer.err
        assert "6 runs (0 of them were there)" in answer.out
        assert "dashboard: " in answer.err
        assert "worker 0: " in answer.out
        assert " runs, waited " in answer.out
        refused = pcmci(*command, "--workers", 2)
        assert refused.code == 2
        assert "the scheduler has its workers" in refused.err
    again = ablate(
        store, ORDERS, 2, out=tmp_path / "runs", results=tmp_path, resamples=0, progress=False,
        workers=1, **QUICK,
    )  # fmt: skip
    assert again.trained == 0
    assert_same_bits(again, swept)
