"""The things of the kitchen as sprites: tools, stations with what is in them, companions.

Stage pixels, two to a pixel of the video. A tool's origin is the hand that holds it; a station's
is the middle of its base, a companion's the middle of its base or, on the wall, its centre.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pcmci.kitchen.actions import ACTIONS
from pcmci.kitchen.palette import INDEX
from pcmci.kitchen.shapes import (
    Coloured,
    Sprite,
    below,
    box,
    ellipse,
    fill,
    limb,
    moved,
    polygon,
    turn,
)

_TOOLS: dict[str, list[Coloured]] = {
    "cup": [],
    "bowl": [],
    "plate": [],
    "pan_handle": [],
    "kettle": [
        (polygon((-20, -12), (-10, -2), (-10, 8), (-24, -10)), "kettle-"),
        (ellipse(0, 4, 15, 14), "kettle"),
        (ellipse(-5, -1, 5, 5), "kettle+"),
        (box(-13, 14, 13, 18), "iron"),
        (limb(-9, -8, 0, -14, 2.2), "iron"),
        (limb(0, -14, 9, -8, 2.2), "iron"),
    ],
    "carton": [
        (box(-11, -8, 11, 20), "china"),
        (box(-11, 2, 11, 12), "carton"),
        (polygon((-11, -8), (-7, -17), (7, -17), (11, -8)), "carton+"),
        (box(-7, -20, 7, -17), "carton"),
    ],
    "bottle": [
        (box(-9, -6, 9, 21), "bottle"),
        (box(-9, 2, 9, 14), "juice"),
        (polygon((-9, -6), (-4, -16), (4, -16), (9, -6)), "bottle+"),
        (box(-4, -21, 4, -16), "china"),
    ],
    "cereal_box": [
        (box(-13, -17, 13, 20), "cerealbox"),
        (ellipse(0, 3, 9, 7), "milk"),
        (ellipse(0, 3, 6, 4), "cereal"),
        (box(-13, -17, 13, -13), "cerealbox-"),
    ],
    "flour_bag": [
        (box(-12, -12, 12, 18), "flourbag"),
        (polygon((-12, -12), (-9, -18), (9, -18), (12, -12)), "flour"),
        (box(-7, -2, 7, 10), "flour"),
        (limb(-3, 4, 3, 4, 1.5), "cereal-"),
    ],
    "mix_bowl": [
        (below(-4, ellipse(-12, -4, 22, 20)), "bowlred"),
        (ellipse(-12, -4, 22, 7), "bowlred+"),
        (ellipse(-12, -4, 20, 5.6), "batter"),
    ],
    "caster": [
        (box(-8, -8, 8, 14), "caster"),
        (box(-8, 2, 8, 14), "sugar"),
        (polygon((-8, -8), (-6, -16), (6, -16), (8, -8)), "steel-"),
        (box(-8, -9, 8, -7), "iron"),
    ],
    "spoon": [
        (limb(4, -8, -6, 20, 1.8), "steel"),
        (ellipse(-8, 25, 4.5, 6), "steel"),
        (ellipse(-8, 25, 2.5, 4), "steel+"),
    ],
    "whisk": [
        (limb(4, -8, 0, 6, 2.6), "wood"),
        (limb(0, 6, -4, 14, 1.8), "steel"),
        (ellipse(-6, 20, 6, 9), "steel"),
        (ellipse(-6, 20, 3.4, 7), "iron"),
        (limb(-6, 12, -6, 28, 1.1), "steel+"),
    ],
    "spatula": [
        (limb(6, -10, -6, 16, 2.2), "wood"),
        (polygon((-11, 14), (-2, 16), (-4, 28), (-18, 26)), "iron"),
        (limb(-8, 19, -12, 25, 1), "steel"),
    ],
    "knife": [
        (limb(0, 0, 11, -3, 3.2), "iron"),
        (polygon((-28, 5), (-2, -4), (-1, 5), (-22, 9)), "steel"),
        (polygon((-26, 6), (-2, 3), (-1, 5), (-22, 9)), "steel+"),
    ],
    "butter": [
        (box(-11, 3, 7, 15), "butter"),
        (box(-11, 3, 7, 6), "butter+"),
        (box(-2, 1, 9, 16), "paper"),
    ],
    "teabag": [
        (limb(0, 2, -2, 14, 0.8), "paper"),
        (box(-8, 14, 4, 27), "teabag"),
        (box(-5, 17, 1, 24), "tea"),
    ],
    "egg": [
        (ellipse(-2, 9, 10, 12), "egg"),
        (ellipse(-5, 5, 3, 4), "egg+"),
    ],
    "cheese": [
        (polygon((-18, 6), (14, 2), (18, 10), (-14, 14)), "cheese"),
        (ellipse(-4, 8, 3, 2), "cheese-"),
        (ellipse(8, 7, 2, 1.5), "cheese-"),
    ],
    "orange_half": [
        (ellipse(-1, 8, 13, 9), "orange"),
        (ellipse(-1, 12, 11, 4), "orange+"),
    ],
}

SPOUTS = {
    "kettle": (-22, -11),
    "carton": (-9, -19),
    "bottle": (-4, -21),
    "cereal_box": (-11, -17),
    "flour_bag": (-9, -18),
    "mix_bowl": (-33, -5),
    "caster": (-5, -16),
}
"""Tool to the point where it pours, from the hand, while it stands upright."""

CRUMBS = frozenset({"cereal", "flour", "sugar"})
"""Colours of what falls in crumbs; the rest runs."""


@cache
def tool(name: str, degrees: int = 0, mirrored: bool = False) -> Sprite:
    """A tool in the hand, turned clockwise by so many degrees."""
    if mirrored:
        return tool(name, degrees).mirrored
    if name in ("cup", "bowl", "plate"):  # carried by the rim
        stacked = {"cup": (-10, 24), "bowl": (-24, 20), "plate": (-24, 8)}[name]
        plain = station(name, ())
        return Sprite(plain.pixels, plain.mask, plain.x + stacked[0], plain.y + stacked[1])
    return fill(_TOOLS[name], degrees)


MOUTH = {
    "cup": (0, -22),
    "bowl": (0, -20),
    "pan": (0, -9),
    "plate": (0, -5),
    "fruit": (0, -16),
    "orange": (0, -16),
    "bun": (0, -16),
    "squeezer": (0, -20),
}
"""Station to the point, from its base, that things are poured on and worked at."""


@cache
def station(name: str, done: tuple[str, ...], mirrored: bool = False) -> Sprite:
    """A station as it looks after these actions were done in it, in this order."""
    if mirrored:
        return station(name, done).mirrored
    return fill([*_BARE[name], *_CONTENTS[name](done)])


def _board() -> list[Coloured]:
    return [
        (polygon((-27, -12), (27, -12), (31, -4), (-31, -4)), "wood+"),
        (box(-31, -4, 31, 0), "wood"),
    ]


_BARE: dict[str, list[Coloured]] = {
    "cup": [
        (ellipse(15, -12, 7, 7), "cupblue"),
        (ellipse(15, -12, 4, 4), "cupblue-"),
        (polygon((-14, -22), (14, -22), (10, 0), (-10, 0)), "cupblue"),
        (polygon((-11, -20), (-7, -20), (-5, -2), (-8, -2)), "cupblue+"),
        (ellipse(0, -22, 14, 5), "china"),
        (ellipse(0, -22, 12, 3.6), "cupblue-"),
    ],
    "bowl": [
        (below(-20, ellipse(0, -20, 26, 20)), "bowlred"),
        (below(-16, ellipse(-14, -16, 5, 10)), "bowlred+"),
        (ellipse(0, -20, 26, 8), "bowlred+"),
        (ellipse(0, -20, 24, 6.6), "bowlred-"),
    ],
    "pan": [
        (polygon((-34, -2), (34, -2), (36, 2), (-36, 2)), "iron-"),
        (polygon((26, -12), (58, -14), (58, -9), (26, -7)), "iron"),
        (ellipse(0, -7, 31, 10), "iron"),
        (ellipse(0, -9, 31, 9.5), "steel-"),
        (ellipse(0, -9, 28, 8), "iron-"),
    ],
    "plate": [
        (ellipse(0, -4, 27, 8), "china-"),
        (ellipse(0, -6, 27, 8), "china"),
        (ellipse(0, -6, 18, 5), "china-"),
        (ellipse(0, -6, 17, 4.4), "china+"),
    ],
    "fruit": _board(),
    "orange": _board(),
    "bun": _board(),
    "squeezer": [
        (ellipse(0, -5, 22, 6), "glass-"),
        (box(-22, -10, 22, -5), "glass-"),
        (ellipse(0, -10, 22, 6), "glass"),
        (polygon((-8, -9), (-2, -22), (2, -22), (8, -9)), "glass+"),
    ],
}


def _cup(done: tuple[str, ...]) -> list[Coloured]:
    drunk = {"water", "milk", "juice"} & {name.removeprefix("pour_") for name in done}
    powder, tea = "spoon_powder" in done, "dip_teabag" in done
    mixed = "stir_cup" in done or (done[-1:] in [("pour_water",), ("pour_milk",)] and powder)
    if not drunk:
        return _bits(0, -21, 7, 2, "powder") if powder else []
    if "juice" in drunk:
        colour = "juice"
    elif tea:
        colour = "milktea" if "milk" in drunk else "tea"
    elif powder and mixed:
        first = next(name for name in done if name in ("spoon_powder", "pour_milk"))
        colour = "cocoa" if first == "pour_milk" else "latte" if "milk" in drunk else "coffee"
    else:
        colour = "milk" if "milk" in drunk else "water"
    filled: list[Coloured] = [(ellipse(0, -21.6, 11.4, 3.2), colour)]
    if powder and not mixed:
        filled += _bits(0, -21.6, 7, 1.6, "powder")
    return filled


def _bowl(done: tuple[str, ...]) -> list[Coloured]:
    has = set(done)
    if "stir_dough" in has:
        return [(ellipse(0, -19, 22, 5.4), "batter")]
    if "beat_egg" in has:
        return [(ellipse(0, -19, 21, 5), "yolk")]
    inside: list[Coloured] = []
    if "pour_flour" in has:
        inside.append((ellipse(0, -20, 20, 5.4), "flour"))
    if "pour_milk" in has:
        inside.append((ellipse(0, -19, 22, 5.2), "milk"))
    if "crack_egg" in has:
        inside += [(ellipse(-3, -19, 11, 3.6), "egg+"), (ellipse(-3, -19.5, 5, 2.4), "yolk")]
    if "pour_cereals" in has:
        inside += _bits(0, -19, 17, 3.6, "cereal")
    if "cut_fruit" in has:
        inside += _bits(2, -20.5, 14, 3, "apple")
    return inside


def _pan(done: tuple[str, ...]) -> list[Coloured]:
    has = set(done)
    if "flip_pancake" in has:
        return [(ellipse(0, -9, 23, 6.6), "browned"), (ellipse(-2, -10, 18, 4.6), "browned+")]
    if "stir_egg" in has:
        return [(ellipse(0, -9, 20, 5), "yolk"), *_bits(0, -9.5, 16, 3.6, "butter")]
    if "pour_mix" in has:
        return [(ellipse(0, -9, 23, 6.4), "batter")]
    if "crack_egg" in has:
        return [(ellipse(0, -9, 18, 5.4), "milk"), (ellipse(2, -9.5, 6.5, 3), "yolk")]
    return [(ellipse(4, -8, 9, 2.6), "butter")] if "butter_pan" in has else []


def _plate(done: tuple[str, ...]) -> list[Coloured]:
    return []


def _fruit(done: tuple[str, ...]) -> list[Coloured]:
    skin = "flesh" if "peel_fruit" in done else "apple"
    if "cut_fruit" in done:
        pieces = ((-16, -10), (-4, -12), (8, -10), (17, -12))
        return [
            shape
            for x, y in pieces
            for shape in ((ellipse(x, y, 6, 5), skin), (ellipse(x + 1, y - 1, 4, 3), "flesh"))
        ]
    return [
        (ellipse(-4, -17, 11, 11), skin),
        (ellipse(-8, -21, 3, 3), skin + "+"),
        (limb(-4, -27, -2, -31, 1.2), "wood-"),
    ]


def _orange(done: tuple[str, ...]) -> list[Coloured]:
    if "cut_orange" in done:
        return [
            shape
            for x in (-14, 10)
            for shape in ((ellipse(x, -14, 11, 8), "orange"), (ellipse(x, -16, 9, 5), "orange+"))
        ]
    return [(ellipse(-4, -17, 11.5, 11.5), "orange"), (ellipse(-8, -21, 4, 3), "orange+")]


def _bun(done: tuple[str, ...]) -> list[Coloured]:
    if "cut_bun" not in done:
        return [(ellipse(-2, -14, 21, 10), "bun"), (ellipse(-7, -18, 9, 3), "bun+")]
    spread = "butter" if "smear_butter" in done else "crumb"
    halves: list[Coloured] = []
    for x in (-14, 14):
        halves += [(ellipse(x, -9, 14, 6), "bun"), (ellipse(x, -11, 13, 5), spread)]
    if "put_topping" in done:
        halves += [
            (polygon((x - 12, -15), (x + 10, -17), (x + 12, -9), (x - 10, -8)), "cheese")
            for x in (-14, 14)
        ]
    return halves


def _squeezer(done: tuple[str, ...]) -> list[Coloured]:
    juice = [
        (ellipse(0, -10, 20, 5), "juice"),
        (polygon((-8, -9), (-2, -22), (2, -22), (8, -9)), "glass+"),
    ]
    return juice if "squeeze_orange" in done else []


_CONTENTS = {
    "cup": _cup,
    "bowl": _bowl,
    "pan": _pan,
    "plate": _plate,
    "fruit": _fruit,
    "orange": _orange,
    "bun": _bun,
    "squeezer": _squeezer,
}


def _bits(x: float, y: float, rx: float, ry: float, colour: str) -> list[Coloured]:
    """Crumbs strewn over an ellipse, always the same ones."""
    places = (
        (-0.8, 0.1),
        (-0.45, -0.6),
        (-0.4, 0.6),
        (0, 0),
        (0.1, -0.9),
        (0.35, 0.6),
        (0.5, -0.5),
        (0.85, 0.1),
    )
    return [
        (ellipse(x + rx * u, y + ry * v, 3.2, 2.2), colour + "-+"[k % 2] if k % 3 else colour)
        for k, (u, v) in enumerate(places)
    ]


_COMPANIONS: dict[str, list[Coloured]] = {
    "newspaper": [
        (polygon((-20, -14), (16, -18), (20, 0), (-16, 4)), "paper"),
        (polygon((-14, -11), (-2, -12), (0, -4), (-12, -3)), "print"),
        (limb(3, -12, 13, -13, 1), "print"),
        (limb(4, -8, 14, -9, 1), "print"),
        (limb(5, -4, 15, -5, 1), "print"),
        (limb(-11, 0, 16, -1, 1), "print"),
    ],
    "cat": [
        (limb(12, -4, 17, -20, 3), "fur"),
        (ellipse(2, -11, 12, 12), "fur"),
        (polygon((-16, -36), (-10, -30), (-14, -24)), "fur-"),
        (polygon((2, -30), (8, -36), (6, -24)), "fur-"),
        (ellipse(-4, -25, 11, 9), "fur"),
        (ellipse(-8, -26, 1.8, 2.2), "ink"),
        (ellipse(0, -26, 1.8, 2.2), "ink"),
        (ellipse(-4, -21, 3, 2), "paper"),
        (ellipse(0, -6, 5, 6), "paper"),
    ],
    "teddy": [
        (ellipse(-9, -35, 5, 5), "teddy"),
        (ellipse(9, -35, 5, 5), "teddy"),
        (ellipse(0, -12, 13, 13), "teddy"),
        (ellipse(0, -10, 8, 8), "teddy+"),
        (ellipse(0, -28, 11, 10), "teddy"),
        (ellipse(0, -25, 5, 4), "teddy+"),
        (ellipse(-4, -31, 1.8, 1.8), "ink"),
        (ellipse(4, -31, 1.8, 1.8), "ink"),
        (ellipse(0, -26, 2, 1.4), "ink"),
    ],
    "radio": [
        (limb(10, -22, 18, -40, 1.2), "steel"),
        (box(-19, -23, 19, 0), "radio"),
        (ellipse(-8, -11, 8, 8), "ink"),
        (ellipse(-8, -11, 5, 5), "steel"),
        (box(4, -19, 16, -13), "star"),
        (ellipse(7, -6, 3, 3), "china"),
        (ellipse(14, -6, 3, 3), "china"),
    ],
    "clock": [
        (ellipse(0, 0, 17, 17), "rim"),
        (ellipse(0, 0, 13, 13), "clock"),
        (limb(0, 0, 0, -9, 1.4), "ink"),
        (limb(0, 0, 6, 4, 1.4), "ink"),
    ],
    "vase": [
        (limb(0, -20, -9, -34, 1.2), "leaf"),
        (limb(0, -20, 0, -40, 1.2), "leaf"),
        (limb(0, -20, 9, -34, 1.2), "leaf"),
        (ellipse(-10, -36, 6, 6), "flower"),
        (ellipse(0, -43, 6, 6), "flower+"),
        (ellipse(10, -36, 6, 6), "flower"),
        (ellipse(-10, -36, 2, 2), "star"),
        (ellipse(0, -43, 2, 2), "star"),
        (ellipse(10, -36, 2, 2), "star"),
        (polygon((-6, -22), (6, -22), (10, -8), (6, 0), (-6, 0), (-10, -8)), "vase"),
        (limb(-5, -14, -4, -6, 1.4), "vase+"),
    ],
    "plant": [
        (limb(0, -14, -14, -34, 4, 2), "leaf"),
        (limb(0, -14, 14, -34, 4, 2), "leaf-"),
        (limb(0, -14, 0, -44, 4.5, 2), "leaf+"),
        (limb(0, -14, -17, -20, 4, 2), "leaf-"),
        (limb(0, -14, 17, -20, 4, 2), "leaf"),
        (polygon((-12, -15), (12, -15), (9, 0), (-9, 0)), "pot"),
        (box(-13, -18, 13, -13), "pot-"),
    ],
    "poster": [
        (box(-17, -21, 17, 21), "poster"),
        (polygon((0, -15), (5, -4), (0, 8), (-5, -4)), "star"),
        (polygon((-13, -4), (0, -9), (13, -4), (0, 1)), "star"),
        (limb(-10, 13, 10, 13, 1.6), "poster+"),
    ],
    "hat": [
        (ellipse(-10, -12, 9, 9), "china+"),
        (ellipse(10, -12, 9, 9), "china+"),
        (ellipse(0, -16, 11, 10), "china+"),
        (box(-14, -8, 14, 2), "china"),
        (limb(-5, -10, -6, -16, 1), "china-"),
        (limb(5, -10, 6, -16, 1), "china-"),
    ],
    "apron": [
        (limb(-10, -36, -14, -46, 1.6), "stripe"),
        (limb(10, -36, 14, -46, 1.6), "stripe"),
        (box(-13, -36, 13, -16), "apron"),
        (box(-22, -16, 22, 6), "apron"),
        (box(-13, -32, 13, -29), "stripe"),
        (box(-13, -24, 13, -21), "stripe"),
        (box(-22, -14, 22, -11), "stripe"),
        (box(-22, -5, 22, -2), "stripe"),
    ],
}


def steams(station: str, done: tuple[str, ...]) -> bool:
    """Whether a station is hot after these actions: water in the cup, anything in the pan."""
    return (station == "cup" and "pour_water" in done) or (station == "pan" and bool(done))


@cache
def puff() -> Sprite:
    """A puff of steam: every other pixel, so that one sees through it."""
    whole = fill([(ellipse(0, 0, 6, 5), "milk")])
    rows, columns = np.indices(whole.mask.shape)
    mask = whole.mask & ((rows + columns) % 2 == 0)
    return Sprite(np.full_like(whole.pixels, INDEX["milk"]), mask, whole.x, whole.y)


SUPPLIES: dict[str, list[Coloured]] = {
    "spoon_powder": [
        (box(-11, -20, 11, 0), "glass"),
        (box(-11, -12, 11, 0), "powder"),
        (ellipse(0, -20, 11, 4), "powder-"),
    ],
    "put_topping": [
        (ellipse(0, -3, 17, 5), "china"),
        (box(-12, -10, 12, -3), "cheese"),
        (box(-12, -7, 12, -5), "cheese-"),
    ],
}
"""Action to what stands beside the station while it is done: a jar of powder, a plate of cheese."""


@cache
def supply(action: str) -> Sprite:
    """What an action takes from; its origin is the middle of its base."""
    return fill(SUPPLIES[action])


@cache
def companion(name: str) -> Sprite:
    """A thing that comes with an activity and causes nothing."""
    return fill(_COMPANIONS[name])


@cache
def icon(action: str) -> Sprite:
    """What the tablet shows of an action, its station and its tool; the origin is the middle."""
    chosen = ACTIONS[action]
    place = chosen.station or {"pour_cereals": "bowl", "crack_egg": "pan"}.get(action, "cup")
    shapes = [(moved(0, 22, shape), colour) for shape, colour in _BARE[place]]
    shapes += [(moved(0, 22, shape), colour) for shape, colour in _CONTENTS[place](())]
    turning = -60 if chosen.motion in ("pour", "shake") else 0
    shapes += [(moved(10, -14, shape, turning), colour) for shape, colour in _TOOLS[chosen.tool]]
    return fill(shapes, scale=0.72)


def turned(point: tuple[float, float], degrees: int) -> tuple[float, float]:
    """A point of an upright tool after the tool was turned."""
    cos, sin = turn(degrees)
    x, y = point
    return x * cos - y * sin, x * sin + y * cos
