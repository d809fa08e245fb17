"""From a scene to its frames: uint8 RGB, the same bits on every machine.

The stage is drawn in palette indices, two stage pixels to a pixel of the video. What stands still
during a step is drawn once; a frame adds the arms, the tool and what runs out of it. The camera's
window, the palette and the mean over 2 x 2 stage pixels make the picture, and only where something
moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pcmci.kitchen import figure, things
from pcmci.kitchen.actions import ACTIONS
from pcmci.kitchen.causal import STAGE, Scene
from pcmci.kitchen.figure import COUNTER_EDGE
from pcmci.kitchen.grammar import Step
from pcmci.kitchen.motion import REACHING, Pose, pose, swing
from pcmci.kitchen.palette import INDEX, palette
from pcmci.kitchen.room import draw_room
from pcmci.kitchen.shapes import Sprite

SIZE = 96
"""Height and width of a frame in pixels."""

ROOM, COMPANION, TABLET, PERSON, THINGS = range(5)
"""Whose a pixel is: the room's, H's, I's, the person's, or that of the things worked with."""

SIDE = {"left": 92, "right": 132}
"""Where the person stands, in stage columns."""

BASE = 164
"""The row that the station stands on."""

TABLET_BOX = (26, 154, 66, 194)
"""Top, left, bottom and right of the tablet's picture on the stage."""

_PLACES = {
    "clock": (46, 52),
    "poster": (46, 54),
    "radio": (48, 146),
    "cat": (48, 146),
    "plant": (48, 148),
    "newspaper": (176, 150),
    "teddy": (176, 148),
    "vase": (176, 148),
}
"""Companion to the column and row of its origin, for those that are not worn."""


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
            return picture
        plane = self._stage
        np.copyto(plane, still)
        top, left, bottom, right = self._move(plane, None, t, self.scene.steps[index], moment)
        # the part of the picture that they touched, in whole pixels
        y0, y1 = np.searchsorted(self._rows, (top, bottom)) // 2
        x0, x1 = np.searchsorted(self._columns, (left, right)) // 2
        y1, x1 = min(y1 + 1, SIZE), min(x1 + 1, SIZE)
        picture = picture.copy()
        picture[y0:y1, x0:x1] = self._develop(plane, slice(2 * y0, 2 * y1), slice(2 * x0, 2 * x1))
        return picture

    def frames(self, times: Sequence[int] | range | None = None) -> np.ndarray:
        """[F, 96, 96, 3] uint8 at these frames, or all of them."""
        times = range(self.scene.frames) if times is None else times
        return np.stack([self.frame(t) for t in times])

    def region(self, t: int, owner: int) -> np.ndarray:
        """[96, 96] bool: the pixels of frame t that show anything of `owner`."""
        index, moment = self._step(t)
        owners = np.zeros(STAGE, dtype=np.uint8)
        plane = np.zeros(STAGE, dtype=np.uint8)
        self._furnish(plane, owners, t, index, moment)
        if moment is not None:
            self._move(plane, owners, t, self.scene.steps[index], moment)
        return self._seen(owners == owner)

    def material(self, t: int, colour: str) -> np.ndarray:
        """[96, 96] bool: the pixels of frame t that show a colour of palette.py in any shade."""
        index, moment = self._step(t)
        plane = self._still(t, index, moment)[0].copy()
        if moment is not None:
            self._move(plane, None, t, self.scene.steps[index], moment)
        return self._seen(np.isin(plane, [INDEX[colour + shade] for shade in ("", "-", "+")]))

    def _seen(self, mask: np.ndarray) -> np.ndarray:
        window = mask[self._rows][:, self._columns].reshape(SIZE, 2, SIZE, 2)
        return np.any(window, axis=(1, 3))

    def _step(self, t: int) -> tuple[int, Pose | None]:
        """The step at frame t (in a pause: the coming one, or the last), and its pose."""
        steps = self.scene.steps
        for index, step in enumerate(steps):
            if t <= step.last:
                return index, pose(step, t) if t >= step.first else None
        return len(steps) - 1, None

    def _still(self, t: int, index: int, moment: Pose | None) -> tuple[np.ndarray, np.ndarray]:
        """The stage without what moves, and its picture; kept until something changes."""
        key = (index, self._after(t, index), moment is not None and moment.slide)
        if self._set is None or self._set[0] != key:
            if self._room is None:
                self._room = draw_room(self.scene.kitchen)
            plane = self._room.copy()
            self._furnish(plane, None, t, index, moment)
            whole = slice(0, 2 * SIZE)
            picture = np.ascontiguousarray(self._develop(plane, whole, whole))
            self._set = (key, plane, picture)
        return self._set[1], self._set[2]

    def _after(self, t: int, index: int) -> bool:
        """Whether the step's outcome can be seen already."""
        step = self.scene.steps[index]
        if not step.done or t < step.first:
            return False
        if ACTIONS[step.action].motion == "bring":
            return t > step.last - REACHING
        return 10 * (t - step.first) > 6 * (step.last - step.first)

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

    def _furnish(
        self,
        plane: np.ndarray,
        owners: np.ndarray | None,
        t: int,
        index: int,
        moment: Pose | None,
    ) -> None:
        """Body, companion, tablet and stations onto a stage that shows the room."""
        scene, step = self.scene, self.scene.steps[index]
        self._show_tablet(plane, owners, scene.pictures[index])
        if scene.companion in _PLACES and _PLACES[scene.companion][1] < COUNTER_EDGE:
            _stamp(
                plane,
                owners,
                COMPANION,
                things.companion(scene.companion),
                *_PLACES[scene.companion],
            )
        behind = plane[:COUNTER_EDGE], None if owners is None else owners[:COUNTER_EDGE]
        _stamp(*behind, PERSON, figure.body(scene.person.hairstyle, scene.person.build), self._x, 0)
        if scene.companion in figure.WORN:
            dx, y = figure.WORN[scene.companion]
            _stamp(*behind, COMPANION, things.companion(scene.companion), self._x + dx, y)
        if scene.companion in _PLACES and _PLACES[scene.companion][1] >= COUNTER_EDGE:
            _stamp(
                plane,
                owners,
                COMPANION,
                things.companion(scene.companion),
                *_PLACES[scene.companion],
            )

        for place, dx in zip(self._waiting(index), (-42, 42), strict=False):
            sprite = things.station(place, self._history(place, index), self._hand < 0)
            _stamp(plane, owners, THINGS, sprite, self._x + self._hand * dx, BASE + 8)
        after = self._after(t, index)
        if ACTIONS[step.action].motion != "bring" or after:
            history = self._history(step.station, index + after)
            slide = moment.slide if moment else 0
            sprite = things.station(step.station, history, self._hand < 0)
            _stamp(plane, owners, THINGS, sprite, self._x + round(self._hand * slide), BASE)
        if step.action in things.SUPPLIES and moment is not None:
            sprite = things.supply(step.action)
            _stamp(plane, owners, THINGS, sprite, self._x + self._hand * 46, BASE)

    def _waiting(self, index: int) -> list[str]:
        """The stations used before and not now, the latest two."""
        steps = self.scene.steps
        here = steps[index].station
        used = [step.station for step in steps[:index] if step.done and step.station != here]
        if here == "bowl":
            used = [place for place in used if place != "fruit"]
        return list(dict.fromkeys(reversed(used)))[:2]

    def _history(self, place: str, index: int) -> tuple[str, ...]:
        """What was done at a station before step `index`; cut fruit goes into the bowl."""
        return tuple(
            step.action
            for step in self.scene.steps[:index]
            if step.done
            and (step.station == place or (place == "bowl" and step.action == "cut_fruit"))
        )

    def _show_tablet(self, plane: np.ndarray, owners: np.ndarray | None, action: str) -> None:
        top, left, bottom, right = TABLET_BOX
        plane[top - 3 : bottom + 3, left - 3 : right + 3] = INDEX["iron"]
        plane[top:bottom, left:right] = INDEX["screen"]
        if owners is not None:
            owners[top:bottom, left:right] = TABLET
        _stamp(plane[top:bottom, left:right], None, TABLET, things.icon(action), 20, 20)

    def _move(
        self, plane: np.ndarray, owners: np.ndarray | None, t: int, step: Step, moment: Pose
    ) -> tuple[int, int, int, int]:
        """The arms, the tool and its flow onto the stage; the box that they touched."""
        person, side = self.scene.person, self._hand
        action = ACTIONS[step.action]
        if moment.behind:
            plane = plane[:COUNTER_EDGE]
            owners = None if owners is None else owners[:COUNTER_EDGE]
        hands = [
            (self._x + side * round(x), BASE + round(y)) for x, y in (moment.hand, moment.helper)
        ]
        boxes = []
        for (x, y), which in zip(hands, (side, -side), strict=True):
            shoulder = self._x + which * figure.shoulder_x(person.build)
            to_hand = which * (x - shoulder), y - figure.SHOULDER_Y
            sprite = figure.arm(*to_hand, person.long_sleeves, which < 0)
            boxes.append(_stamp(plane, owners, PERSON, sprite, shoulder, figure.SHOULDER_Y))
        if moment.flows:
            boxes.append(self._flow(plane, owners, t, step, moment))
        if moment.holds and action.tool != "pan_handle":
            sprite = things.tool(action.tool, moment.degrees, side < 0)
            boxes.append(_stamp(plane, owners, THINGS, sprite, *hands[0]))
        for x, y in hands:
            boxes.append(_stamp(plane, owners, PERSON, figure.hand(), x, y))
        tops, lefts, bottoms, rights = zip(*boxes, strict=True)
        return max(min(tops), 0), max(min(lefts), 0), max(bottoms), max(rights)

    def _flow(
        self, plane: np.ndarray, owners: np.ndarray | None, t: int, step: Step, moment: Pose
    ) -> tuple[int, int, int, int]:
        """What runs (a thread) or falls (crumbs) out of the tool."""
        action = ACTIONS[step.action]
        if action.name == "crack_egg":
            x, y, colour = 0.0, moment.hand[1] + 8, "yolk"
        else:
            dx, dy = things.turned(things.SPOUTS[action.tool], moment.degrees)
            x, y, colour = moment.hand[0] + dx, moment.hand[1] + dy, action.flow
        column = self._x + self._hand * round(x)
        top, bottom = BASE + round(y), BASE + things.MOUTH[step.station][1]
        rows = range(top, bottom)
        if colour in ("cereal", "flour", "sugar"):
            rows = range(top + 5 * t % 8, bottom, 8)
        for row in rows:
            tall, wide = (1, 2) if len(rows) > 3 and rows.step == 1 else (4, 3)
            aside = round(4 * swing(row / 17)) if rows.step > 1 else 0
            patch = slice(row, row + tall), slice(column + aside - wide, column + aside + wide)
            plane[patch] = INDEX[colour]
            if owners is not None:
                owners[patch] = THINGS
        return top, column - 8, max(bottom, top) + 4, column + 8


def _stamp(
    plane: np.ndarray, owners: np.ndarray | None, owner: int, sprite: Sprite, x: int, y: int
) -> tuple[int, int, int, int]:
    """A sprite with its origin at column x, row y, cut off at the plane's borders.

    Returns the top, left, bottom and right of what it covers.
    """
    (height, width), (h, w) = plane.shape, sprite.mask.shape
    top, left = y + sprite.y, x + sprite.x
    bottom, right = min(top + h, height), min(left + w, width)
    y0, x0 = max(-top, 0), max(-left, 0)
    y1, x1 = bottom - top, right - left
    if y0 < y1 and x0 < x1:
        mask = sprite.mask[y0:y1, x0:x1]
        inside = slice(top + y0, bottom), slice(left + x0, right)
        np.copyto(plane[inside], sprite.pixels[y0:y1, x0:x1], where=mask)
        if owners is not None:
            np.copyto(owners[inside], owner, where=mask)
    return top + y0, left + x0, bottom, right
