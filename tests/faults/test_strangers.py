"""Files from strangers: no code runs, no path leaves its folder, nothing is without a bound."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from made_up import made_up_store
from synthetic import names, small_store, small_table

from pcmci.cache.store import open_store
from pcmci.errors import AnnotationError, PcmciError
from pcmci.extract.datasets import coin, files, load_dataset
from pcmci.heads.ablation.ablate import ablate
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.training.run import load_run, train_heads
from pcmci.report.rows import read_rows

QUICK = {"epochs": 1, "relations": 4, "decoder_heads": 4, "feedforward": 24, "progress": False}


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_in_the_predictions_is_not_run(tmp_path):
    hit = tmp_path / "hit"
    with open_store(small_store(tmp_path / "small.h5")) as store:
        run = train_heads(store, (), out=tmp_path / "runs", **QUICK)
    evil = np.array([Evil(hit)], dtype=object)
    pickle.dumps(evil)
    np.savez(run.path / "predictions.npz", ids=evil, splits=evil, sessions=evil, present=evil)
    with pytest.raises(PcmciError, match="predictions cannot be read"):
        Predictions.load(run.path / "predictions.npz")
    assert not hit.exists()


def test_a_pickle_in_the_rows_of_a_report_is_not_run(tmp_path):
    hit = tmp_path / "hit"
    with open_store(small_store(tmp_path / "small.h5")) as store:
        found = ablate(store, "none", 1, out=tmp_path, results=tmp_path, workers=1, **QUICK)
    np.savez(found.path / "coprediction.npz", truth=np.array([Evil(hit)], dtype=object))
    with pytest.raises(PcmciError, match="the rows cannot be read"):
        read_rows(found.path)
    assert not hit.exists()


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a/b", "..", "x" * 500, "ä ö"])
def test_a_store_cannot_name_a_folder_outside(tmp_path, name):
    """The data set's name is a part of the names of runs and tables."""
    path = made_up_store(
        tmp_path / "down.h5", name,
        names("activity", 3), names("step", 5), small_table(), frames=4, width=16, video_width=24,
    )  # fmt: skip
    place = tmp_path / "deep" / "down"
    with open_store(path) as store:
        run = train_heads(store, (), out=place / "runs", **QUICK)
        found = ablate(
            store, "none", 1, out=place / "runs", results=place / "tables", workers=1, **QUICK
        )
    assert run.path.parent == place / "runs"
    assert found.path.parent == place / "tables"
    assert load_run(run.path).config["store"]["spec"]["dataset"] == name
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["down"]


def test_annotations_have_a_bound(tmp_path, monkeypatch):
    """Before they are read: a file of a terabyte costs no more than its first bytes."""
    path = tmp_path / "COIN.json"
    with path.open("wb") as file:
        file.truncate(files.MOST_BYTES + 1)  # sparse: nothing is written
    with pytest.raises(AnnotationError, match="more than 256 MiB"):
        coin.parse(tmp_path, path)
    monkeypatch.setattr(files, "MOST_BYTES", 2**20)
    bomb = tmp_path / "COIN.json.gz"
    bomb.write_bytes(gzip.compress(bytes(2**26)))  # 64 MiB of zeros in 64 KiB
    assert bomb.stat().st_size < 2**17
    with pytest.raises(AnnotationError, match=r"COIN\.json\.gz: more than 1 MiB"):
        coin.parse(tmp_path, bomb)


def test_an_annotation_cannot_name_a_file_outside(tmp_path, tiny_videos):
    """Not by `..`, not by an absolute path, not through a link."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes((tiny_videos / "film0.mp4").read_bytes())
    inside = tmp_path / "films"
    inside.mkdir()
    (inside / "link.mp4").symlink_to(secret)
    (inside / "film1.mp4").write_bytes((tiny_videos / "film1.mp4").read_bytes())
    for name in ("../secret.mp4", str(secret), "a/../../secret.mp4"):
        (inside / "labels.csv").write_text(
            f"video,split,activity,steps\n{name},train,tea,pour\nfilm1.mp4,test,tea,pour\n"
        )
        with pytest.raises(PcmciError, match="secret"):
            load_dataset("folder", inside)
    (inside / "labels.csv").write_text(
        "video,split,activity,steps\nlink.mp4,train,tea,pour\nfilm1.mp4,test,tea,pour\n"
    )
    found = {video.id: video.path for video in load_dataset("folder", inside).videos}
    assert found["link"] is None
    assert found["film1"] == inside / "film1.mp4"
