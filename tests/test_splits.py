"""A validation split by the protocol: whole persons, else stratified, always the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcmci.errors import UsageError
from pcmci.heads.training.splits import ROUNDED, is_shared_out, training_splits


def names(*parts: tuple[str, int]) -> np.ndarray:
    return np.array([name for name, count in parts for _ in range(count)])


def own_groups(n: int) -> np.ndarray:
    """Every video its own group, as in COIN and Charades."""
    return np.array([f"v{row}" for row in range(n)])


@settings(deadline=None, max_examples=50)
@given(
    persons=st.lists(st.integers(2, 12), min_size=3, max_size=10),
    share=st.floats(0.05, 0.6),
)
def test_a_person_is_never_on_both_sides(persons: list[int], share: float) -> None:
    groups = names(*((f"P{person:02}", videos) for person, videos in enumerate(persons)))
    splits = np.full(len(groups), "train")
    try:
        carved = training_splits(splits, groups, np.zeros(len(groups), dtype=int), share)
    except UsageError:  # the share reaches into the last person
        assert share * sum(persons) > sum(persons) - max(persons)
        return
    for person in set(groups):
        assert len(set(carved[groups == person])) == 1
    taken = (carved == "val").sum()
    # The first number of persons that suffices: over by less than one person.
    assert share * sum(persons) <= taken < share * sum(persons) + max(persons)


def test_the_share_holds_for_every_activity() -> None:
    activity = np.array([0] * 40 + [1] * 100 + [2] * 20)
    splits = np.full(160, "train")
    carved = training_splits(splits, own_groups(160), activity, 0.1)
    assert Counter(activity[carved == "val"]) == {0: 4, 1: 10, 2: 2}


@pytest.mark.parametrize(
    ("classes", "videos", "share"), [(50, 3, 0.5), (100, 4, 0.1), (7, 9, 0.05)]
)
def test_the_share_holds_over_small_activities(classes: int, videos: int, share: float) -> None:
    n = classes * videos
    activity = np.arange(n) % classes
    arguments = np.full(n, "train"), own_groups(n), activity, share
    carved = training_splits(*arguments)
    assert is_shared_out(*arguments), "runs that were made before have another key"
    assert (carved == "val").sum() == round(share * n)
    of_each = [int((carved[activity == label] == "val").sum()) for label in range(classes)]
    assert max(of_each) - min(of_each) <= 1
    assert max(of_each) < videos


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    share=st.floats(0.02, 0.9),
)
def test_the_share_holds_whatever_the_activities(sizes: list[int], share: float) -> None:
    n = sum(sizes)
    activity = np.repeat(np.arange(len(sizes)), sizes)
    try:
        carved = training_splits(np.full(n, "train"), own_groups(n), activity, share)
    except UsageError:
        assert round(share * n) in (0, n)
        return
    taken = np.array([(carved[activity == label] == "val").sum() for label in range(len(sizes))])
    assert abs(taken.sum() - share * n) <= max(0.5, ROUNDED * share * n) + 1e-9
    assert (np.abs(taken - share * np.array(sizes)) <= 1 + 1e-9).all()


def test_a_share_that_rounding_by_activity_gives_is_drawn_as_before() -> None:
    """Runs that were made then are runs of the same split."""
    rng = np.random.default_rng(0)
    activity = np.sort(rng.integers(0, 30, 1200))
    arguments = np.full(1200, "train"), own_groups(1200), activity, 0.1
    carved = training_splits(*arguments)
    assert not is_shared_out(*arguments)
    again = np.random.default_rng(0)
    for label in range(30):
        rows = again.permutation(np.flatnonzero(activity == label))
        expected = rows[: round(0.1 * len(rows))]
        assert set(np.flatnonzero((activity == label) & (carved == "val"))) == set(expected)


def test_an_activity_keeps_its_only_video() -> None:
    activity = np.array([0, 1, 2, 3, 4, 4, 4, 4])
    carved = training_splits(np.full(8, "train"), own_groups(8), activity, 0.25)
    assert activity[carved == "val"].tolist() == [4, 4]


def test_without_activities_videos_are_drawn() -> None:
    carved = training_splits(np.full(200, "train"), own_groups(200), np.full(200, -1), 0.15)
    assert Counter(carved) == {"train": 170, "val": 30}
    chosen = np.flatnonzero(carved == "val")
    assert chosen.max() - chosen.min() > 100, "not drawn but cut off"


def test_only_training_videos_are_set_aside() -> None:
    splits = names(("test", 20), ("train", 50), ("test", 30))
    groups = np.array([f"P{row % 10}" for row in range(100)])  # the same persons in the test
    for grouping in (groups, own_groups(100)):
        carved = training_splits(splits, grouping, np.zeros(100, dtype=int), 0.2)
        assert (carved[splits == "test"] == "test").all()
        assert (carved == "val").sum() == 10


def test_groups_of_other_splits_do_not_make_a_split_by_groups() -> None:
    """Two test videos of one person say nothing about the training videos."""
    splits = names(("train", 40), ("test", 2))
    groups = np.array([*own_groups(40), "P1", "P1"])
    activity = np.array([0, 1] * 21)
    carved = training_splits(splits, groups, activity, 0.25)
    assert Counter(activity[carved == "val"]) == {0: 5, 1: 5}


def test_the_split_is_the_same_every_time() -> None:
    arguments = np.full(60, "train"), own_groups(60), np.arange(60) % 3
    first = training_splits(*arguments, 0.2)
    np.random.seed(123)
    assert (training_splits(*arguments, 0.2) == first).all()


def test_the_splits_given_are_not_written_to() -> None:
    splits = np.full(20, "train")
    carved = training_splits(splits, own_groups(20), np.zeros(20, dtype=int), 0.5)
    assert (carved == "val").any()
    assert (splits == "train").all()


def test_a_split_of_the_data_sets_own_is_used() -> None:
    splits = names(("train", 30), ("val", 5), ("test", 5))
    kept = training_splits(splits, own_groups(40), np.zeros(40, dtype=int), 0)
    assert (kept == splits).all()
    with pytest.raises(UsageError, match="has a val split of its own"):
        training_splits(splits, own_groups(40), np.zeros(40, dtype=int), 0.3)


def test_no_share_sets_nothing_aside() -> None:
    splits = names(("train", 30), ("test", 5))
    assert (training_splits(splits, own_groups(35), np.zeros(35, dtype=int), 0) == splits).all()


@pytest.mark.parametrize(
    ("groups", "share"),
    [
        (own_groups(10), 0.01),  # nothing to choose by
        (own_groups(10), 0.99),  # nothing to train on
        (names(("P1", 10)), 0.2),  # one person cannot be on both sides
        (own_groups(0), 0.2),
    ],
)
def test_a_share_that_leaves_a_side_empty_is_refused(groups: np.ndarray, share: float) -> None:
    n = len(groups)
    with pytest.raises(UsageError, match=rf"validation {share} of {n} training videos sets"):
        training_splits(np.full(n, "train"), groups, np.zeros(n, dtype=int), share)
