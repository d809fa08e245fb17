"""Colours. A scene is drawn in palette indices; looks, skin and light only change the palette.

Every colour comes in three shades: `milk`, the darker `milk-` and the lighter `milk+`. Index 0 is
"nothing here".
"""

from __future__ import annotations

import numpy as np

from pcmci.kitchen.causal import Scene

RGB = tuple[int, int, int]

_FIXED: dict[str, RGB] = {
    "ink": (46, 38, 48),
    "steel": (168, 174, 184),
    "iron": (64, 66, 74),
    "wood": (188, 138, 84),
    "china": (236, 236, 240),
    "cupblue": (70, 112, 190),
    "bowlred": (196, 78, 66),
    "water": (150, 200, 235),
    "milk": (250, 250, 244),
    "carton": (60, 120, 214),
    "juice": (250, 160, 30),
    "bottle": (74, 158, 82),
    "cereal": (196, 132, 52),
    "cerealbox": (222, 52, 52),
    "flour": (244, 238, 222),
    "flourbag": (206, 184, 150),
    "batter": (240, 212, 130),
    "sugar": (252, 252, 252),
    "caster": (208, 214, 222),
    "powder": (104, 62, 36),
    "coffee": (84, 48, 28),
    "latte": (190, 142, 100),
    "cocoa": (146, 92, 60),
    "tea": (186, 98, 30),
    "milktea": (214, 166, 116),
    "teabag": (232, 214, 170),
    "egg": (244, 222, 190),
    "yolk": (252, 196, 40),
    "butter": (250, 222, 100),
    "browned": (206, 140, 60),
    "apple": (214, 44, 48),
    "flesh": (248, 240, 200),
    "orange": (250, 140, 24),
    "bun": (214, 152, 78),
    "crumb": (250, 230, 184),
    "cheese": (252, 200, 50),
    "kettle": (96, 178, 178),
    "glass": (196, 226, 232),
    "screen": (226, 240, 250),
    "sky": (172, 214, 246),
    "leaf": (58, 146, 66),
    "pot": (186, 92, 58),
    "fur": (236, 150, 64),
    "teddy": (160, 104, 58),
    "radio": (150, 40, 76),
    "paper": (232, 230, 220),
    "print": (120, 120, 126),
    "flower": (232, 70, 140),
    "vase": (86, 96, 190),
    "apron": (250, 250, 250),
    "stripe": (220, 50, 60),
    "poster": (120, 70, 170),
    "star": (252, 220, 70),
    "clock": (248, 248, 248),
    "rim": (34, 110, 90),
}

_DRAWN = ("wall", "clothes", "skin", "hair", "counter", "front", "tile")
"""Colours that differ from scene to scene."""

WALLS: dict[str, RGB] = {
    "cream": (244, 230, 196),
    "sky": (150, 190, 226),
    "sage": (158, 184, 140),
    "rose": (230, 168, 172),
    "lilac": (186, 168, 222),
    "mustard": (222, 182, 82),
    "teal": (88, 158, 160),
    "brick": (190, 112, 90),
    "grey": (166, 168, 174),
    "lime": (196, 218, 116),
}
CLOTHES: dict[str, RGB] = {
    "red": (200, 48, 52),
    "navy": (44, 58, 120),
    "green": (52, 136, 76),
    "gold": (224, 176, 44),
    "purple": (124, 62, 150),
    "white": (234, 234, 232),
    "black": (56, 54, 60),
    "pink": (240, 140, 180),
    "orange": (236, 120, 44),
    "aqua": (64, 188, 196),
}
LIGHTS: dict[str, RGB] = {
    "day": (256, 256, 256),
    "warm": (270, 246, 206),
    "cool": (222, 246, 276),
    "dim": (178, 178, 188),
    "evening": (248, 204, 180),
}
"""Factors on red, green and blue, in 256ths."""

SKIN = (
    (250, 216, 188),
    (240, 196, 160),
    (220, 168, 128),
    (190, 134, 96),
    (146, 96, 66),
    (98, 64, 46),
)
HAIR = ((40, 30, 28), (84, 54, 34), (136, 84, 44), (214, 172, 96), (168, 70, 36), (176, 176, 180))
COUNTER = (
    (206, 176, 134),
    (184, 186, 190),
    (226, 220, 208),
    (150, 112, 78),
    (120, 132, 142),
    (198, 206, 190),
)
FRONT = (
    (238, 238, 234),
    (120, 146, 168),
    (150, 108, 70),
    (96, 128, 104),
    (172, 176, 182),
    (214, 196, 164),
)
TILE = ((240, 242, 244), (190, 214, 222), (224, 206, 186), (200, 210, 192))

SHADES = ("", "-", "+")
_NAMES = [name + shade for name in (*_FIXED, *_DRAWN) for shade in SHADES]
INDEX = {name: index for index, name in enumerate(_NAMES, start=1)}
"""Name of a colour, with its shade, to its index in the palette."""


def palette(scene: Scene) -> np.ndarray:
    """The scene's colours: [256, 4] uint16, red, green, blue and nothing, in 64ths plus a half.

    So the sum of four colours holds their mean, rounded to the nearest, in its upper byte.
    """
    person, kitchen, looks = scene.person, scene.kitchen, scene.looks
    drawn = {
        "wall": WALLS[looks.wall],
        "clothes": CLOTHES[looks.clothes],
        "skin": SKIN[person.skin],
        "hair": HAIR[person.hair],
        "counter": COUNTER[kitchen.counter],
        "front": FRONT[kitchen.front],
        "tile": TILE[kitchen.tile_colour],
    }
    plain = np.array([*_FIXED.values(), *(drawn[name] for name in _DRAWN)])
    shades = np.stack((plain, plain * 3 // 4, plain + (255 - plain) * 2 // 5), axis=1)
    lit = np.minimum(255, shades.reshape(-1, 3) * np.array(LIGHTS[looks.light]) // 256)
    table = np.zeros((256, 4), dtype=np.uint16)
    table[1 : len(lit) + 1, :3] = lit * 64 + 32
    return table
