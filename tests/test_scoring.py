"""From predictions to scores: what counts, what does not, and that a file says it all again."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_up_predictions import STEPS, TASKS, TEST, VAL, make
from sklearn.metrics import average_precision_score

from pcmci.errors import PcmciError
from pcmci.heads.scoring.metrics import coprediction, implausible_density, off_diagonal_density
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.scoring.scores import class_ap, score, score_split, sigmoid, softmax


def changed(predictions: Predictions, labels: str, **changes: object) -> Predictions:
    part = dataclasses.replace(predictions.labels[labels], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(predictions, labels={**predictions.labels, labels: part})


# Logits to probabilities.

finite = st.floats(-1e4, 1e4, width=32)


@given(arrays(np.float32, st.integers(1, 6), elements=finite))
def test_sigmoid_is_its_formula_without_overflow(x: np.ndarray) -> None:
    with np.errstate(all="raise", under="ignore"):
        found = sigmoid(x)
    expected = [1 / (1 + math.exp(-v)) if v > -700 else 0 for v in x.tolist()]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-300)


def test_sigmoid_of_nothing_at_all_is_zero() -> None:
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-np.inf, np.inf], dtype=np.float32)).tolist() == [0, 1]


@given(arrays(np.float32, (3, 4), elements=finite))
def test_softmax_is_a_distribution_that_no_shift_moves(x: np.ndarray) -> None:
    with np.errstate(all="raise", under="ignore"):
        found = softmax(x)
        np.testing.assert_allclose(softmax(x.astype(np.float64) + 1000), found, atol=1e-9)
    np.testing.assert_allclose(found.sum(-1), 1)
    assert (found[np.arange(3), x.argmax(-1)] == found.max(-1)).all()


# Counts.


def test_every_split_is_scored_by_itself() -> None:
    predictions = make()
    scores = score(predictions)
    assert list(scores) == ["test", "val"]
    for split, n in (("test", TEST), ("val", VAL)):
        rows = predictions.splits == split
        assert scores[split]["videos"] == n
        alone = Predictions(
            predictions.ids[rows],
            predictions.splits[rows],
            predictions.sessions[rows],
            predictions.present[rows],
            {
                name: dataclasses.replace(part, logits=part.logits[rows], target=part.target[rows])
                for name, part in predictions.labels.items()
            },
        )
        assert score(alone) == {split: scores[split]}


def test_coverage_is_the_share_of_videos_with_features() -> None:
    scores = score(make())
    assert (scores["test"]["videos"], scores["test"]["with features"]) == (30, 28)
    assert scores["test"]["coverage"] == pytest.approx(28 / 30)
    assert scores["val"]["coverage"] == pytest.approx(9 / 10)


def test_an_absent_video_is_wrong_and_still_counted() -> None:
    predictions = make()
    part = predictions.labels["activity"]
    # Label 0 is what argmax says of a row of -inf.
    target = np.where(predictions.present, part.logits.argmax(1), 0).astype(np.int32)
    scores = score(changed(predictions, "activity", target=target))["test"]
    assert (scores["Acc correct"], scores["Acc videos"]) == (28, 30)
    assert scores["Acc"] == pytest.approx(28 / 30)


def test_a_video_without_an_activity_is_not_asked_for_one() -> None:
    predictions = make()
    target = predictions.labels["activity"].target.copy()
    target[:6] = -1
    scores = score(changed(predictions, "activity", target=target))
    assert scores["test"]["Acc videos"] == 24
    nothing = changed(predictions, "activity", target=np.full_like(target, -1))
    empty = score(nothing)["test"]
    assert (empty["Acc"], empty["Acc correct"], empty["Acc videos"]) == (None, 0, 0)


def test_an_absent_video_ranks_last() -> None:
    predictions = make()
    part, test = predictions.labels["steps"], predictions.splits == "test"
    lowest = np.where(np.isneginf(part.logits), -1e3, part.logits)
    expected = [
        average_precision_score(part.target[test, c], lowest[test, c]) for c in range(STEPS - 1)
    ]
    found = class_ap(part, test)
    np.testing.assert_allclose(found[:-1], expected)
    assert math.isnan(found[-1])
    scores = score(predictions)["test"]
    assert scores["mAP"] == pytest.approx(np.mean(expected))
    assert scores["mAP/6"] == pytest.approx(np.sum(expected) / 6)
    assert scores["mAP w/o idle"] == pytest.approx(np.mean(expected[1:]))
    assert scores["mAP classes"] == 5


def test_losing_a_video_never_helps() -> None:
    """Coverage cannot be traded for a score: without a right video, Acc and mAP are no higher."""
    predictions = make()
    steps, activity = predictions.labels["steps"], predictions.labels["activity"]
    perfect = changed(predictions, "steps", logits=10.0 * steps.target - 5)
    perfect = changed(perfect, "activity", logits=10.0 * np.eye(TASKS)[activity.target])
    perfect = dataclasses.replace(perfect, present=np.ones(TEST + VAL, dtype=bool))
    lossy = dataclasses.replace(perfect, present=predictions.present)
    for name, part in perfect.labels.items():
        there = np.where(predictions.present[:, None], part.logits, -np.inf)
        lossy = changed(lossy, name, logits=there)
    best, worse = score(perfect)["test"], score(lossy)["test"]
    assert best["Acc"] == best["mAP"] == 1
    assert worse["Acc"] < 1  # type: ignore[operator]
    assert worse["mAP"] < 1  # type: ignore[operator]


def test_videos_without_labels_rank_last_where_the_label_set_says_so() -> None:
    """The Charades rule; a high score of an unlabelled video costs nothing then."""
    for unlabelled_last in (False, True):
        predictions = make(unlabelled_last=unlabelled_last)
        part, test = predictions.labels["steps"], predictions.splits == "test"
        target = part.target.copy()
        target[:10] = 0
        loud = part.logits.copy()
        loud[:10] = 50
        before = changed(predictions, "steps", target=target)
        after = changed(before, "steps", logits=loud)
        same = score(before)["test"]["mAP"] == score(after)["test"]["mAP"]
        assert same == unlabelled_last
        if unlabelled_last:
            ap = class_ap(after.labels["steps"], test)
            hushed = np.where(np.arange(40)[:, None] < 10, -60, part.logits.clip(-50))
            expected = average_precision_score(target[test, 1], hushed[test, 1])
            assert ap[1] == pytest.approx(expected)


def test_a_split_without_a_single_positive_has_no_map() -> None:
    predictions = make()
    nothing = np.zeros_like(predictions.labels["steps"].target)
    scores = score(changed(predictions, "steps", target=nothing))["test"]
    assert (scores["mAP"], scores["mAP w/o idle"], scores["mAP classes"]) == (None, None, 0)


# ODD.


def test_densities_are_those_of_the_videos_with_features() -> None:
    predictions = make()
    part = predictions.labels["steps"]
    seen = (predictions.splits == "test") & predictions.present
    q = coprediction(1 / (1 + np.exp(-part.logits[seen].astype(np.float64))))
    truth = coprediction(part.target[seen])
    scores = score(predictions, taus=(0.3, 0.6))["test"]
    for tau in (0.3, 0.6):
        assert scores[f"ODD@{tau}"] == off_diagonal_density(q, tau)
        assert scores[f"ODD@{tau} truth"] == off_diagonal_density(truth, tau)
        expected = implausible_density(q, part.q_train, tau)
        assert scores[f"ODD@{tau} implausible"] == expected
    assert scores["ODD undefined pairs"] == 0


def test_labels_that_are_never_predicted_are_counted() -> None:
    predictions = make()
    logits = predictions.labels["steps"].logits.copy()
    logits[:, 2] = -np.inf
    scores = score(changed(predictions, "steps", logits=logits))["test"]
    assert scores["ODD undefined pairs"] == STEPS - 1


def test_predicting_the_truth_has_the_truths_density() -> None:
    predictions = make()
    part = predictions.labels["steps"]
    sure = np.where(part.target == 1, 1e4, -1e4).astype(np.float32)
    scores = score(changed(predictions, "steps", logits=sure))["test"]
    assert scores["ODD@0.6"] == scores["ODD@0.6 truth"]


def test_the_headline_threshold_is_the_papers() -> None:
    densities = [name for name in score(make())["test"] if name.startswith("ODD@")]
    assert densities == ["ODD@0.6", "ODD@0.6 truth", "ODD@0.6 implausible"]


def test_one_label_set_alone_has_its_scores_alone() -> None:
    predictions = make()
    for labels, others in (("activity", "mAP"), ("steps", "Acc")):
        alone = dataclasses.replace(predictions, labels={labels: predictions.labels[labels]})
        scores = score(alone)["test"]
        assert scores.items() <= score(predictions)["test"].items()
        assert not any(name.startswith(others) for name in scores)


def test_no_video_at_all_is_no_score_and_no_crash() -> None:
    scores = score_split(make(), np.zeros(TEST + VAL, dtype=bool), taus=(0.6,))
    assert scores["videos"] == 0
    assert {scores[name] for name in ("coverage", "Acc", "mAP")} == {None}


def test_scores_are_plain_json() -> None:
    scores = score(make())
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


# The file.


def test_predictions_survive_their_file(tmp_path: Path) -> None:
    for unlabelled_last in (False, True):
        saved = make(unlabelled_last=unlabelled_last)
        saved.save(tmp_path / "predictions.npz")
        loaded = Predictions.load(tmp_path / "predictions.npz")
        for name in ("ids", "splits", "sessions", "present"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
        assert list(loaded.labels) == list(saved.labels)
        for labels, part in saved.labels.items():
            again = loaded.labels[labels]
            assert again.names == part.names
            assert again.background == part.background
            assert again.unlabelled_last == part.unlabelled_last
            for name in ("logits", "target", "q_train"):
                ours, theirs = getattr(part, name), getattr(again, name)
                assert ours.dtype == theirs.dtype
                np.testing.assert_array_equal(ours, theirs)
        taus = (0.2, 0.6)
        assert score(loaded, taus) == score(saved, taus)


def test_reading_predictions_unpickles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    make().save(path)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file)

    class Loud:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (tmp_path / "unpickled").touch, ()

    harmful = np.array([Loud()], dtype=object)
    with path.open("wb") as out:
        np.savez(out, ids=harmful)
    with pytest.raises(PcmciError, match="predictions cannot be read"):
        Predictions.load(path)
    assert not (tmp_path / "unpickled").exists()


def damage_nothing_there(path: Path) -> None:
    path.unlink()


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index("video 20".encode("utf-32-le"))
    content[at] ^= 1
    path.write_bytes(bytes(content))


def damage_text(path: Path) -> None:
    path.write_text("not predictions")


def damage_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"ids": 1}))


def damage_one_array(path: Path) -> None:
    with path.open("wb") as out:
        np.save(out, np.zeros(3))


def damage_part_missing(path: Path) -> None:
    with np.load(path) as file:
        kept = {name: file[name] for name in file if name != "steps/target"}
    np.savez(path, **kept)


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing_there, damage_empty, damage_cut_off, damage_flipped, damage_text,
        damage_pickle, damage_one_array, damage_part_missing,
    ],
    ids=lambda damage: damage.__name__.removeprefix("damage_"),
)  # fmt: skip
def test_a_damaged_file_is_one_error_with_its_path(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "predictions.npz"
    make().save(path)
    damage(path)  # type: ignore[operator]
    with pytest.raises(PcmciError, match=r"predictions\.npz: predictions cannot be read") as caught:
        Predictions.load(path)
    assert "\n" not in str(caught.value)
