"""A split drawn from a hash of each id, where nobody says which."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter

from pcmci.extract.datasets.records import Video

SPLIT_SEED = 0


def drawn_split(video: str) -> str:
    """A fifth is `test`, the rest `train`, video by video: another one moves none of those that
    were there."""
    return "test" if _number(video) % 5 == 0 else "train"


def draw(videos: list[Video]) -> tuple[list[Video], str]:
    """The videos with their splits drawn, and a line about it.

    In a small folder chance leaves a class without a training video, or all without a test video:
    there the one with the lowest hash changes sides. Elsewhere nothing does.
    """
    splits = {video.id: drawn_split(video.id) for video in videos}
    classes: dict[str | None, list[str]] = {}
    for video in videos:
        classes.setdefault(video.activity, []).append(video.id)
    moved = 0
    for ids in classes.values():
        if len(ids) > 1 and all(splits[one] == "test" for one in ids):
            splits[min(ids, key=_number)] = "train"
            moved += 1
    if "test" not in splits.values():
        spare = [one for ids in classes.values() if len(ids) > 1 for one in ids]
        if spare:
            splits[min(spare, key=_number)] = "test"
            moved += 1
    drawn = [dataclasses.replace(video, split=splits[video.id]) for video in videos]
    return drawn, _note(drawn, moved)


def _note(videos: list[Video], moved: int) -> str:
    counts = Counter(video.split for video in videos)
    changed = f" ({moved} moved, so that there is some of each)" if moved else ""
    empty = [split for split in ("train", "test") if not counts[split]]
    none = f": NOTHING TO {empty[0].upper()}, for no class has two videos" if empty else ""
    return (
        f"no split given: drawn from a hash of each id, {counts['train']:,} train, "
        f"{counts['test']:,} test{changed}{none}; folders train and test above the classes, or a "
        "column split, choose it"
    )


def _number(video: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{SPLIT_SEED}:{video}".encode()).digest()[:8], "big")
