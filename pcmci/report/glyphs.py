"""Labels in any script, in figures: a font that has their characters, or a number and a key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from matplotlib import font_manager
from matplotlib.font_manager import FontEntry, FontProperties
from matplotlib.ft2font import FT2Font

FAMILY = "DejaVu Sans"
"""Matplotlib brings it along; it has Latin, Greek, Cyrillic and some more."""

PLACEHOLDERS = ("Last Resort", "LastResort")
"""Fonts that have a box for every character there is."""


def families(names: Sequence[str]) -> list[str]:
    """The families that draw these names, the usual one first; others only where it has not all
    characters and one of this machine has."""
    return [FAMILY, *_others(frozenset("".join(names)) - _characters(FAMILY))]


def drawn(names: Sequence[str]) -> list[str]:
    """The names as a figure shows them: as they are, or the number that `key` explains."""
    replaced = _without_a_font(names)
    return [str(replaced[name]) if name in replaced else name for name in names]


def key(names: Sequence[str]) -> str:
    """` 3: 泡茶, 4: …` for a caption, of the names that no font of this machine can draw; "" where
    there are none."""
    replaced = _without_a_font(names)
    if not replaced:
        return ""
    told = ", ".join(f"{number}: {name}" for name, number in replaced.items())
    return f" Names that no font of the machine that drew this has, by their number: {told}."


def _without_a_font(names: Sequence[str]) -> dict[str, int]:
    """name -> its number, counted from 1 over all names."""
    missing = frozenset("".join(names)) - _characters(FAMILY)
    for family in _others(missing):
        missing -= _characters(family)
    return {name: k for k, name in enumerate(names, 1) if set(name) & missing}


@cache
def _others(missing: frozenset[str]) -> tuple[str, ...]:
    """Families of this machine that have these characters, as few as are found going through
    them once, those with the most first."""
    found: list[str] = []
    while missing:
        best = max(_installed(), key=lambda family: len(missing & _characters(family)), default="")
        if not best or not missing & _characters(best):
            break
        found.append(best)
        missing -= _characters(best)
    return tuple(found)


def _installed() -> list[str]:
    return sorted({entry.name for entry in _entries()})


def _entries() -> list[FontEntry]:
    return [
        entry
        for entry in font_manager.fontManager.ttflist
        if not entry.name.startswith(PLACEHOLDERS)
    ]


@cache
def _characters(family: str) -> frozenset[str]:
    """Of the font that Matplotlib takes for a family."""
    path = font_manager.findfont(FontProperties(family=[family]), fallback_to_default=True)
    return frozenset(map(chr, FT2Font(path).get_charmap()))
