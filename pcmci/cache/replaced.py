"""Of a damaged video that has features all the same: how many of its frames are others than those
that were to be taken. It stands where a video without features has its reason."""

from __future__ import annotations

import re

FAIL = "fail"
"""Of a store or an extraction: a video that cannot be decoded whole has no features."""

_NOTE = re.compile(r"(\d+) of \d+ frames replaced: ")


def replaced_note(replaced: int, frames: int, why: str) -> str:
    """What a store keeps. frames: that were to be taken, of all views. why: the damage."""
    return f"{replaced} of {frames} frames replaced: {why}"


def replaced_frames(note: str) -> int:
    """How many, by that note; 0 where a text is none."""
    found = _NOTE.match(note)
    return int(found[1]) if found else 0
