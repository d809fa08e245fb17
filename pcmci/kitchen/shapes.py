"""Shapes, and the sprites made of them.

A shape says which points of the plane it covers, y downwards; a sprite is a stack of coloured
shapes, turned about the origin and filled in. Sums, products and comparisons alone, so that the
same sprite comes out on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pcmci.kitchen.palette import INDEX

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""X, Y of one shape to the mask of the points covered."""

Coloured = tuple[Shape, str]
"""A shape and the name of its colour."""


def ellipse(x: float, y: float, rx: float, ry: float) -> Shape:
    """The ellipse about (x, y) with half axes rx and ry."""
    return lambda X, Y: ((X - x) / rx) ** 2 + ((Y - y) / ry) ** 2 <= 1


def box(left: float, top: float, right: float, bottom: float) -> Shape:
    """An upright rectangle."""
    return lambda X, Y: (left <= X) & (right >= X) & (top <= Y) & (bottom >= Y)


def below(y: float, shape: Shape) -> Shape:
    """The part of a shape that lies below a level."""
    return lambda X, Y: shape(X, Y) & (y <= Y)


def moved(x: float, y: float, shape: Shape, degrees: int = 0) -> Shape:
    """A shape turned clockwise about the origin, which then goes to (x, y)."""
    cos, sin = turn(degrees)
    return lambda X, Y: shape((X - x) * cos + (Y - y) * sin, (Y - y) * cos - (X - x) * sin)


def polygon(*corners: tuple[float, float]) -> Shape:
    """The convex polygon with these corners, clockwise as seen (y down)."""

    def covers(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        inside = np.ones(np.broadcast_shapes(X.shape, Y.shape), dtype=bool)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            inside &= (x1 - x0) * (Y - y0) - (y1 - y0) * (X - x0) >= 0
        return inside

    return covers


def limb(x0: float, y0: float, x1: float, y1: float, r0: float, r1: float | None = None) -> Shape:
    """All points within r of the stretch from (x0, y0) to (x1, y1), r going from r0 to r1."""
    dx, dy, r1 = x1 - x0, y1 - y0, r0 if r1 is None else r1
    square = max(dx * dx + dy * dy, 1e-9)

    def covers(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        along = np.clip(((X - x0) * dx + (Y - y0) * dy) / square, 0, 1)
        apart = (X - x0 - along * dx) ** 2 + (Y - y0 - along * dy) ** 2
        return apart <= (r0 + along * (r1 - r0)) ** 2

    return covers


def turn(degrees: int) -> tuple[float, float]:
    """Cosine and sine, rounded to 1/1024 so that all mathematics libraries agree."""
    angle = math.radians(degrees)
    return round(math.cos(angle) * 1024) / 1024, round(math.sin(angle) * 1024) / 1024


@dataclass(frozen=True)
class Sprite:
    """A small picture in palette indices, and where its origin lies.

    pixels: [h, w] uint8, 0 where nothing is. mask: [h, w] bool, where something is.
    x, y: the offset of pixel [0, 0] from the origin.
    """

    pixels: np.ndarray
    mask: np.ndarray
    x: int
    y: int

    @property
    def mirrored(self) -> Sprite:
        """The same seen in a mirror through its origin."""
        pixels = np.ascontiguousarray(self.pixels[:, ::-1])
        return Sprite(pixels, pixels != 0, -self.x - pixels.shape[1] + 1, self.y)


def fill(
    shapes: Sequence[Coloured],
    degrees: int = 0,
    bounds: tuple[int, int, int, int] = (-64, -64, 64, 64),
    scale: float = 1.0,
) -> Sprite:
    """The sprite of a stack of shapes, later ones on top, with a dark line around it.

    degrees: turned clockwise by so much. scale: so much larger.
    bounds: left, top, right and bottom of the points that it may cover.
    """
    cos, sin = turn(degrees)
    left, top, right, bottom = bounds
    x = np.arange(left, right + 1) / scale
    y = np.arange(top, bottom + 1)[:, None] / scale
    X, Y = (x * cos + y * sin, y * cos - x * sin) if degrees else (x, y)
    pixels = np.zeros((len(y), len(x)), dtype=np.uint8)
    for covers, colour in shapes:
        pixels[covers(X, Y)] = INDEX[colour]
    covered = pixels != 0
    edge = np.zeros_like(covered)
    edge[1:] |= covered[:-1]
    edge[:-1] |= covered[1:]
    edge[:, 1:] |= covered[:, :-1]
    edge[:, :-1] |= covered[:, 1:]
    pixels[edge & ~covered] = INDEX["ink"]
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    if not len(rows):
        return Sprite(pixels[:0, :0], pixels[:0, :0] != 0, 0, 0)
    pixels = np.ascontiguousarray(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return Sprite(pixels, pixels != 0, left + int(columns[0]), top + int(rows[0]))
