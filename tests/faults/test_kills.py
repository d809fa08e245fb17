"""SIGKILL at any moment: what was finished is there, and the rest goes on."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from synthetic import small_store

from faults.conftest import content, harm, in_a_child, short_and_long
from pcmci.cache.formats.hdf5 import Hdf5Chunks
from pcmci.cache.formats.zarr import ZarrChunks
from pcmci.cache.store import open_store
from pcmci.cache.writing import journal, writer
from pcmci.extract.batching import Batcher
from pcmci.extract.pipeline import extract
from pcmci.extract.video.decoding import Decoder
from pcmci.heads.ablation.ablate import ablate
from pcmci.heads.training import learning
from pcmci.heads.training.run import load_run, train_heads

STAGES = {
    "decode": [(Decoder, "prepare")],
    "encode": [(Batcher, "_encode")],
    "journal": [(journal.Journal, "append")],
    "chunk write": [(ZarrChunks, "write"), (Hdf5Chunks, "write")],
    "wait for the disk": [(ZarrChunks, "sync"), (Hdf5Chunks, "sync")],
    "commit": [(writer.StoreWriter, "_commit")],
}


def kill_within(places, nth: int, delay: float) -> None:
    """In this process: SIGKILL so many seconds after the nth call of one of these has begun."""
    seen = [0]
    for holder, name in places:
        real = getattr(holder, name)

        def counted(*arguments, real=real, **options):
            seen[0] += 1
            if seen[0] == nth:
                if delay == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return real(*arguments, **options)

        setattr(holder, name, counted)


def killed_extraction(dataset, config, out, stage: str, nth: int, delay: float) -> None:
    writer.StoreWriter.__init__.__kwdefaults__["sync_seconds"] = 0.0  # commits all the time
    kill_within(STAGES[stage], nth, delay)
    extract(dataset, out, config, progress=False)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
@short_and_long("kills", 6, 100)
def test_an_extraction(dataset, config, whole, tmp_path, suffix, kills, tally):
    rng = np.random.default_rng(0)
    expected = content(whole)
    for turn in range(kills):
        stage = list(STAGES)[turn % len(STAGES)]
        nth = int(rng.integers(1, {"journal": 10, "decode": 9}.get(stage, 4) + 1))
        delay = float(rng.choice([0, rng.uniform(0, 0.002), rng.uniform(0, 0.05)]))
        out = tmp_path / f"{turn}{suffix}"

        ended = in_a_child(killed_extraction, dataset, config, out, stage, nth, delay)
        assert ended in (0, -signal.SIGKILL)
        died = ended != 0
        if out.exists():
            assert harm(out) == []
            for name, video in content(out).items():
                assert video[0] == 0 or video == expected[name]
        extract(dataset, out, config, progress=False)
        assert content(out) == expected
        assert harm(out) == []
        tally(f"SIGKILL of an extraction, {suffix}", **{
            "survived": int(died), "too late to hit": int(not died), "videos lost": 0,
        })  # fmt: skip


RUN_PLACES = [
    (learning, "fit_together"), (learning, "predict_logits"), (learning, "save_file"),
    (learning, "_write_json"), (learning, "score"),
]  # fmt: skip
QUICK = {"epochs": 3, "relations": 4, "decoder_heads": 4, "feedforward": 24, "progress": False}


def killed_training(path, out, nth: int, delay: float) -> None:
    kill_within(RUN_PLACES, nth, delay)
    with open_store(path) as store:
        train_heads(store, ("ich",), out=out, **QUICK)


def killed_sweep(path, out, nth: int, options: dict) -> None:
    kill_within(RUN_PLACES, nth, 0)
    with open_store(path) as store:
        ablate(store, "none; ich; ich,ici", 2, out=out, **options)


@short_and_long("kills", 4, 40)
def test_a_training(tmp_path, kills, tally):
    """A run folder is whole or not there."""
    rng = np.random.default_rng(1)
    with open_store(small_store(tmp_path / "small.h5")) as store:
        whole = train_heads(store, ("ich",), out=tmp_path / "whole", **QUICK)
        for turn in range(kills):
            out = tmp_path / f"runs{turn}"
            nth, delay = int(rng.integers(1, 8)), float(rng.choice([0, rng.uniform(0, 0.03)]))

            ended = in_a_child(killed_training, store.path, out, nth, delay)
            for folder in out.glob("small_*"):
                assert load_run(folder).metrics == whole.metrics
            again = train_heads(store, ("ich",), out=out, **QUICK)
            assert again.metrics == whole.metrics
            died = ended != 0
            tally("SIGKILL of train-heads", **{"survived": int(died), "not hit": int(not died)})


@short_and_long("kills", 2, 20)
def test_a_sweep(tmp_path, kills, tally):
    rng = np.random.default_rng(2)
    options = {"results": tmp_path, "workers": 1, "resamples": 0, **QUICK}
    with open_store(small_store(tmp_path / "small.h5")) as store:
        whole = ablate(store, "none; ich; ich,ici", 2, out=tmp_path / "whole", **options)
        for turn in range(kills):
            out = tmp_path / f"runs{turn}"
            nth = int(rng.integers(1, 40))

            ended = in_a_child(killed_sweep, store.path, out, nth, options)
            there = {folder.name: load_run(folder) for folder in out.glob("small_*")}
            again = ablate(store, "none; ich; ich,ici", 2, out=out, **options)
            assert again.trained == 6 - len(there)
            scores = [[row["test/Acc"], row["test/mAP"]] for row in again.rows]
            assert scores == [[row["test/Acc"], row["test/mAP"]] for row in whole.rows]
            died = ended != 0
            tally("SIGKILL of ablate", **{"survived": int(died), "not hit": int(not died)})


def test_workers_leave_with_a_sweep_that_was_killed(tmp_path):
    """Nobody trains on for a parent that is gone."""
    import subprocess
    import sys

    import psutil

    path = small_store(tmp_path / "small.h5")
    process = subprocess.Popen(
        [sys.executable, "-m", "pcmci", "ablate", "--features", path, "--workers", "2", "--epochs",
         "500", "--relations", "4", "--decoder-heads", "4", "--feedforward", "24", "--seeds", "9",
         "--out", tmp_path / "runs", "--results", tmp_path],
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while not list((tmp_path / "runs").glob(".small*")):
        assert process.poll() is None
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    psutil.wait_procs(family)
