"""`pcmci store clean`: what a run can still use stays, whatever else lies there."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from synthetic import small_store

from pcmci.cache.nearby import nearby
from pcmci.cache.store import StoreWriter, open_store
from pcmci.heads.config import TransportConfig
from pcmci.heads.training import frozen
from pcmci.heads.training.held import held
from pcmci.heads.training.plans import QUIET_SECONDS, list_plans, remove

CPU = torch.device("cpu")
CONFIGS = (TransportConfig(), TransportConfig(lam=0.5), TransportConfig(refine="contrast"))


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """A store with three plans beside it."""
    path = small_store(tmp_path_factory.mktemp("plans") / "small.zarr", failed=(8,))
    with open_store(path) as store:
        for config in CONFIGS:
            frozen.frozen_weights(store, "activity", config, CPU, progress=False)
    return path


@pytest.fixture
def store(solved, tmp_path):
    """A copy of it, to spoil."""
    path = tmp_path / solved.name
    shutil.copytree(solved, path)
    shutil.copytree(f"{solved}.plans", f"{path}.plans")
    return path


def plans_of(path):
    with open_store(path) as store:
        return list_plans(store)


def can_use(path, monkeypatch):
    """Whether a run with each of the settings finds its plan."""
    found = []
    with monkeypatch.context() as patch, open_store(path) as store:
        patch.setattr(frozen, "_solve", lambda *a: pytest.fail("solved again"))
        for config in CONFIGS:
            try:
                frozen.frozen_weights(store, "activity", config, CPU, progress=False)
                found.append(True)
            except pytest.fail.Exception:
                found.append(False)
    return found


def test_what_a_run_can_use_is_never_deleted(store, pcmci, monkeypatch):
    answer = pcmci("store", "clean", store)
    assert answer.code == 0
    assert "0 of 3 plans deleted" in answer.out
    assert can_use(store, monkeypatch) == [True, True, True]


def test_plans_of_another_content_are_listed_and_then_deleted(store, pcmci, monkeypatch):
    with StoreWriter(store) as writer:
        writer.reset([9])
        writer.fail(9, "no longer there")
    folder = nearby(store, ".plans")
    before = sorted(folder.iterdir())
    listed = pcmci("store", "clean", store, "--dry-run", "--json").json
    assert sorted(folder.iterdir()) == before
    assert len(listed["deleted"]) == 3
    assert listed["bytes"] == sum(path.stat().st_size for path in before)
    with open_store(store) as opened:
        frozen.frozen_weights(opened, "activity", CONFIGS[1], CPU, progress=False)
    answer = pcmci("store", "clean", store)
    assert "the store has changed since" in answer.out
    assert "3 of 4 plans deleted" in answer.out
    assert can_use(store, monkeypatch) == [False, True, False]


def test_while_videos_are_pending_another_content_may_come_back(store):
    with StoreWriter(store) as writer:
        writer.reset([9])
    plans = plans_of(store)
    assert len(plans) == 3
    assert not any(plan.why for plan in plans)
    assert all("pending" in plan.note for plan in plans)


def test_damage_is_told_and_deleted(store, pcmci, monkeypatch):
    folder = nearby(store, ".plans")
    first, second, third = sorted(folder.glob("*.npy"))
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    second.with_suffix(".json").write_text("{")
    third.rename(folder / "0123456789abcdef.npy")
    third.with_suffix(".json").rename(folder / "0123456789abcdef.json")
    (folder / "notes.txt").write_text("mine")
    why = {plan.why for plan in plans_of(store)}
    assert why == {
        "damaged: it is not what was written",
        "its record is damaged",
        "its name is not what its record says",
    }
    assert "3 of 3 plans deleted" in pcmci("store", "clean", store).out
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_formats_of_other_versions(store):
    folder = nearby(store, ".plans")
    for path, change in zip(sorted(folder.glob("*.json")), (1, 99), strict=False):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": change}))
    notes = sorted((plan.why or plan.note) for plan in plans_of(store))
    assert notes == ["", "of a newer pcmci", "of an older pcmci, which solved them otherwise"]


def test_what_is_being_solved_stays_and_what_a_kill_left_goes(store):
    folder = nearby(store, ".plans")
    partial, array = folder / "tmpx.partial", folder / "0123456789abcdef.npy"
    partial.mkdir()
    (partial / "weights.npy").write_bytes(b"x" * 100)
    array.write_bytes(b"y" * 10)  # in its place, and its record not yet

    def unusable():
        return {path for plan in plans_of(store) if plan.why for path in plan.paths}

    assert unusable() == set()  # written just now: another machine's, perhaps
    for path in (partial, partial / "weights.npy"):
        os.utime(path, (0, path.stat().st_mtime - 2 * QUIET_SECONDS))
    with held(partial):
        assert unusable() == set()
    plans = plans_of(store)
    assert unusable() == {partial, array}
    with held(partial):  # somebody began since it was listed
        assert [plan.paths for plan in remove(plans)] == [(array,)]
    assert [plan.paths for plan in remove(plans_of(store))] == [(partial,)]
    assert len(plans_of(store)) == 3


def test_a_solving_run_holds_its_folder(store, monkeypatch):
    seen = []
    solve = frozen._solve

    def look(*arguments):
        for path in nearby(store, ".plans").glob("*.partial"):
            os.utime(path, (0, 0))
            for file in path.iterdir():
                os.utime(file, (0, 0))
        seen.extend(plan for plan in plans_of(store) if plan.paths[0].suffix == ".partial")
        return solve(*arguments)

    monkeypatch.setattr(frozen, "_solve", look)
    with open_store(store) as opened:
        frozen.frozen_weights(opened, "steps", TransportConfig(), CPU, progress=False)
    assert [plan.note for plan in seen] == ["being solved now"]


def test_a_store_without_plans(tmp_path, pcmci):
    path = small_store(tmp_path / "bare.h5")
    answer = pcmci("store", "clean", path)
    assert answer.code == 0
    assert "0 of 0 plans" in answer.out
    assert not Path(f"{path}.plans").exists()
