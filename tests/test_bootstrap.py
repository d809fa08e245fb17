"""The paired bootstrap: what a weight means, what is drawn, and what must hold of an interval."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_up_predictions import make
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import average_precision_score

from pcmci.errors import PcmciError
from pcmci.heads.scoring.bootstrap import SCORES, Bootstrap, differences, interval, session_weights
from pcmci.heads.scoring.metrics import (
    average_precision,
    coprediction,
    weighted_average_precision,
)
from pcmci.heads.scoring.scores import score


def counted(n: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.int64, n, elements=st.integers(0, 3))


@settings(max_examples=60)
@given(st.data())
def test_a_weight_is_a_video_said_so_many_times(data):
    n = data.draw(st.integers(1, 20))
    scores = data.draw(arrays(np.float64, n, elements=st.integers(-3, 3).map(float)))
    positive = data.draw(arrays(bool, n))
    weights = data.draw(counted(n))
    (found,) = weighted_average_precision(scores, positive, weights[None])
    repeated = np.repeat(scores, weights), np.repeat(positive, weights)
    if repeated[1].any():
        assert found == pytest.approx(average_precision(*repeated))
        assert found == pytest.approx(average_precision_score(repeated[1], repeated[0]))
    else:
        assert np.isnan(found)


@settings(max_examples=30)
@given(arrays(np.float32, (8, 4), elements=st.floats(0, 1, width=32)), counted(8))
def test_coprediction_counts_a_video_as_often_as_its_weight(p, weights):
    np.testing.assert_allclose(
        coprediction(p, weights), coprediction(np.repeat(p, weights, axis=0)), atol=1e-12
    )


@pytest.mark.parametrize("name", SCORES)
def test_the_first_draw_is_the_videos_themselves(name):
    runs = [make(0), make(0)]
    found = Bootstrap(runs[0], "test", resamples=20).scores(runs, name)
    assert found.shape == (2, 21)
    assert found[:, 0] == pytest.approx(score(runs[0])["test"][name])
    assert interval(found).value == pytest.approx(score(runs[0])["test"][name])


def test_sessions_are_drawn_whole_and_as_many_as_there_are():
    sessions = np.array(["a", "b", "a", "c", "c", "c"])
    weights = session_weights(sessions, 50)
    assert weights.shape == (51, 6)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[1:, [0, 1, 3]].sum(1) == 3).all()
    assert len(np.unique(weights[1:], axis=0)) > 5


def of_other_answers(seed: int):
    """The same videos, predicted otherwise."""
    ours, theirs = make(0), make(seed)
    labels = {
        name: dataclasses.replace(part, logits=theirs.labels[name].logits)
        for name, part in ours.labels.items()
    }
    return dataclasses.replace(ours, labels=labels)


@pytest.mark.parametrize("name", SCORES)
def test_a_difference_to_itself_is_nothing(name):
    first = make(0)
    draws = Bootstrap(first, "test", resamples=50)
    one = draws.scores([first, of_other_answers(2)], name)
    other = draws.scores([of_other_answers(1), of_other_answers(3)], name)
    same = interval(one - one)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert not same.excludes_zero
    forth, back = interval(other - one), interval(one - other)
    assert forth.value == pytest.approx(-back.value)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))


def test_an_accuracy_has_the_interval_of_scipy():
    run = make(0)
    run = dataclasses.replace(run, sessions=run.ids)  # a session a video
    rows = run.splits == "test"
    part = run.labels["activity"]
    right = run.present[rows] & (part.logits[rows].argmax(1) == part.target[rows])
    theirs = scipy_bootstrap(
        (right.astype(float),), np.mean, n_resamples=20_000, method="percentile", random_state=1
    ).confidence_interval
    ours = interval(Bootstrap(run, "test", resamples=20_000).scores([run], "Acc"))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.035)


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(0)
    sessions = 0.01 * rng.standard_normal((1, 2001))
    agreeing = np.repeat(sessions, 5, axis=0)
    seeds = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])[:, None]
    narrow, wide = interval(agreeing), interval(agreeing + seeds)
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)
    # the spread of a mean of 5 draws of the seeds, and hardly anything of the sessions
    expected = 2 * 1.96 * seeds.std() / 5**0.5
    assert wide.high - wide.low == pytest.approx(expected, rel=0.1)


def test_a_difference_that_is_always_there_excludes_zero():
    values = np.linspace(0.1, 0.2, 101)[None]
    assert interval(values).excludes_zero
    assert not interval(values - 0.15).excludes_zero


def test_an_undefined_draw_is_not_passed_over():
    values = np.linspace(0.1, 0.2, 101)[None].copy()
    values[0, 7] = np.nan
    found = interval(values)
    assert np.isnan(found.low)
    assert not found.excludes_zero


def test_other_videos_cannot_be_compared():
    run = make(0)
    other = dataclasses.replace(run, ids=run.ids[::-1])
    with pytest.raises(PcmciError, match="scored other videos of 'test'"):
        Bootstrap(run, "test", 5).scores([other], "Acc")
    with pytest.raises(PcmciError, match="split 'shift-h'"):
        Bootstrap(run, "shift-h", 5)


def test_differences_leave_out_what_chose_and_the_reference():
    found = differences({"none": [make(0)], "ich": [of_other_answers(1)]}, "none", resamples=10)
    assert set(found) == set(SCORES)
    for by_setting in found.values():
        assert {name: set(splits) for name, splits in by_setting.items()} == {"ich": {"test"}}
