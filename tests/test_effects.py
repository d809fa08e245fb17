"""Effects on twins: what must be 0, what must not change, and how it is resampled."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from pcmci.heads.scoring.effects import (
    direct_effect,
    effect_difference,
    margin,
    removal,
    shortcut_ratio,
)
from pcmci.heads.scoring.leakage import leakage, ridge_classes
from pcmci.heads.scoring.twins import find_twins

RNG = np.random.default_rng(0)
N, LABELS = 60, 5
LOGITS = RNG.normal(size=(N, LABELS))
TRUTH = RNG.integers(LABELS, size=N)
STEPS = np.eye(LABELS, dtype=np.uint8)[TRUTH] | np.eye(LABELS, dtype=np.uint8)[(TRUTH + 2) % LABELS]
ONE = np.eye(LABELS)[TRUTH]


def effect(logits, twin, truth=TRUTH, **more):
    return direct_effect(logits, twin, truth, resamples=200, **more)


@pytest.mark.parametrize("truth", [TRUTH, STEPS])
def test_a_twin_that_is_the_video_has_no_effect(truth):
    found = effect(LOGITS, LOGITS, truth)
    assert (found.cde.value, found.cde.low, found.cde.high) == (0, 0, 0)
    assert found.flips.value == 0
    assert found.videos == found.pairs == N


def test_the_margin_is_above_0_exactly_where_the_video_is_recognised():
    assert ((margin(LOGITS, TRUTH) > 0) == (LOGITS.argmax(1) == TRUTH)).all()


def test_the_margin_of_several_labels_is_the_mean_over_pairs():
    naive = [
        np.mean([z[i] - z[j] for i in np.flatnonzero(y) for j in np.flatnonzero(1 - y)])
        for z, y in zip(LOGITS, STEPS, strict=True)
    ]
    np.testing.assert_allclose(margin(LOGITS, STEPS), naive)


@pytest.mark.parametrize("truth", [TRUTH, STEPS])
def test_a_constant_added_to_all_logits_changes_nothing(truth):
    twin = RNG.normal(size=LOGITS.shape)
    one, other = effect(LOGITS, twin, truth), effect(LOGITS + 3, twin - 2, truth)
    np.testing.assert_allclose(one.changes, other.changes, atol=1e-12)


def test_what_speaks_for_the_truth_alone_is_measured_as_it_is():
    found = effect(LOGITS + 1.5 * ONE, LOGITS)
    assert found.cde.value == pytest.approx(1.5)
    assert found.cde.low == pytest.approx(1.5)
    flips = (LOGITS + 1.5 * ONE).argmax(1) != LOGITS.argmax(1)
    assert found.flips.value == pytest.approx(flips.mean())


def test_only_videos_whose_variable_differs_count():
    differs = np.arange(N) < 20
    twin = np.where(differs[:, None], LOGITS, LOGITS + 100 * ONE)
    found = effect(LOGITS + ONE, twin, differs=differs)
    assert found.videos == 20
    assert found.pairs == N
    assert found.cde.value == pytest.approx(1)


def test_a_video_without_features_or_truth_does_not_count():
    logits, truth = LOGITS.copy(), TRUTH.copy()
    logits[0], truth[1] = -np.inf, -1
    assert effect(logits, LOGITS, truth).videos == N - 2
    assert effect(LOGITS, logits, truth).videos == N - 2


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"differs": np.zeros(N, bool)}, "no twin differs from its video"),
        ({"truth": np.full(N, -1)}, "no pair whose variable differs has features and a truth"),
    ],
)
def test_what_cannot_be_measured_is_none_with_a_reason(more, why):
    found = effect(LOGITS, LOGITS + 1, **more)
    assert found.cde is found.flips is None
    assert found.why == why
    assert shortcut_ratio(found, effect(LOGITS + ONE, LOGITS)).value is None


def test_an_interval_holds_what_sessions_and_seeds_vary():
    strength = RNG.normal(1, 1, size=(3, N, 1))
    sessions = np.repeat(np.arange(N // 2), 2).astype(str)
    found = effect(LOGITS + strength * ONE, np.stack([LOGITS] * 3), sessions=sessions)
    assert found.runs == 3
    assert found.cde.low < found.cde.value < found.cde.high
    assert found.cde.value == pytest.approx(strength.mean())


def test_a_difference_is_paired():
    noise = RNG.normal(size=(N, 1))
    head = effect(LOGITS + (2 + noise) * ONE, LOGITS)
    control = effect(LOGITS + (3 + noise) * ONE, LOGITS)
    found = effect_difference(head, control, 200)
    assert found.value == pytest.approx(-1)
    assert found.high - found.low < 1e-9  # though each alone is not so sure
    assert head.cde.high - head.cde.low > 0.1


def test_effects_of_other_videos_or_seeds_are_not_compared():
    with pytest.raises(ValueError, match="other videos"):
        effect_difference(effect(LOGITS, LOGITS), effect(LOGITS[1:], LOGITS[1:], TRUTH[1:]))
    two, three = (effect(*[np.stack([LOGITS] * s)] * 2) for s in (2, 3))
    with pytest.raises(ValueError, match="2 runs cannot be paired with 3"):
        effect_difference(two, three)


def test_the_shortcut_ratio_has_no_scale():
    def ratio(scale):
        confounder = effect(scale * (LOGITS + ONE), scale * LOGITS)
        return shortcut_ratio(confounder, effect(scale * (LOGITS + 4 * ONE), scale * LOGITS), 200)

    assert ratio(1).value.value == pytest.approx(0.25)
    assert ratio(7).value.low == pytest.approx(ratio(1).value.low)


def test_a_head_without_a_causal_effect_has_no_ratio():
    found = shortcut_ratio(effect(LOGITS + ONE, LOGITS), effect(LOGITS, LOGITS))
    assert found.value is None
    assert found.why


@pytest.mark.parametrize(
    ("cde", "cause", "lowers", "keeps"),
    [
        (1, 6, True, True),
        (1, 2, True, False),
        (3.8, 5.7, False, True),  # it merely says everything more softly
        (3.2, 4.8, True, False),  # and this more softly still
        (5, 6, False, True),
        (-5, 6, False, True),  # turned round, not removed
    ],
)
def test_removing_is_lowering_and_keeping(cde, cause, lowers, keeps):
    noise = 0.1 * RNG.normal(size=(N, 1))

    def of(strength):
        return effect(LOGITS + (strength + noise) * ONE, LOGITS)

    found = removal(of(cde), of(4), of(cause), of(6), resamples=200)
    assert (found.lowers, found.keeps) == (lowers, keeps)
    assert found.removes is (lowers and keeps)


def test_what_a_control_has_nothing_of_cannot_be_kept():
    cdes = effect(LOGITS + ONE, LOGITS), effect(LOGITS + 4 * ONE, LOGITS)
    found = removal(*cdes, effect(LOGITS - ONE, LOGITS), effect(LOGITS - 2 * ONE, LOGITS))
    assert found.lowers
    assert found.keeps is None


def test_without_causal_twins_nobody_says_that_it_is_removed():
    found = removal(effect(LOGITS + ONE, LOGITS), effect(LOGITS + 4 * ONE, LOGITS))
    assert found.lowers
    assert found.removes is None


def test_twins_are_found_by_their_names():
    ids = ["b", "a", "a_shift-h", "b_shift-h", "c", "c_cause", "x_alone", "train_1"]
    splits = ["test", "test", "shift-h", "shift-h", "test", "cause", "alone", "train"]
    found = find_twins(ids, splits)
    assert list(found) == ["shift-h", "cause"]
    assert found["shift-h"].variable == "h"
    assert found["shift-h"].of == "test"
    assert found["shift-h"].rows.tolist() == [0, 1]
    assert found["shift-h"].twin_rows.tolist() == [3, 2]
    assert found["cause"].causal
    assert not find_twins(["a", "b"], ["train", "test"])


@pytest.mark.parametrize("width", [8, 200])
def test_the_probe_is_scikit_learns_ridge_classifier(width):
    seen, unseen = RNG.normal(size=(N, width)), RNG.normal(size=(20, width))
    scaler = StandardScaler().fit(seen)
    right = RidgeClassifier(alpha=1.0).fit(scaler.transform(seen), TRUTH)
    mine = ridge_classes(seen, TRUTH, unseen, LABELS)
    np.testing.assert_array_equal(mine, right.predict(scaler.transform(unseen)))


def test_what_is_in_a_representation_leaks_and_what_is_not_does_not():
    there = RNG.normal(size=(200, 4, 3))
    value = np.array(["left", "right"])[(there[:, 1, 2] > 0).astype(int)]
    assert leakage(there, value).accuracy > 0.9
    hidden = leakage(np.delete(there, 1, axis=1), value)
    assert hidden.accuracy < 0.65
    assert hidden.chance == pytest.approx(max((value == "left").mean(), (value == "right").mean()))
    assert leakage(there, ["same"] * 200).accuracy is None
    assert leakage(there[:3], value[:3]).why
