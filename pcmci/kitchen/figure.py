"""The person as sprites: a body behind the counter, and arms that reach any point.

An arm's origin is its shoulder, the body's the top of the stage above the head.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

from pcmci.kitchen.shapes import Coloured, Shape, Sprite, below, ellipse, fill, limb, polygon

COUNTER_EDGE = 126
"""The row of the stage where the counter begins; what is behind it ends there."""

SHOULDER_Y = 90


def shoulder_x(build: int) -> int:
    """How far the shoulders are from the middle."""
    return 22 + build


def _above(y: float, shape: Shape) -> Shape:
    return lambda X, Y: shape(X, Y) & (y >= Y)


@cache
def body(hairstyle: str, build: int) -> Sprite:
    """Head and torso, down to behind the counter."""
    wide = shoulder_x(build)
    behind: list[Coloured] = []
    if hairstyle == "long":
        behind = [(limb(-12, 48, -15, 78, 8), "hair-"), (limb(12, 48, 15, 78, 8), "hair-")]
    if hairstyle == "bun":
        behind = [(ellipse(0, 30, 9, 8), "hair-")]
    hair: list[Coloured] = []
    if hairstyle != "bald":
        hair = [
            (_above(48, ellipse(0, 50, 17.5, 19)), "hair"),
            (below(43, ellipse(0, 56, 14, 16)), "skin"),
            (ellipse(-5, 37, 6, 2.5), "hair+"),
        ]
    return fill(
        [
            *behind,
            (limb(0, 64, 0, 80, 6.5), "skin-"),
            (limb(-wide + 2, 91, wide - 2, 91, 9), "clothes"),
            (polygon((-wide - 5, 91), (wide + 5, 91), (wide, 150), (-wide, 150)), "clothes"),
            (polygon((-9, 82), (9, 82), (0, 92), (0, 92)), "skin-"),
            (limb(0, 100, 0, 150, 0.7), "clothes-"),
            (ellipse(-16, 54, 3.5, 5), "skin-"),
            (ellipse(16, 54, 3.5, 5), "skin-"),
            (ellipse(0, 53, 15.5, 19), "skin"),
            *hair,
            (ellipse(-6, 54, 2, 2.6), "ink"),
            (ellipse(6, 54, 2, 2.6), "ink"),
            (limb(-9, 49, -4, 48.5, 0.9), "hair-"),
            (limb(4, 48.5, 9, 49, 0.9), "hair-"),
            (ellipse(0, 59, 2, 2.6), "skin-"),
            (limb(-4, 65, 4, 65, 1), "pot"),
        ],
        bounds=(-48, 0, 48, 150),
    )


@lru_cache(maxsize=8192)
def arm(dx: int, dy: int, long_sleeves: bool, mirrored: bool = False) -> Sprite:
    """The right arm from the shoulder to a hand at (dx, dy), elbow outwards, without the hand."""
    if mirrored:
        return arm(dx, dy, long_sleeves).mirrored
    upper, lower = 30.0, 32.0
    distance = max(math.sqrt(dx * dx + dy * dy), 1.0)
    if distance > upper + lower:  # a long arm rather than one that ends before its hand
        upper = lower = distance / 2
    along = (upper * upper - lower * lower + distance * distance) / (2 * distance)
    aside = math.sqrt(max(upper * upper - along * along, 0.0))
    ux, uy = dx / distance, dy / distance
    elbow = (ux * along + uy * aside, uy * along - ux * aside)
    sleeve = "clothes" if long_sleeves else "skin"
    return fill(
        [
            (limb(*elbow, dx, dy, 6, 4.5), sleeve),
            (limb(0, 0, *elbow, 8, 6.5), "clothes"),
            (limb(2, 3, elbow[0], elbow[1] + 3, 2), "clothes-"),
        ],
        bounds=(
            int(min(0, dx, elbow[0])) - 10,
            int(min(0, dy, elbow[1])) - 10,
            int(max(0, dx, elbow[0])) + 10,
            int(max(0, dy, elbow[1])) + 10,
        ),
    )


@cache
def hand() -> Sprite:
    """A fist; its origin is its middle."""
    return fill(
        [(ellipse(0, 0, 6, 5.5), "skin"), (limb(-4, 1, 2, 2.5, 1), "skin-")], bounds=(-9, -9, 9, 9)
    )


WORN = {"hat": 40, "apron": 132}
"""Companion to the row of its origin on the body."""
