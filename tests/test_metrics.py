"""The protocol's scores, against scikit-learn, double loops and what must hold of any score."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from pcmci.heads.scoring.metrics import (
    average_precision,
    class_average_precision,
    coprediction,
    implausible_density,
    implausible_pairs,
    mean_average_precision,
    off_diagonal_density,
    rank_last,
    top1_correct,
    undefined_pairs,
)

RNG = np.random.default_rng(0)
hypothesis_settings = settings(deadline=None, max_examples=60)


@st.composite
def ranked(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and at least one positive."""
    n = draw(st.integers(1, 30))
    scores = draw(arrays(np.float64, n, elements=st.integers(-3, 3).map(lambda i: i / 4)))
    positive = draw(arrays(bool, n))
    positive[draw(st.integers(0, n - 1))] = True
    return scores, positive


# Accuracy.


def test_a_video_is_right_where_it_is_there_and_its_label_scores_best() -> None:
    logits = np.array([[0, 2, 1], [3, 2, 1], [0, 0, 5], [0, 0, 5]], dtype=np.float32)
    target = np.array([1, 2, 2, 2])
    present = np.array([True, True, True, False])
    assert top1_correct(logits, target, present).tolist() == [True, False, True, False]


def test_an_absent_video_is_wrong_whatever_its_logits() -> None:
    """argmax of nothing but -inf is label 0: a lucky guess must not count."""
    absent = np.full((1, 3), -np.inf)
    assert not top1_correct(absent, np.array([0]), np.array([False])).any()


# Average precision.


@hypothesis_settings
@given(ranked())
def test_average_precision_is_scikit_learns(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = case
    expected = average_precision_score(positive, scores)
    assert average_precision(scores, positive) == pytest.approx(expected, abs=1e-12)


@hypothesis_settings
@given(ranked(), st.randoms(use_true_random=False))
def test_average_precision_does_not_depend_on_the_order_of_videos(
    case: tuple[np.ndarray, np.ndarray], random: object
) -> None:
    scores, positive = case
    order = list(range(len(scores)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert average_precision(scores[order], positive[order]) == pytest.approx(
        average_precision(scores, positive), abs=1e-12
    )


@hypothesis_settings
@given(ranked())
def test_only_the_ranking_counts(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = case
    squashed = 1 / (1 + np.exp(-3 * scores))
    assert average_precision(squashed, positive) == average_precision(scores, positive)


def test_minus_infinity_ranks_last() -> None:
    """A video without features does as badly as one scored below all others."""
    scores, positive = RNG.normal(size=20), RNG.random(20) < 0.4
    absent = scores.copy()
    absent[[2, 7]] = -np.inf
    lowest = scores.copy()
    lowest[[2, 7]] = scores.min() - 1
    assert average_precision(absent, positive) == average_precision(lowest, positive)
    assert average_precision(np.array([-np.inf, 0.0, -1e30]), np.array([True, False, False])) == (
        pytest.approx(1 / 3)
    )


def test_float32_scores_are_summed_in_float64() -> None:
    scores, positive = RNG.normal(size=3000).astype(np.float32), RNG.random(3000) < 0.3
    expected = average_precision_score(positive, scores.astype(np.float64))
    assert average_precision(scores, positive) == pytest.approx(expected, abs=1e-13)


def test_a_class_without_a_positive_video_has_no_average_precision() -> None:
    assert math.isnan(average_precision(np.array([0.3, 0.2]), np.array([False, False])))
    targets = np.array([[1, 0, 0], [0, 0, 1]], dtype=np.uint8)
    ap = class_average_precision(RNG.normal(size=(2, 3)), targets)
    assert np.isnan(ap).tolist() == [False, True, False]


def test_every_class_is_scored_by_itself() -> None:
    scores, targets = RNG.normal(size=(12, 4)), (RNG.random((12, 4)) < 0.5).astype(np.uint8)
    targets[0] = 1
    ap = class_average_precision(scores, targets)
    expected = [average_precision_score(targets[:, c], scores[:, c]) for c in range(4)]
    np.testing.assert_allclose(ap, expected)


# mAP by three rules.


def breakfast() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """48 unit actions; five never occur, SIL occurs in every video."""
    targets = (RNG.random((60, 48)) < 0.2).astype(np.uint8)
    targets[0] = 1
    targets[:, 0] = 1
    targets[:, [7, 11, 19, 30, 47]] = 0
    names = ("SIL", *(f"step {n}" for n in range(1, 48)))
    return RNG.normal(size=targets.shape), targets, names


def test_the_three_rules_average_what_they_say() -> None:
    scores, targets, names = breakfast()
    ap = class_average_precision(scores, targets)
    rules = mean_average_precision(ap, names, ("SIL",))
    assert list(rules) == ["mAP", "mAP/48", "mAP w/o SIL"]
    with_positives = [a for a in ap if not math.isnan(a)]
    assert len(with_positives) == 43
    assert rules["mAP"] == pytest.approx(sum(with_positives) / 43)
    assert rules["mAP/48"] == pytest.approx(sum(with_positives) / 48)
    assert rules["mAP w/o SIL"] == pytest.approx(sum(with_positives[1:]) / 42)


def test_a_label_of_every_video_has_its_score_for_free() -> None:
    scores, targets, names = breakfast()
    ap = class_average_precision(scores, targets)
    assert ap[names.index("SIL")] == 1


def test_empty_classes_cap_the_second_rule() -> None:
    _, targets, names = breakfast()
    rules = mean_average_precision(class_average_precision(1.0 * targets, targets), names, ("SIL",))
    assert rules["mAP"] == rules["mAP w/o SIL"] == 1
    assert rules["mAP/48"] == pytest.approx(43 / 48)


def test_without_empty_classes_and_background_there_is_one_rule() -> None:
    assert mean_average_precision(np.array([0.5, 1.0]), ("a", "b")) == {"mAP": 0.75}


def test_a_mean_over_no_class_is_undefined_and_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rules = mean_average_precision(np.array([1.0, np.nan]), ("SIL", "pour"), ("SIL",))
        nothing = mean_average_precision(np.array([np.nan]), ("pour",))
    assert rules["mAP"] == 1
    assert math.isnan(rules["mAP w/o SIL"])
    assert math.isnan(nothing["mAP"])


def official_charades(scores: np.ndarray, targets: np.ndarray) -> float:
    """The rule of the Charades evaluation, rank by rank: a video without labels ranks last."""
    scores = scores.copy()
    scores[targets.sum(1) == 0] = -np.inf
    total = 0.0
    for c in range(targets.shape[1]):
        ranking = sorted(range(len(scores)), key=lambda row: -scores[row, c])
        hits, precisions = 0, []
        for rank, row in enumerate(ranking, start=1):
            if targets[row, c]:
                hits += 1
                precisions.append(hits / rank)
        total += sum(precisions) / len(precisions)
    return total / targets.shape[1]


def test_the_charades_rule() -> None:
    scores, targets = RNG.normal(size=(40, 157)), (RNG.random((40, 157)) < 0.1).astype(np.uint8)
    targets[:4] = 1  # no class is empty
    targets[30:] = 0
    last = rank_last(scores, targets.sum(1) == 0)
    names = tuple(f"c{n:03}" for n in range(157))
    rules = mean_average_precision(class_average_precision(last, targets), names)
    assert rules == {"mAP": pytest.approx(official_charades(scores, targets))}
    plain = mean_average_precision(class_average_precision(scores, targets), names)
    assert plain["mAP"] < rules["mAP"], "the rule changes nothing here"


def test_ranking_last_leaves_the_scores_themselves() -> None:
    scores = RNG.normal(size=(3, 2))
    before = scores.copy()
    last = rank_last(scores, np.array([False, True, False]))
    assert (last[1] == -np.inf).all()
    np.testing.assert_array_equal(last[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(scores, before)


# Co-prediction and its density.


def slow_coprediction(p: np.ndarray) -> np.ndarray:
    n = p.shape[1]
    q = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(n):
            predicted = sum(video[j] for video in p)
            if predicted > 0:
                q[i, j] = sum(video[i] * video[j] for video in p) / predicted
    return q


def slow_density(q: np.ndarray, tau: float) -> float:
    n, above = len(q), 0
    for i in range(n):
        for j in range(n):
            if i != j and q[i, j] > tau:  # False for NaN
                above += 1
    return above / (n * (n - 1))


probabilities = st.tuples(st.integers(1, 8), st.integers(2, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(0, 4).map(lambda i: i / 4))
)


@hypothesis_settings
@given(probabilities, st.sampled_from([0.0, 0.3, 0.6, 0.9]))
def test_coprediction_and_density_are_their_double_loops(p: np.ndarray, tau: float) -> None:
    q = coprediction(p)
    np.testing.assert_allclose(q, slow_coprediction(p), atol=1e-12)
    assert off_diagonal_density(q, tau) == slow_density(q, tau)


@hypothesis_settings
@given(probabilities, st.randoms(use_true_random=False))
def test_density_does_not_depend_on_the_order_of_labels(p: np.ndarray, random: object) -> None:
    order = list(range(p.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert off_diagonal_density(coprediction(p[:, order])) == off_diagonal_density(coprediction(p))


@hypothesis_settings
@given(probabilities)
def test_density_falls_as_the_threshold_rises(p: np.ndarray) -> None:
    q = coprediction(p)
    curve = [off_diagonal_density(q, tau) for tau in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] == 0  # Q is a probability


def test_of_hard_predictions_coprediction_is_a_share_of_videos() -> None:
    """Three videos with a, two of them with b; c never."""
    p = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0]], dtype=np.uint8)
    q = coprediction(p)
    assert q[1, 0] == pytest.approx(2 / 3)  # P(b | a)
    assert q[0, 1] == 1  # P(a | b)
    assert (q[2, :2] == 0).all()
    assert np.isnan(q[:, 2]).all()


def test_undefined_pairs_are_counted_and_not_above_any_threshold() -> None:
    p = RNG.random((6, 5))
    p[:, [1, 3]] = 0
    q = coprediction(p)
    assert undefined_pairs(q) == 2 * 4
    assert undefined_pairs(coprediction(RNG.random((6, 5)))) == 0
    assert off_diagonal_density(q, tau=-1.0) == (5 * 4 - 8) / (5 * 4)


def test_the_diagonal_does_not_count() -> None:
    """An action that is predicted surely and alone goes with nothing but itself."""
    q = coprediction(np.eye(4))
    assert (np.diag(q) == 1).all()
    assert off_diagonal_density(q, tau=0.5) == 0


def test_implausible_pairs_are_those_above_that_training_does_not_know() -> None:
    q, q_train = RNG.random((6, 6)), RNG.random((6, 6))
    q[:, 2] = np.nan
    q_train[:, 4] = np.nan  # never seen in training: whatever goes with it is implausible
    found = implausible_pairs(q, q_train, tau=0.4)
    for i in range(6):
        for j in range(6):
            known = q_train[i, j] > 0.4
            assert found[i, j] == (i != j and q[i, j] > 0.4 and not known)
    assert found[:, 4].any()
    assert implausible_density(q, q_train, tau=0.4) == found.sum() / 30
    assert implausible_density(q, q_train, tau=0.4) <= off_diagonal_density(q, tau=0.4)
    assert not implausible_pairs(q, q, tau=0.4).any()


@pytest.mark.parametrize(
    "call",
    [
        lambda: top1_correct(np.zeros((3, 2)), np.zeros(2), np.ones(3, dtype=bool)),
        lambda: average_precision(np.zeros(3), np.zeros(4)),
        lambda: class_average_precision(np.zeros((3, 2)), np.zeros((4, 2))),
        lambda: class_average_precision(np.zeros((3, 2)), np.zeros((3, 1))),
        lambda: mean_average_precision(np.zeros(3), ("a", "b")),
        lambda: off_diagonal_density(np.zeros((3, 2))),
        lambda: off_diagonal_density(np.zeros((1, 1))),
        lambda: implausible_pairs(np.zeros((3, 3)), np.zeros((2, 2))),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"fit|must be square"):
        call()  # type: ignore[operator]
