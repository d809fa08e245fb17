"""What is drawn on: a plane of palette indices, and whose each of its pixels is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pcmci.kitchen.palette import INDEX
from pcmci.kitchen.shapes import Sprite


class Box(NamedTuple):
    """Rows top to bottom and columns left to right, the latter of both left out."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass
class Canvas:
    """plane: [H, W] uint8 palette indices. owners: the same shape, or None where nobody asks."""

    plane: np.ndarray
    owners: np.ndarray | None = None

    def above(self, row: int) -> Canvas:
        """The part above a row; what is drawn on it ends there."""
        return self.part(Box(0, 0, row, self.plane.shape[1]))

    def part(self, box: Box) -> Canvas:
        """A rectangle; what is drawn on it ends at its borders."""
        rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
        owners = None if self.owners is None else self.owners[rows, columns]
        return Canvas(self.plane[rows, columns], owners)

    def paint(self, owner: int, colour: str, box: Box) -> Box:
        """A rectangle of one colour."""
        self.plane[box.top : box.bottom, box.left : box.right] = INDEX[colour]
        if self.owners is not None:
            self.owners[box.top : box.bottom, box.left : box.right] = owner
        return box

    def stamp(self, owner: int, sprite: Sprite, x: int, y: int) -> Box:
        """A sprite with its origin at column x, row y; the part of it that is on the canvas."""
        (height, width), (h, w) = self.plane.shape, sprite.mask.shape
        top, left = y + sprite.y, x + sprite.x
        bottom, right = min(top + h, height), min(left + w, width)
        y0, x0 = max(-top, 0), max(-left, 0)
        y1, x1 = bottom - top, right - left
        if y0 < y1 and x0 < x1:
            mask = sprite.mask[y0:y1, x0:x1]
            inside = slice(top + y0, bottom), slice(left + x0, right)
            np.copyto(self.plane[inside], sprite.pixels[y0:y1, x0:x1], where=mask)
            if self.owners is not None:
                np.copyto(self.owners[inside], owner, where=mask)
        return Box(top + y0, left + x0, bottom, right)
