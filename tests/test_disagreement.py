"""How far a head's voices are apart, and what a score is where they are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_predictions import make

from pcmci.heads.scoring.disagreement import curve, disagreement, divergence, voices_report
from pcmci.heads.scoring.scores import score_split

M, E, N = 7, 3, 4


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("one_label", [True, False])
def test_voices_that_agree_disagree_by_nothing(rng, one_label) -> None:
    alike = np.repeat(rng.normal(size=(M, 1, N)), E, axis=1)
    np.testing.assert_allclose(disagreement(alike, one_label=one_label), 0, atol=1e-12)


def test_voices_that_are_certain_of_something_else_disagree_wholly() -> None:
    certain = 1000 * np.eye(E, N)[None]
    np.testing.assert_allclose(disagreement(certain, one_label=True), 1)
    against = np.stack([np.full((1, N), 1000.0), np.full((1, N), -1000.0)], axis=1)
    np.testing.assert_allclose(disagreement(against, one_label=False), 1)


def test_two_voices_are_as_far_apart_as_their_jensen_shannon_divergence(rng) -> None:
    p = rng.dirichlet(np.ones(N), size=2)
    middle = p.mean(0)
    kl = (p * np.log(p / middle)).sum(-1)
    assert divergence(p) == pytest.approx(kl.mean() / np.log(2))


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_it_lies_between_0_and_1_and_no_voice_is_the_first(voices, labels, seed) -> None:
    rng = np.random.default_rng(seed)
    said = rng.normal(scale=rng.choice([0.1, 3, 300]), size=(M, voices, labels))
    for one_label in (True, False):
        found = disagreement(said, one_label=one_label)
        assert ((found >= 0) & (found <= 1)).all()
        other = disagreement(rng.permutation(said, axis=1), one_label=one_label)
        np.testing.assert_allclose(found, other, atol=1e-12)


def test_of_a_video_without_features_nothing_is_said(rng) -> None:
    said = rng.normal(size=(M, E, N))
    said[2] = -np.inf
    for one_label in (True, False):
        found = disagreement(said, one_label=one_label)
        assert np.isnan(found[2])
        assert np.isfinite(np.delete(found, 2)).all()


def test_one_voice_has_nobody_to_disagree_with() -> None:
    with pytest.raises(ValueError, match="1 voices have nobody to disagree with"):
        divergence(np.full((M, 1, N), 0.25))
    for voices in (0, 1):
        assert np.isnan(disagreement(np.zeros((M, voices, N)), one_label=True)).all()


def test_about_a_single_label_there_is_nothing_to_disagree_about() -> None:
    assert (
        disagreement(np.random.default_rng(0).normal(size=(M, E, 1)), one_label=True) == 0
    ).all()


@pytest.mark.parametrize(("videos", "bins"), [(20, 10), (7, 3), (2, 10), (1, 1)])
def test_a_curve_goes_from_the_least_to_the_most_and_takes_every_video_once(
    rng, videos, bins
) -> None:
    apart, correct = rng.random(videos), rng.random(videos) < 0.5
    points = curve(apart, lambda some: float(correct[some].mean()), bins)
    assert len(points) == min(bins, videos)
    sizes = [point["videos"] for point in points]
    assert sum(sizes) == videos
    assert max(sizes) - min(sizes) <= 1
    seen = [point["disagreement"] for point in points]
    assert seen == sorted(seen)
    whole = sum(point["videos"] * point["score"] for point in points) / videos
    assert whole == pytest.approx(correct.mean())


def test_a_curve_finds_where_the_errors_are() -> None:
    apart = np.arange(10) / 10
    points = curve(apart, lambda some: float((apart[some] < 0.5).mean()), bins=2)
    assert [point["score"] for point in points] == [1, 0]


def test_videos_that_nothing_is_known_of_are_in_no_bin() -> None:
    apart = np.array([0.1, np.nan, 0.3])
    points = curve(apart, lambda some: float(len(some)), bins=10)
    assert [point["videos"] for point in points] == [1, 1]
    assert curve(np.full(3, np.nan), lambda some: 0.0) == []


def test_a_report_says_what_each_voice_is_worth_alone(rng) -> None:
    predictions = make()
    for labels, headline in (("activity", "Acc"), ("steps", "mAP")):
        part = predictions.labels[labels]
        said = np.stack([part.logits, rng.normal(size=part.logits.shape)], axis=1)
        said[~predictions.present] = -np.inf
        part = dataclasses.replace(
            part,
            voices=("first", "second"),
            said=said,
            disagreement=disagreement(said, one_label=labels == "activity"),
        )
        together = dataclasses.replace(predictions, labels={labels: part})
        report = voices_report(together, labels)
        assert set(report) == {"test", "val"}
        for split, found in report.items():
            rows = predictions.splits == split
            alone = score_split(together, rows, taus=())[headline]
            assert found["score"] == headline
            assert found["voices"]["first"] == alone
            assert sum(point["videos"] for point in found["curve"]) == (
                (rows & predictions.present).sum()
            )
            known = part.disagreement[rows & predictions.present]
            assert found["disagreement"] == pytest.approx(known.mean())


def test_a_head_of_one_opinion_has_no_report() -> None:
    assert voices_report(make(), "steps") == {}
