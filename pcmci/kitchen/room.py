"""The empty kitchen: wall, what hangs on it, counter and drawers."""

from __future__ import annotations

import numpy as np

from pcmci.kitchen.causal import STAGE, Kitchen
from pcmci.kitchen.figure import COUNTER_EDGE
from pcmci.kitchen.palette import INDEX

FRONT_EDGE = 178
"""The row where the counter's top ends and its front begins."""


def draw_room(kitchen: Kitchen) -> np.ndarray:
    """[208, 224] uint8 palette indices."""
    plane = np.full(STAGE, INDEX["wall"], dtype=np.uint8)

    def paint(colour: str, top: int, left: int, bottom: int, right: int) -> None:
        plane[top:bottom, left:right] = INDEX[colour]

    if kitchen.tiles != "none":
        paint("tile", 100, 0, COUNTER_EDGE, STAGE[1])
        plane[100:COUNTER_EDGE:13] = INDEX["tile-"]
        for row, top in enumerate(range(100, COUNTER_EDGE, 13)):
            wide = 13 if kitchen.tiles == "square" else 26
            shift = 13 * (row % 2) if kitchen.tiles == "brick" else 0
            plane[top : top + 13, shift::wide] = INDEX["tile-"]
    if kitchen.cupboards:
        paint("front", 0, 0, 16, STAGE[1])
        paint("front-", 16, 0, 19, STAGE[1])
        for x in range(28, STAGE[1], 56):
            paint("front-", 0, x, 16, x + 2)
            paint("steel", 9, x - 8, 12, x - 3)
    if kitchen.behind == "window":
        paint("china", 24, 82, 88, 142)
        paint("sky", 28, 86, 84, 110)
        paint("sky", 28, 114, 84, 138)
        paint("leaf", 70, 86, 84, 110)
        paint("leaf-", 74, 114, 84, 138)
    elif kitchen.behind == "shelf":
        paint("wood", 62, 72, 66, 152)
        for x, tall, colour in (
            (76, 16, "print"),
            (92, 20, "steel"),
            (116, 14, "wood"),
            (134, 18, "glass"),
        ):
            paint(colour, 62 - tall, x, 62, x + 12)
            paint("iron", 60 - tall, x, 63 - tall, x + 12)
    elif kitchen.behind == "hooks":
        paint("iron", 34, 74, 37, 150)
        for x, long in ((80, 24), (94, 18), (112, 26), (130, 20), (144, 16)):
            paint("steel-", 37, x, 37 + long, x + 2)
            paint("steel-", 33 + long, x - 3, 41 + long, x + 5)

    paint("counter", COUNTER_EDGE, 0, FRONT_EDGE, STAGE[1])
    paint("counter+", COUNTER_EDGE, 0, COUNTER_EDGE + 3, STAGE[1])
    paint("counter-", FRONT_EDGE - 4, 0, FRONT_EDGE, STAGE[1])
    paint("front", FRONT_EDGE, 0, STAGE[0], STAGE[1])
    for x in range(0, STAGE[1], 56):
        paint("front-", FRONT_EDGE, x, STAGE[0], x + 2)
        paint("steel", FRONT_EDGE + 10, x + 22, FRONT_EDGE + 13, x + 36)
    return plane
