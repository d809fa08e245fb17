"""From a scene to its frames: uint8 RGB, the same bits on every machine.

The stage is drawn in palette indices, two stage pixels to a pixel of the video. What stands still
during a step is drawn once; a frame adds the arms, the tool and what runs out of it. The camera's
window, the palette and the mean over 2 x 2 stage pixels make the picture, and only where something
moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pcmci.kitchen import figure, things
from pcmci.kitchen.actions import ACTIONS
from pcmci.kitchen.canvas import Box, Canvas
from pcmci.kitchen.causal import STAGE, Scene
from pcmci.kitchen.figure import COUNTER_EDGE
from pcmci.kitchen.grammar import Step
from pcmci.kitchen.motion import REACHING, Pose, pose, swing
from pcmci.kitchen.palette import INDEX, SHADES, palette
from pcmci.kitchen.room import draw_room

SIZE = 96
"""Height and width of a frame in pixels."""

ROOM, COMPANION, TABLET, PERSON, THINGS = range(5)
"""Whose a pixel is: the room's, H's, I's, the person's, or that of the things worked with."""

GREY = 128

SIDE = {"left": 92, "right": 132}
"""Where the person stands, in stage columns."""

BASE = 164
"""The row that the station stands on."""

TABLET_BOX = Box(26, 154, 66, 194)
"""Where the tablet's picture is on the stage."""

_TABLET_FRAME = Box(23, 151, 69, 197)

_ON_THE_WALL = {"clock": (46, 52), "poster": (46, 54)}
_ON_THE_COUNTER = {
    "radio": (48, 146),
    "cat": (48, 146),
    "plant": (48, 148),
    "newspaper": (176, 150),
    "teddy": (176, 148),
    "vase": (176, 148),
}
"""Companion to the column and row of its origin; the others are worn."""


class Film:
    """The frames of a scene, any of them at any time."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._x = SIDE[scene.looks.side]
        self._hand = -1 if scene.person.left_handed else 1
        camera = scene.camera
        window = np.arange(2 * SIZE) * camera.size // (2 * SIZE)
        self._rows, self._columns = camera.top + window, camera.left + window
        self._colours = palette(scene).view(np.uint64)[:, 0]
        self._stage = np.empty(STAGE, dtype=np.uint8)
        self._room: np.ndarray | None = None
        self._set: tuple[object, np.ndarray, np.ndarray] | None = None

    def frame(self, t: int) -> np.ndarray:
        """[96, 96, 3] uint8: what the camera sees at frame t."""
        index, moment = self._step(t)
        still, picture = self._still(t, index, moment)
        if moment is None:
            return picture.copy()
        np.copyto(self._stage, still)
        touched = self._move(Canvas(self._stage), t, index, moment)
        # the part of the picture that was touched, in whole pixels
        y0, y1 = np.searchsorted(self._rows, (touched.top, touched.bottom)) // 2
        x0, x1 = np.searchsorted(self._columns, (touched.left, touched.right)) // 2
        y1, x1 = min(y1 + 1, SIZE), min(x1 + 1, SIZE)
        rows, columns = slice(2 * y0, 2 * y1), slice(2 * x0, 2 * x1)
        picture = picture.copy()
        picture[y0:y1, x0:x1] = self._develop(self._stage, rows, columns)
        return picture

    def frames(self, times: Sequence[int] | range | None = None) -> np.ndarray:
        """[F, 96, 96, 3] uint8 at these frames, or all of them."""
        times = range(self.scene.frames) if times is None else times
        return np.stack([self.frame(t) for t in times])

    def region(self, t: int, owner: int) -> np.ndarray:
        """[96, 96] bool: the pixels of frame t that show anything of `owner`."""
        _, owners = self._whole(t)
        return self._seen(owners == owner)

    def material(self, t: int, colour: str) -> np.ndarray:
        """[96, 96] bool: the pixels of frame t that show a colour of palette.py in any shade."""
        plane, _ = self._whole(t)
        return self._seen(np.isin(plane, [INDEX[colour + shade] for shade in SHADES]))

    def covered(self, t: int) -> np.ndarray:
        """[96, 96, 3] uint8: frame t with a grey box over the things worked with and the hands on
        them, so that the activity cannot be seen; a companion inside the box stays in sight."""
        picture, seen = self.frame(t), np.argwhere(self.region(t, THINGS))
        if len(seen):
            (top, left), (bottom, right) = seen.min(0), seen.max(0) + 1
            box = np.zeros((SIZE, SIZE), dtype=bool)
            box[top:bottom, left:right] = True
            picture[box & ~self.region(t, COMPANION)] = GREY
        return picture

    def _whole(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """The stage at frame t, and whose each of its pixels is."""
        index, moment = self._step(t)
        owners = np.full(STAGE, ROOM, dtype=np.uint8)
        canvas = Canvas(draw_room(self.scene.kitchen), owners)
        self._furnish(canvas, t, index, moment)
        if moment is not None:
            self._move(canvas, t, index, moment)
        return canvas.plane, owners

    def _seen(self, mask: np.ndarray) -> np.ndarray:
        window = mask[self._rows][:, self._columns].reshape(SIZE, 2, SIZE, 2)
        return np.any(window, axis=(1, 3))

    def _step(self, t: int) -> tuple[int, Pose | None]:
        """The step at frame t (in a pause: the coming one, or the last), and its pose."""
        steps = self.scene.steps
        for index, step in enumerate(steps):
            if t <= step.last:
                return index, self._pose(step, t) if t >= step.first else None
        return len(steps) - 1, None

    def _pose(self, step: Step, t: int) -> Pose:
        """With the working hand off by the tremor of the frame."""
        moment = pose(step, t)
        if not self.scene.tremor:
            return moment
        (x, y), (dx, dy) = moment.hand, self.scene.tremor[t % len(self.scene.tremor)]
        return replace(moment, hand=(x + dx, y + dy))

    def _still(self, t: int, index: int, moment: Pose | None) -> tuple[np.ndarray, np.ndarray]:
        """The stage without what moves, and its picture; kept until something changes."""
        slide = None if moment is None else moment.slide
        key = (index, self._after(t, index), slide, self.scene.companion_at(t))
        if self._set is None or self._set[0] != key:
            if self._room is None:
                self._room = draw_room(self.scene.kitchen)
            plane = self._room.copy()
            self._furnish(Canvas(plane), t, index, moment)
            whole = slice(0, 2 * SIZE)
            picture = np.ascontiguousarray(self._develop(plane, whole, whole))
            self._set = (key, plane, picture)
        return self._set[1], self._set[2]

    def _develop(self, plane: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Window rows and columns (even borders) of the stage to [h, w, 3] uint8.

        A colour is four 16-bit numbers in one 64-bit number, so that a sum adds all of them; see
        `palette` for the 64ths that they count.
        """
        seen = plane.take(self._rows[rows], axis=0).take(self._columns[columns], axis=1)
        colours = self._colours.take(seen)
        colours = colours[::2] + colours[1::2]
        colours = colours[:, ::2] + colours[:, 1::2]
        return (colours.view(np.uint16) >> 8).astype(np.uint8).reshape(*colours.shape, 4)[..., :3]

    def _after(self, t: int, index: int) -> bool:
        """Whether the step's outcome can be seen already."""
        step = self.scene.steps[index]
        if not step.done or t < step.first:
            return False
        if ACTIONS[step.action].motion == "bring":
            return t > step.last - REACHING
        return 10 * (t - step.first) > 6 * (step.last - step.first)

    def _waiting(self, index: int) -> list[str]:
        """The stations used before and not now, the latest two."""
        steps = self.scene.steps
        here = steps[index].station
        used = [step.station for step in steps[:index] if step.done and step.station != here]
        if here == "bowl":  # the fruit is in it
            used = [place for place in used if place != "fruit"]
        if any(step.action == "pour_mix" for step in steps[: index + 1]):  # the bowl is in the hand
            used = [place for place in used if place != "bowl"]
        return list(dict.fromkeys(reversed(used)))[:2]

    def _history(self, place: str, index: int) -> tuple[str, ...]:
        """What was done at a station before step `index`; cut fruit goes into the bowl."""
        return tuple(
            step.action
            for step in self.scene.steps[:index]
            if step.done
            and (step.station == place or (place == "bowl" and step.action == "cut_fruit"))
        )

    def _furnish(self, canvas: Canvas, t: int, index: int, moment: Pose | None) -> None:
        """Tablet, body, companion and stations onto a stage that shows the room."""
        scene, step, hand = self.scene, self.scene.steps[index], self._hand
        person, companion = scene.person, scene.companion_at(t)
        canvas.paint(ROOM, "iron", _TABLET_FRAME)
        picture = scene.pictures[index]
        canvas.paint(TABLET, "screen" if picture else "ink", TABLET_BOX)
        if picture:
            canvas.part(TABLET_BOX).stamp(TABLET, things.icon(picture), 20, 20)
        if companion in _ON_THE_WALL:
            canvas.stamp(COMPANION, things.companion(companion), *_ON_THE_WALL[companion])
        behind = canvas.above(COUNTER_EDGE)
        behind.stamp(PERSON, figure.body(person.hairstyle, person.build), self._x, 0)
        if companion in figure.WORN:
            behind.stamp(COMPANION, things.companion(companion), self._x, figure.WORN[companion])
        if companion in _ON_THE_COUNTER:
            canvas.stamp(COMPANION, things.companion(companion), *_ON_THE_COUNTER[companion])

        for place, aside in zip(self._waiting(index), (-42, 42), strict=False):
            sprite = things.station(place, self._history(place, index), hand < 0)
            canvas.stamp(THINGS, sprite, self._x + hand * aside, BASE + 8)
        after = self._after(t, index)
        if ACTIONS[step.action].motion != "bring" or after:
            history = self._history(step.station, index + after)
            slide = round(moment.slide) if moment else 0
            sprite = things.station(step.station, history, hand < 0)
            canvas.stamp(THINGS, sprite, self._x + hand * slide, BASE)
        if step.action in things.SUPPLIES and moment:
            canvas.stamp(THINGS, things.supply(step.action), self._x + hand * 46, BASE)

    def _move(self, canvas: Canvas, t: int, index: int, moment: Pose) -> Box:
        """The arms, the tool, its flow and steam onto the stage; the box that they touched."""
        person, side, step = self.scene.person, self._hand, self.scene.steps[index]
        action = ACTIONS[step.action]
        if moment.behind:
            canvas = canvas.above(COUNTER_EDGE)
        hands = [
            (self._x + side * round(x), BASE + round(y)) for x, y in (moment.hand, moment.helper)
        ]
        boxes = []
        for (x, y), which in zip(hands, (side, -side), strict=True):
            shoulder = self._x + which * figure.shoulder_x(person.build)
            to_hand = which * (x - shoulder), y - figure.SHOULDER_Y
            sprite = figure.arm(*to_hand, person.long_sleeves, which < 0)
            boxes.append(canvas.stamp(PERSON, sprite, shoulder, figure.SHOULDER_Y))
        if moment.flows:
            boxes += self._flow(canvas, t, step, moment)
        if moment.holds and action.tool != "pan_handle":
            sprite = things.tool(action.tool, moment.degrees, side < 0)
            boxes.append(canvas.stamp(THINGS, sprite, *hands[0]))
        if things.steams(step.station, self._history(step.station, index)):
            boxes += self._steam(canvas, t, step)
        boxes += [canvas.stamp(PERSON, figure.hand(), x, y) for x, y in hands]
        tops, lefts, bottoms, rights = zip(*boxes, strict=True)
        return Box(max(min(tops), 0), max(min(lefts), 0), max(bottoms), max(rights))

    def _flow(self, canvas: Canvas, t: int, step: Step, moment: Pose) -> list[Box]:
        """What runs (a thread) or falls (crumbs) out of the tool."""
        action = ACTIONS[step.action]
        if action.motion == "crack":
            x, y = 0.0, moment.hand[1] + 8
        else:
            dx, dy = things.turned(things.SPOUTS[action.tool], moment.degrees)
            x, y = moment.hand[0] + dx, moment.hand[1] + dy
        column = self._x + self._hand * round(x)
        top, bottom = BASE + round(y), BASE + things.MOUTH[step.station][1]
        if action.flow not in things.CRUMBS:
            thread = Box(top, column - 2, bottom + 1, column + 2)
            return [canvas.paint(THINGS, action.flow, thread)]
        boxes = []
        for row in range(top + 5 * t % 8, bottom, 8):
            left = column + round(4 * swing(row / 17)) - 3
            crumb = Box(row, left, row + 4, left + 6)
            boxes.append(canvas.paint(THINGS, action.flow, crumb))
        return boxes

    def _steam(self, canvas: Canvas, t: int, step: Step) -> list[Box]:
        """Puffs that rise from a hot station, one a second."""
        top = BASE + things.MOUTH[step.station][1] - 6
        middle = self._x - 8 * self._hand
        return [
            canvas.stamp(THINGS, things.puff(), middle + round(5 * swing(risen / 23)), top - risen)
            for risen in ((2 * t + 20 * puff) % 40 for puff in range(2))
        ]
