"""What the world's encoders are trained on: other persons in other kitchens than any video's.

`captioned_frames` is the VLM's pretraining distribution, in which H and I hold (causal.py says
how) and C does not. `action_clip` is the video encoder's Kinetics: short clips of one atomic
action each. There looks go with nothing, nobody brings a companion and the tablet is off, so that
the encoder never learned to look past those two. Both are functions of a number, so that any
process can draw any part of an endless training set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pcmci.kitchen.actions import ACTIONS
from pcmci.kitchen.causal import (
    PARTNER_ACTIVITIES,
    PARTNERS,
    Knobs,
    draw_scene,
    pick,
    stream,
)
from pcmci.kitchen.film import Film
from pcmci.kitchen.grammar import ACTIVITIES, ACTIVITY_TEXTS, perform, vocabulary
from pcmci.kitchen.motion import REACHING
from pcmci.kitchen.world import ACTIVITY_TEMPLATE, STEP_TEMPLATE

CAPTIONS = (
    ACTIVITY_TEMPLATE.format("{activity}"),
    STEP_TEMPLATE.format("{step}"),
    "{step}",
    "{step} while making {activity}",
)
"""What is said of a frame, all equally often; in a pause only of the activity."""

HELD = "hold"
"""The class of clips in which a tool is held and nothing is done with it."""

HELD_SHARE = 0.2
"""How many of the clips are of that class, so that an encoder has to look at the motion."""

CLIP_LABELS = (*ACTIONS, HELD)


@dataclass(frozen=True)
class ActionClip:
    """A short clip of one atomic action.

    frames: [F, 96, 96, 3] uint8. label: index into CLIP_LABELS.
    action, station: whose tool is in the hand, and where, also in a clip in which it is only held.
    """

    frames: np.ndarray
    label: int
    action: str
    station: str


@dataclass(frozen=True)
class CaptionedFrames:
    """Frames of one pretraining video with what is said of each.

    frames: [F, 96, 96, 3] uint8. captions: [F].
    activity, actions: the truth, [F] for the actions, None in a pause or where a tool is held.
    """

    frames: np.ndarray
    captions: tuple[str, ...]
    activity: str
    actions: tuple[str | None, ...]


def captioned_frames(
    number: int, count: int = 8, seed: int = 0, knobs: Knobs | None = None
) -> CaptionedFrames:
    """`count` frames at random times of the `number`-th pretraining video, with captions.

    knobs: H and I of the pretraining; C is 0 in it whatever they say.
    """
    knobs = (knobs or Knobs()).without("c")
    scene = draw_scene(seed, "pretraining", number, knobs)
    film, rng = Film(scene), stream(seed, "pretraining", number, "captions")
    times = sorted(int(rng.random() * scene.frames) for _ in range(count))
    captions, actions = [], []
    for t in times:
        action = next((s.action for s in scene.steps if s.done and s.first <= t <= s.last), None)
        form = CAPTIONS[0] if action is None else pick(CAPTIONS, rng)
        activity_said = ACTIVITY_TEXTS[_said(scene.activity, PARTNER_ACTIVITIES, knobs.i, rng)]
        action_said = ACTIONS[_said(action, PARTNERS, knobs.i, rng)].text if action else ""
        captions.append(form.format(step=action_said, activity=activity_said))
        actions.append(action)
    return CaptionedFrames(film.frames(times), tuple(captions), scene.activity, tuple(actions))


def action_clip(
    number: int, frames: int = 8, seed: int = 0, strides: tuple[int, int] = (1, 14)
) -> ActionClip:
    """The `number`-th clip of one atomic action.

    strides: the frames (at 10 a second) between two of the clip, fewest and most, drawn a clip:
        an encoder that sees 16 frames of a whole video sees them a second or two apart.
    """
    rng = stream(seed, "clips", number, "clip")
    action, held = pick(tuple(ACTIONS), rng), rng.random() < HELD_SHARE
    activity = pick([a for a in ACTIVITIES if action in vocabulary(a)], rng)
    steps = perform(activity, rng)
    while not any(step.action == action for step in steps):
        steps = perform(activity, rng)

    stride = strides[0] + int(rng.random() * (strides[1] - strides[0] + 1))
    span = stride * (frames - 1) + 1
    at = next(k for k, step in enumerate(steps) if step.action == action)
    # as long as the clip with the reaching, if it is shorter: the clip shows the action alone
    last = max(steps[at].last, steps[at].first + span + 2 * REACHING - 1)
    steps = (*steps[:at], replace(steps[at], last=last, done=not held))
    scene = draw_scene(seed, "clips", number, Knobs(0, 0, 0))
    bare = replace(scene, companion=None, pictures=(None,) * len(steps))
    film = Film(replace(bare, activity=activity, steps=steps))
    start = steps[at].first + int(rng.random() * (last - steps[at].first + 1 - span + 1))
    label = CLIP_LABELS.index(HELD if held else action)
    shown = film.frames(range(start, start + span, stride))
    return ActionClip(shown, label, action, steps[at].station)


def _said(label: str, partners: dict[str, str], eta: float, rng: np.random.Generator) -> str:
    """L of causal.py: the partner instead of the label, up to half of the times."""
    return partners[label] if rng.random() < eta / 2 else label
