"""The activities: grammars over atomic actions, after the ten of Breakfast.

A grammar is a line of words. `pour_milk@cup` does pour_milk at the cup, `?` makes a step optional
(half of the times), and steps between `{` and `}` come in any order. Steps are shared between
activities, and sometimes their order alone tells two apart: powder, then milk is coffee; milk,
then powder is chocolate milk. A step that was left out may still be *considered*: the tool is
taken, held for a moment and put back, which is no action.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pcmci.kitchen.actions import ACTIONS, readable

FPS = 10
"""Frames a second of every video."""

SHORTEST, LONGEST = 15 * FPS, 40 * FPS
"""Frames of a video."""

GRAMMARS = {
    "coffee": "take_cup spoon_powder {pour_water@cup pour_milk@cup?} add_sugar@cup? stir_cup",
    "tea": "take_cup {pour_water@cup dip_teabag} {pour_milk@cup? add_sugar@cup?} stir_cup?",
    "milk": "take_cup pour_milk@cup {spoon_powder pour_water@cup?} add_sugar@cup? stir_cup",
    "juice": "cut_orange squeeze_orange take_cup shake_juice@cup? pour_juice@cup add_sugar@cup?",
    "cereals": "take_bowl pour_cereals@bowl {pour_milk@bowl add_sugar@bowl?} cut_fruit? stir_bowl",
    "fruit_salad": "peel_fruit? cut_fruit take_bowl {pour_cereals@bowl? pour_milk@bowl?} "
    "add_sugar@bowl? stir_bowl",
    "sandwich": "cut_bun smear_butter put_topping add_salt@bun? take_plate",
    "fried_egg": "butter_pan crack_egg@pan {shake_pan add_salt@pan?} take_plate?",
    "scrambled_egg": "crack_egg@bowl add_salt@bowl? beat_egg butter_pan? pour_mix stir_egg "
    "take_plate?",
    "pancake": "{pour_flour crack_egg@bowl pour_milk@bowl} add_sugar@bowl? stir_dough "
    "butter_pan? pour_mix flip_pancake",
}
"""The ten activities by name, in the order of the label set."""

ACTIVITIES = tuple(GRAMMARS)

ACTIVITY_TEXTS = {name: readable(name) for name in ACTIVITIES} | {"milk": "chocolate milk"}
"""The activities as one says them."""

OPTIONAL = 0.5
"""How often an optional step is done."""

CONSIDERED = 0.6
"""How often the tool of an optional step that is not done is taken and put back."""


@dataclass(frozen=True)
class Step:
    """A stretch of a performance: an action, or, with `done` false, its tool held and put back.

    first, last: frames, both included.
    tempo, phase, reach: how this person does it this time: speed and size of the motion as
        factors about 1, and where in its cycle the motion begins, in [0, 1).
    """

    action: str
    station: str
    done: bool
    first: int
    last: int
    tempo: float
    phase: float
    reach: float


def perform(
    activity: str,
    rng: np.random.Generator,
    pace: float = 1.0,
    detours: float = 0.0,
    apart: Mapping[str, str] | None = None,
) -> tuple[Step, ...]:
    """One performance of an activity; between its steps the hands rest.

    pace: how slowly this person works, a factor on every duration.
    detours: how often a step is followed by one of another activity.
    apart: action to the one that is never done in the same video.
    Returns the steps in time; the video ends `tail` frames after the last, see `length`.
    """
    plan = list(_expand(GRAMMARS[activity], rng))
    if detours:
        plan = list(_with_detours(activity, plan, rng, detours, apart or {}))
    seconds = [
        max(2.0, (ACTIONS[action].seconds if done else 2.0) * pace * (0.7 + 0.6 * rng.random()))
        for action, _, done in plan
    ]
    gaps = [0.2 + 0.6 * rng.random() for _ in range(len(plan) + 1)]
    manner = [(0.8 + 0.4 * rng.random(), rng.random(), 0.85 + 0.3 * rng.random()) for _ in plan]

    total = FPS * (sum(seconds) + sum(gaps))
    stretch = min(max(total, SHORTEST + 10), LONGEST - 10) / total * FPS
    steps, now = [], 0.0
    for (action, station, done), duration, gap, (tempo, phase, reach) in zip(
        plan, seconds, gaps, manner, strict=False
    ):
        now += gap * stretch
        first, now = int(now), now + duration * stretch
        steps.append(Step(action, station, done, first, int(now) - 1, tempo, phase, reach))
    return tuple(steps)


def length(steps: tuple[Step, ...]) -> int:
    """Frames of the video of a performance: half a second after the last step it is over."""
    return max(SHORTEST, min(LONGEST, steps[-1].last + 1 + FPS // 2))


def vocabulary(activity: str) -> frozenset[str]:
    """The names of all actions that the activity can contain."""
    words = GRAMMARS[activity].replace("{", "").replace("}", "").split()
    return frozenset(word.rstrip("?").partition("@")[0] for word in words)


def _placed() -> Iterator[tuple[str, str]]:
    for grammar in GRAMMARS.values():
        for word in grammar.replace("{", "").replace("}", "").split():
            name, _, station = word.rstrip("?").partition("@")
            yield name, station or str(ACTIONS[name].station)


_PLACED = tuple(dict.fromkeys(_placed()))
"""Every action with every station that an activity does it at."""

MOST_STEPS = 12
"""Of a performance with detours: more would have no time left in its video."""


def _expand(grammar: str, rng: np.random.Generator) -> Iterator[tuple[str, str, bool]]:
    """One draw of a grammar: (action, station, done) in order."""
    group: list[str] = []
    is_open = False
    for word in grammar.split():
        is_open = is_open or word.startswith("{")
        group.append(word.strip("{}"))
        if is_open and not word.endswith("}"):
            continue
        for member in _shuffled(group, rng):
            name, _, station = member.rstrip("?").partition("@")
            done = not member.endswith("?") or rng.random() < OPTIONAL
            if done or rng.random() < CONSIDERED:
                yield name, station or str(ACTIONS[name].station), done
        group, is_open = [], False


def _with_detours(
    activity: str,
    plan: list[tuple[str, str, bool]],
    rng: np.random.Generator,
    detours: float,
    apart: Mapping[str, str],
) -> Iterator[tuple[str, str, bool]]:
    """The plan with steps of other activities between its own; no more than MOST_STEPS in all."""
    left = MOST_STEPS - len(plan)
    own = vocabulary(activity)
    barred = own | {apart[action] for action in own if action in apart}
    for step in plan:
        yield step
        takes, which = rng.random() < detours, rng.random()
        foreign = [place for place in _PLACED if place[0] not in barred]
        if takes and left > 0 and foreign:
            left -= 1
            action, station = foreign[int(which * len(foreign))]
            barred = barred | {apart.get(action, action)}
            yield action, station, True


def _shuffled(words: list[str], rng: np.random.Generator) -> list[str]:
    """Any order, equally likely, from `Generator.random` alone (whose stream never changes)."""
    return [word for _, word in sorted((rng.random(), word) for word in words)]
