"""Level 0: a world of features without pixels, whose every cause is written down here.

Ten activities in five pairs of partners, fifteen steps. Five steps are general: pair k does all of
them but the k-th, and each activity has one step of its own, so that partners share four of five.
All vectors below are orthonormal, so that what baselines claim of directions holds to the letter.

    V^P_l = e_s(l) + strength_h b_h [l in H] + strength_i e_own(i) [l in I] + noise
    V_l   = R (e_s(l) + strength_i e_own(i) [l in I]) + strength_c u_c [l in C] + noise
    T_n   = steps of n + eta_pre (b_n of h, e_own(partner of n) of i)

with e the steps, b the companions (H: a thing that only the VLM sees), u the looks of a place (C:
only the video encoder sees them), and i an activity whose own step is on show without being done
(I: both encoders see it, as a tablet on a wall). R is a rotation: the two encoders share no axes.
One confounder is there at a time; `share` says in how many frames it stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WIDTH = 64
FRAMES = 16
ACTIVITIES = 10
GENERAL = 5
STEPS = GENERAL + ACTIVITIES
STEPS_A_VIDEO = 5
STRENGTH = {"h": 0.7, "i": 0.7, "c": 0.5}
"""How long a confounder's vector is; a step's is 1."""

SPLITS = ("test", "shift", "custom", "other", "wrong", "causal")
"""Of the same videos. test: the confounder drawn as in training. shift: drawn whatever the label
is. custom: what is customary for the label, in every video. other: another one. wrong: the
partner's. causal: as custom, and another activity is done."""

BASE = "custom"
"""The split that `other`, `wrong` and `causal` are twins of."""


def partner(activity: np.ndarray) -> np.ndarray:
    """The other one of its pair."""
    return activity ^ 1


def steps_of(activity: int) -> list[int]:
    """The steps of an activity: its pair's four general ones, then its own."""
    pair = activity // 2
    return [step for step in range(GENERAL) if step != pair] + [GENERAL + activity]


def customary(confounder: str, activity: np.ndarray) -> np.ndarray:
    """The value that a confounder has by custom: of h and c the activity's own, of i the
    partner's."""
    return partner(activity) if confounder == "i" else activity


@dataclass(frozen=True)
class Knobs:
    """confounder: h, i or c. share: rho, of the frames in which it stands. run: whether these are
    one run, else scattered. eta_train: probability in training that it is the customary one, else
    it is any. eta_pre: how much of it the label texts hold, 1 for as much as of the steps. arrow:
    whether the label decides the confounder or is decided by it. noise: deviation of a frame's
    every number, a half more in V. train: videos to learn from. scored: of each split."""

    confounder: str
    share: float = 1.0
    run: bool = False
    eta_train: float = 0.9
    eta_pre: float = 1.0
    arrow: str = "label"
    noise: float = 0.2
    train: int = 200
    scored: int = 200


@dataclass(frozen=True)
class Part:
    """Videos of one split. vlm, video: [n, L, D] float32. activity: [n]. steps: [n, S] of 0 and 1.
    confounder: [n] its value."""

    vlm: np.ndarray
    video: np.ndarray
    activity: np.ndarray
    steps: np.ndarray
    confounder: np.ndarray


@dataclass(frozen=True)
class World:
    """parts: by split, `train`, `val` and `val shift` (the oracle's) beside SPLITS. activity_text:
    [A, D]. step_text: [S, D]."""

    parts: dict[str, Part]
    activity_text: np.ndarray
    step_text: np.ndarray


@dataclass(frozen=True)
class _Draw:
    """All that chance decides of n videos. order: [n, L] which of its five steps a frame shows.
    there: [n, L] whether the confounder stands in it. noise: [2, n, L, D]."""

    order: np.ndarray
    there: np.ndarray
    noise: np.ndarray


def make_world(knobs: Knobs, seed: int) -> World:
    """The same knobs and seed give the same world, bit by bit."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    steps, companions, looks = np.split(axes[: STEPS + 2 * ACTIVITIES], [STEPS, STEPS + ACTIVITIES])
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    own = steps[GENERAL:]
    shown = {"h": companions, "i": own, "c": looks}[knobs.confounder]
    shown = STRENGTH[knobs.confounder] * shown

    def render(activity: np.ndarray, value: np.ndarray, draw: _Draw) -> Part:
        done = np.array([steps_of(a) for a in range(ACTIVITIES)])[activity]
        performed = steps[np.take_along_axis(done, draw.order, axis=1)]
        added = draw.there[..., None] * shown[value][:, None]
        seen = performed + added if knobs.confounder == "i" else performed
        video = seen @ turn + (added if knobs.confounder == "c" else 0) + 1.5 * draw.noise[1]
        vlm = seen + (added if knobs.confounder == "h" else 0) + draw.noise[0]
        labels = np.zeros((len(activity), STEPS), np.uint8)
        np.put_along_axis(labels, done, 1, axis=1)
        return Part(vlm.astype(np.float32), video.astype(np.float32), activity, labels, value)

    parts = {}
    for split, count in (("train", knobs.train), ("val", 100), ("val shift", 100)):
        eta = 0.0 if split == "val shift" else knobs.eta_train
        activity, value = _labels_and_values(knobs, eta, count, rng)
        parts[split] = render(activity, value, _draw(knobs, count, rng))
    count = knobs.scored
    activity, drawn = _labels_and_values(knobs, knobs.eta_train, count, rng)
    draw = _draw(knobs, count, rng)
    custom = customary(knobs.confounder, activity)
    elsewhere = (activity + rng.integers(1, ACTIVITIES, count)) % ACTIVITIES
    values = {
        "test": drawn,
        "shift": rng.integers(ACTIVITIES, size=count),
        "custom": custom,
        "other": (custom + rng.integers(1, ACTIVITIES, count)) % ACTIVITIES,
        "wrong": partner(custom),
    }
    parts |= {split: render(activity, value, draw) for split, value in values.items()}
    parts["causal"] = render(elsewhere, custom, draw)

    text = np.stack([steps[steps_of(a)].sum(0) for a in range(ACTIVITIES)]) / STEPS_A_VIDEO**0.5
    of_text = {"h": companions, "i": own[partner(np.arange(ACTIVITIES))], "c": 0 * looks}
    text = text + knobs.eta_pre * of_text[knobs.confounder]
    return World(parts, text.astype(np.float32), steps.astype(np.float32))


def _labels_and_values(
    knobs: Knobs, eta: float, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and confounders of `count` videos.

    Whichever comes first is uniform, and the other follows it with probability eta, else is
    uniform: the joint distribution is the same for both arrows, for the custom is one to one.
    """
    first = np.arange(count) % ACTIVITIES
    follows = rng.random(count) < eta
    anything = rng.integers(ACTIVITIES, size=count)
    # a custom is its own inverse, so that it leads from confounder to label too
    second = np.where(follows, customary(knobs.confounder, first), anything)
    return (first, second) if knobs.arrow == "label" else (second, first)


def _draw(knobs: Knobs, count: int, rng: np.random.Generator) -> _Draw:
    lengths = rng.multinomial(
        FRAMES - 2 * STEPS_A_VIDEO, [1 / STEPS_A_VIDEO] * STEPS_A_VIDEO, count
    )
    who = np.argsort(rng.random((count, STEPS_A_VIDEO)), axis=1)  # any order of the steps
    order = np.stack([np.repeat(w, 2 + n) for w, n in zip(who, lengths, strict=True)])
    frames = round(knobs.share * FRAMES)
    if knobs.run:
        begin = rng.integers(FRAMES - frames + 1, size=count)[:, None]
        at = np.arange(FRAMES)
        there = (at >= begin) & (at < begin + frames)
    else:
        there = np.argsort(np.argsort(rng.random((count, FRAMES)), axis=1), axis=1) < frames
    noise = knobs.noise * rng.normal(size=(2, count, FRAMES, WIDTH))
    return _Draw(order, there, noise)
