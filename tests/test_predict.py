"""From films to labels through the command line, both phases and back."""

import json
import os
import shutil
from pathlib import Path

import pytest

QUICK = ("--epochs", 2, "--feedforward", 16, "--decoder-heads", 2, "--relations", 2)


@pytest.fixture
def trained(pcmci, tiny_videos, tiny_encoders, tmp_path, monkeypatch):
    """A store under features/ and a run under runs/, made as a user would."""
    monkeypatch.chdir(tmp_path)
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in tiny_encoders.items()]
    extracted = pcmci(
        "extract", "--dataset", "folder", "--videos", tiny_videos, "--frames", 8, *flags
    )
    assert extracted.code == 0, extracted.err
    answer = pcmci("train-heads", "--order", "ich,ici", "--json", *QUICK)
    assert answer.code == 0, answer.err
    return answer.json


def test_the_way_from_films_to_scores(pcmci, trained):
    scores = trained["scores"]["test"]
    assert scores["videos"] == 3
    assert scores["with features"] == 2
    assert scores["coverage"] == pytest.approx(2 / 3)
    assert trained["heads"]["activity"]["trained parameters"] > 0


def test_evaluating_again_gives_the_same_scores_and_other_taus(pcmci, trained):
    answer = pcmci("evaluate", trained["run"], "--tau", "0.2:0.8:0.2", "--json")
    scores = answer.json["scores"]["test"]
    assert scores["mAP"] == trained["scores"]["test"]["mAP"]
    curve = [scores[f"ODD@{tau}"] for tau in ("0.2", "0.4", "0.6", "0.8")]
    assert curve == sorted(curve, reverse=True)
    assert curve[2] == trained["scores"]["test"]["ODD@0.6"]
    assert "0.8" in pcmci("evaluate", trained["run"], "--tau", "0.2,0.8").out


def test_new_films_get_the_likeliest_labels(pcmci, trained, tiny_videos):
    answer = pcmci("predict", trained["run"], tiny_videos / "film3.mp4", "--top", 2, "--json")
    assert answer.code == 0
    ranked = answer.json["predictions"][str(tiny_videos / "film3.mp4")]
    assert {entry["label"] for entry in ranked["activity"]} == {"coffee", "tea"}
    assert sum(entry["probability"] for entry in ranked["activity"]) == pytest.approx(1, abs=1e-5)
    assert len(ranked["steps"]) == 2


def test_experts_are_asked_one_by_one(pcmci, trained, tiny_videos):
    film = tiny_videos / "film3.mp4"
    made = pcmci("train-heads", "--head", "experts", "--experts-of", "v,p", *QUICK)
    assert made.code == 0, made.err
    assert "disagreement" in made.out
    run = made.out.splitlines()[-1].rpartition(" (")[0].split()[-1]  # its size is in brackets
    answer = pcmci("predict", run, film, "--json")
    assert answer.code == 0, answer.err
    for labels in ("activity", "steps"):
        found = answer.json["experts"][str(film)][labels]
        assert 0 <= found["disagreement"] <= 1
        assert list(found["experts"]) == ["v", "p"]
        for ranked in found["experts"].values():
            likely = [entry["probability"] for entry in ranked]
            assert likely == sorted(likely, reverse=True)
    shown = pcmci("predict", run, film, "--top", 1).out
    assert "    v: " in shown
    assert "    disagreement: " in shown
    assert "experts" not in pcmci("predict", trained["run"], film, "--json").json


def test_a_film_is_explained_alike_from_the_store_and_from_its_file(pcmci, trained, tiny_videos):
    film, broken = (tiny_videos / name for name in ("film3.mp4", "broken.mp4"))
    given = ("explain", trained["run"], "film3", film, broken, "--videos", tiny_videos)
    answer = pcmci(*given, "--json")
    assert answer.code == 1, answer.err
    assert list(answer.json["failures"]) == [str(broken)]
    stored, new = answer.json["videos"]
    assert (stored["split"], new["split"]) == ("test", None)
    assert stored["frames"] == new["frames"]
    assert len(new["frames"]["seconds"]) == 8
    predicted = pcmci("predict", trained["run"], film, "--json").json["predictions"][str(film)]
    for labels, part in new["labels"].items():
        assert part["logits"] == pytest.approx(stored["labels"][labels]["logits"], abs=1e-5)
        assert part["right"] is None
        best = predicted[labels][0]
        assert part["shown"][0] == best["label"]
        assert max(part["probabilities"]) == pytest.approx(best["probability"], abs=1e-5)
    pages = [Path(page) for page in answer.json["pages"]]
    assert (pages[0].name, pages[-1].name, len(pages)) == ("film3.html", "index.html", 3)
    page = pages[0].read_text(encoding="utf-8")
    # the strip, and over the attention of both label sets: a token of V is a frame here
    assert page.count("data:image/jpeg") == 3 * 8


def test_a_film_that_cannot_be_read_is_named_and_the_others_are_answered(
    pcmci, trained, tiny_videos
):
    films = [tiny_videos / name for name in ("film3.mp4", "broken.mp4")]
    answer = pcmci("predict", trained["run"], *films)
    assert answer.code == 1
    assert str(films[0]) in answer.out
    assert str(films[1]) in answer.err
    assert str(films[1]) not in answer.out


def test_a_film_may_be_called_anything(pcmci, trained, tiny_videos, tmp_path):
    names = [b"caf\xe9.mp4", b"\x1b[31mred[id].mp4", "שלום 茶.mp4".encode()]
    films = [os.fsdecode(os.fsencode(tmp_path) + b"/" + name) for name in names]
    for film in films:
        shutil.copy(tiny_videos / "film3.mp4", film)
    answer = pcmci("predict", trained["run"], *films)
    assert answer.code == 0, answer.err
    lines = [line for line in answer.out.splitlines() if not line.startswith("  ")]
    assert [line.rpartition("/")[2] for line in lines] == [
        "caf\\xe9.mp4", "\\x1b[31mred[id].mp4", "שלום 茶.mp4",
    ]  # fmt: skip
    found = pcmci("predict", trained["run"], *films, "--json").json["predictions"]
    assert list(found) == films
    lost = pcmci("predict", trained["run"], films[0] + "x", "--json")
    assert (lost.code, list(lost.json["failures"])) == (1, [films[0] + "x"])


def test_from_another_folder_and_without_its_config(
    pcmci, tiny_clip, tiny_videos, tiny_encoders, tmp_path, monkeypatch
):
    """A config is named by a path, which is not what it is."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    shutil.copy(tiny_clip, here / "mine.json")
    monkeypatch.chdir(here)
    flags = [
        f"--{k.replace('_', '-')}={v}" for k, v in {**tiny_encoders, "vlm": "mine.json"}.items()
    ]
    extract = ("extract", "--dataset", "folder", "--videos", tiny_videos, "--frames", 8, *flags)
    assert pcmci(*extract).code == 0
    run = here / pcmci("train-heads", "--order", "none", "--json", *QUICK).json["run"]
    before = pcmci("store", "info", "features/folder.zarr", "--json").json
    film = tiny_videos / "film3.mp4"
    answer = pcmci("predict", run, film, "--json")
    monkeypatch.chdir(there)
    assert pcmci("predict", run, film, "--json").json == answer.json
    # the same extraction from there, and with the config there
    shutil.move(here / "mine.json", there / "mine.json")
    assert pcmci(*extract, "--out", here / "features" / "folder.zarr").code == 0
    assert pcmci("store", "info", here / "features/folder.zarr", "--json").json == before | {
        "path": str(here / "features/folder.zarr")
    }
    lost = pcmci("predict", run, film)
    assert lost.code == 2
    assert "mine.json is not there" in lost.err
    assert "--vlm names where it lies now" in lost.err
    assert pcmci("predict", run, film, "--vlm", "mine.json", "--json").json == answer.json


def test_a_store_can_be_looked_into_checked_and_copied(pcmci, trained, tmp_path):
    store = tmp_path / "features" / "folder.zarr"
    info = pcmci("store", "info", store, "--json").json
    assert info["status"] == {"pending": 0, "done": 8, "failed": 1, "missing": 1}
    assert pcmci("store", "verify", store).code == 0
    failures = pcmci("store", "failures", store).out
    assert "broken" in failures
    assert "lost" in failures
    copy = tmp_path / "copy.h5"
    assert pcmci("store", "convert", store, copy).code == 0
    assert pcmci("store", "info", copy, "--json").json["fingerprint"] == info["fingerprint"]
    again = pcmci("store", "convert", store, copy)
    assert again.code == 1
    assert "name another target, or delete it first" in again.err
    chunk = next((store / "video").glob("c.0*"))
    content = bytearray(chunk.read_bytes())
    content[10] ^= 1
    chunk.write_bytes(content)
    answer = pcmci("store", "verify", store, "--json")
    assert answer.code == 1
    assert any("film0" in damage["ids"] for damage in answer.json["damage"])
    refused = pcmci("train-heads", "--features", store, "--seed", 1, *QUICK)
    assert refused.code == 1
    assert "film0" in refused.err
    assert len([line for line in refused.err.splitlines() if "damaged" in line]) == 1


def test_two_stores_are_not_guessed_between(pcmci, trained, tmp_path):
    pcmci("store", "convert", "features/folder.zarr", "features/copy.h5")
    answer = pcmci("train-heads", "--order", "none")
    assert answer.code == 2
    assert "features/copy.h5 | features/folder.zarr" in answer.err


def test_json_is_json_and_nothing_else(pcmci, trained):
    again = pcmci("train-heads", "--order", "ich,ici", "--json", *QUICK)
    assert json.loads(again.out)["reused"] is True


@pytest.mark.filterwarnings("ignore:No artists")  # too few predictions for a diagram
def test_a_folder_whose_name_is_not_utf8(pcmci, trained, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    shutil.copytree(tmp_path / "features", odd)
    store = f"{odd}/folder.zarr"
    assert pcmci("store", "info", store).code == 0
    assert pcmci("store", "info", store, "--json").json["path"] == store
    some = ("ablate", "--features", store, "--orders", "none", "--seeds", 1, "--resamples", 0)
    for flag in ("--out", "--results"):
        refused = pcmci(*some, flag, odd, *QUICK)
        assert refused.code == 2
        assert f"{flag} {tmp_path}/caf\\xe9: its name is not UTF-8" in refused.err
    answer = pcmci(*some, "--json", *QUICK)
    assert answer.code == 0, answer.err
    again = pcmci("report", answer.json["results"])
    assert again.code == 0
