"""The motions: where the hands are at each moment of a step.

Coordinates are those of a right-handed person, in stage pixels from the middle of the base of the
station, y down. Every motion keeps its tool about the same place, so that one frame tells little:
what differs is how the hand moves on. Times are seconds, tempos cycles a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pcmci.kitchen.actions import ACTIONS, Action
from pcmci.kitchen.grammar import FPS, Step
from pcmci.kitchen.things import MOUTH, SPOUTS, turned


@dataclass(frozen=True)
class Pose:
    """One moment of a step.

    hand, helper: where the two hands are.
    degrees: how far the tool is turned clockwise.
    holds: whether the tool is in the hand.
    flows: whether something runs out of it.
    behind: whether the arms are still behind the counter.
    slide: how far the station has been moved to the right.
    """

    hand: tuple[float, float]
    helper: tuple[float, float]
    degrees: int = 0
    holds: bool = True
    flows: bool = False
    behind: bool = False
    slide: float = 0.0


Path = Callable[[float, float, Step, Action], Pose]
"""Seconds into the motion, its share that is over, the step and its action, to a pose."""

REACHING = 5
"""Frames from the hands' rest to their work, and back."""

HIDDEN, RAISED = (34.0, -20.0), (32.0, -50.0)
"""The hand below the far edge of the counter, and just above it."""


def swing(cycles: float) -> float:
    """A sine wave's equal in sums and products: 0, 1, 0, -1 at 0, 1/4, 1/2, 3/4 of a cycle."""
    x = 2 * (cycles - cycles // 1) - 1
    return -4 * x * (1 - abs(x))


def pose(step: Step, frame: int) -> Pose:
    """Where the hands are at a frame of the step (counted from the video's start)."""
    since, left = frame - step.first, step.last - frame
    n = step.last - step.first + 1 - 2 * REACHING
    action = ACTIONS[step.action]
    moment = min(max(since - REACHING, 0), n - 1)
    if step.done:
        working = PATHS[action.motion](moment / FPS, moment / n, step, action)
    else:
        working = _held(moment, step, action)
    away = min(since, left)
    if away >= REACHING:
        return working
    lays_down = action.motion == "bring" and step.done and left < since
    near = (0.0, 0.0, 0.4, 0.8, 0.95)[away]
    start = HIDDEN if away == 0 else RAISED
    return Pose(
        hand=_between(start, working.hand, near),
        helper=_between((-start[0], start[1]), working.helper, near),
        degrees=int(working.degrees * near / 15) * 15,
        holds=not lays_down,
        behind=away < 2,
    )


def _held(moment: int, step: Step, action: Action) -> Pose:
    """A tool that is looked at and not used: the motion stands still."""
    still = PATHS[action.motion](step.phase * 2, 0.3, step, action)
    drift = 2 * swing(moment / FPS * 0.2 + step.phase)
    return Pose((still.hand[0] + drift, still.hand[1]), still.helper, still.degrees)


def _between(a: tuple[float, float], b: tuple[float, float], u: float) -> tuple[float, float]:
    return a[0] + (b[0] - a[0]) * u, a[1] + (b[1] - a[1]) * u


def _at(step: Step, dx: float, dy: float) -> tuple[float, float]:
    x, y = MOUTH[step.station]
    return x + dx, y + dy


def _helper(step: Step) -> tuple[float, float]:
    """The other hand steadies the station."""
    return {"cup": (-18.0, -10.0), "bowl": (-30.0, -14.0), "pan": (-40.0, -6.0)}.get(
        step.station, (-30.0, -10.0)
    )


def _stir(t: float, _: float, step: Step, action: Action) -> Pose:
    wide = {"cup": 8, "bowl": 13, "pan": 15}[step.station] * step.reach
    cycles = 0.9 * step.tempo * t + step.phase
    hand = _at(step, 9 + wide * swing(cycles + 0.25), -22 + 0.35 * wide * swing(cycles))
    return Pose(hand, _helper(step))


def _beat(t: float, _: float, step: Step, action: Action) -> Pose:
    cycles = 1.9 * step.tempo * t + step.phase
    hand = _at(step, 9 + 2 * swing(0.21 * cycles), -25 + 7 * step.reach * swing(cycles))
    return Pose(hand, _helper(step))


def _dip(t: float, _: float, step: Step, action: Action) -> Pose:
    hand = _at(step, 3, -27 + 9 * step.reach * swing(0.7 * step.tempo * t + step.phase))
    return Pose(hand, _helper(step))


def _chop(t: float, over: float, step: Step, action: Action) -> Pose:
    lift = abs(swing(0.85 * step.tempo * t + step.phase))
    hand = _at(step, 24 - 12 * over, -6 - 13 * step.reach * lift)
    return Pose(hand, (-24.0, -14.0))


def _sweep(t: float, _: float, step: Step, action: Action) -> Pose:
    along = swing(0.9 * step.tempo * t + step.phase)
    low = -14 if action.tool == "butter" else -9
    hand = _at(step, 17 + 12 * step.reach * along, low + 2 * along)
    return Pose(hand, (-26.0, -16.0))


def _pour(t: float, over: float, step: Step, action: Action) -> Pose:
    tilt = swing(0.45 * step.tempo * t + step.phase)
    degrees = -60 + 15 * round(-tilt)
    return Pose(_spout_over(step, action, degrees, 0), (-34.0, -6.0), degrees, flows=tilt > -0.5)


def _shake(t: float, over: float, step: Step, action: Action) -> Pose:
    jolt = swing(2.1 * step.tempo * t + step.phase)
    flows = bool(action.flow) and jolt > 0
    hand = _spout_over(step, action, -60, 6 * step.reach * jolt)
    return Pose(hand, (-34.0, -6.0), -60, flows=flows)


def _spout_over(step: Step, action: Action, degrees: int, dy: float) -> tuple[float, float]:
    x, y = turned(SPOUTS[action.tool], degrees)
    return _at(step, 2 - x, -16 - y + dy)


def _crack(t: float, over: float, step: Step, action: Action) -> Pose:
    if over < 0.6:
        tap = swing(1.5 * step.tempo * t + step.phase)
        return Pose(_at(step, 4, -20 + 7 * step.reach * tap), (-26.0, -14.0))
    x, y = _at(step, 0, -26)
    apart = min(12.0, (over - 0.6) * 60)
    return Pose((x + apart, y), (x - apart, y), 15, flows=over > 0.7)


def _ladle(t: float, _: float, step: Step, action: Action) -> Pose:
    there = swing(0.45 * step.tempo * t + step.phase)
    x = 27 + 20 * there
    return Pose(_at(step, x, -34 + 9 * there * there), (-34.0, -6.0))


def _twist(t: float, _: float, step: Step, action: Action) -> Pose:
    cycles = 0.8 * step.tempo * t + step.phase
    hand = _at(step, 7 * step.reach * swing(cycles + 0.25), -8 + 3 * swing(cycles))
    return Pose(hand, (-26.0, -8.0), 15 * round(1.6 * swing(cycles)))


def _flip(t: float, _: float, step: Step, action: Action) -> Pose:
    cycles = 0.55 * step.tempo * t + step.phase
    share = cycles - cycles // 1
    if share < 0.4:  # slides under
        return Pose(_at(step, 24 - 32 * share, -20), _helper(step))
    lift = 1 - abs(share - 0.7) / 0.3
    return Pose(
        _at(step, 11 + 13 * (share - 0.4) / 0.6, -20 - 20 * step.reach * lift),
        _helper(step),
        degrees=-30 if 0.5 < share < 0.9 else 0,
    )


def _jog(t: float, _: float, step: Step, action: Action) -> Pose:
    slide = 9 * step.reach * swing(1.1 * step.tempo * t + step.phase)
    return Pose((48 + slide, -12.0), (-38.0, 0.0), slide=slide)


def _bring(t: float, over: float, step: Step, action: Action) -> Pose:
    x, y = {"cup": (12, -22), "bowl": (25, -20), "plate": (25, -8)}[action.tool]
    down = 1 - (1 - over) * (1 - over)
    hand = _between((x + 22, y - 30), (x, y), down)
    return Pose(hand, (-34.0, -6.0))


def _lay(t: float, over: float, step: Step, action: Action) -> Pose:
    cycles = 0.5 * step.tempo * t + step.phase
    there = swing(cycles)
    x = -8 if (cycles // 1) % 2 else 10
    hand = _between(_at(step, 48, -8), _at(step, x, -14), (1 + there) / 2)
    coming = swing(cycles + 0.25) > 0
    return Pose((hand[0], hand[1] - 10 * (1 - abs(there))), (-34.0, -6.0), holds=coming)


PATHS: dict[str, Path] = {
    "stir": _stir,
    "beat": _beat,
    "dip": _dip,
    "chop": _chop,
    "sweep": _sweep,
    "pour": _pour,
    "shake": _shake,
    "crack": _crack,
    "ladle": _ladle,
    "twist": _twist,
    "flip": _flip,
    "jog": _jog,
    "bring": _bring,
    "lay": _lay,
}
"""The motions by name."""
