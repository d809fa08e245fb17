"""The kitchen world: 10 activities, 30 steps, drawn by `pcmci.kitchen` with known confounders.

Splits: `train`, `val`, `test`, and those twins of it that were drawn: `shift-h`, `shift-i`,
`shift-c`, `shift-all`, whose videos are those of `test` with the respective confounder assigned at
random, `wrong-h`, `wrong-i`, `wrong-c`, with the one of another activity.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pcmci.cache.schema import LabelSet
from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets.complaints import Complaints
from pcmci.extract.datasets.files import (
    VideoTree,
    new_id,
    read_rows,
    read_text,
    time_span,
    tree_of,
)
from pcmci.extract.datasets.records import Dataset, Segment, Video
from pcmci.remote.url import Place

COLUMNS = ("video", "split", "person", "activity", "frames", "steps")

_STEP = re.compile(r"(\w+):(\d{1,6})-(\d{1,6})")


def parse(videos: Place | VideoTree, annotations: Place, follow_links: bool = False) -> Dataset:
    """All videos of a written world. A session is a person's performance of an activity, with its
    twins; a group is a person.

    videos: the folder of `<split>/<id>.mp4`.
    annotations: the folder of `world.json` and `annotations.csv`.
    Raises AnnotationError, and UsageError where the world is unfinished or no video is there.
    """
    world = _world(annotations / "world.json")
    activity, steps = (_labels(world, name) for name in ("activity", "steps"))
    tree = tree_of(videos, follow_links)
    found = []
    complaints = Complaints()
    seen: dict[str, str] = {}
    for place, row in read_rows(annotations / "annotations.csv", COLUMNS):
        with complaints.kept():
            video = new_id(row["video"], place, seen)
            if row["split"] not in world["splits"]:
                raise AnnotationError(
                    f"{place}: no split is called {row['split']!r}; "
                    f"{', '.join(world['splits'])} are"
                )
            if row["activity"] not in activity.names:
                raise AnnotationError(f"{place}: no activity is called {row['activity']!r}")
            segments = _segments(row["steps"], steps, world["fps"], place)
            done = {segment.label for segment in segments}
            found.append(
                Video(
                    id=video,
                    path=tree.find(f"{row['split']}/{video}.mp4"),
                    split=row["split"],
                    activity=row["activity"],
                    steps=tuple(name for name in steps.names if name in done),
                    segments=segments,
                    session=_session(row),
                    group=row["person"],
                )
            )
    complaints.raise_any()
    tree.require_some()
    knobs = ", ".join(f"{name} {value}" for name, value in world["knobs"].items())
    notes = (*tree.notes, f"seed {world['seed']}, confounders {knobs}")
    return Dataset("kitchen", tuple(found), activity, steps, notes)


def _session(row: dict[str, str]) -> str:
    """Causal twins belong to the performance whose twins they are, though they show another."""
    ending = "_cause"
    if row["split"] != "cause" or not row["video"].endswith(ending):
        return f"{row['person']}_{row['activity']}"
    own = row["video"].removesuffix(ending).split("_", 2)[-1]
    return f"{row['person']}_{own}"


def _world(path: Place) -> dict[str, Any]:
    if not path.exists():
        raise UsageError(
            f"no kitchen world at {path}: it is written last, so that the same pcmci command "
            "that wrote the videos finishes it"
        )
    try:
        world = json.loads(read_text(path))
        knobs = dict(world["knobs"])
        world |= {"splits": list(world["splits"]), "knobs": knobs, "fps": float(world["fps"])}
        world["seed"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AnnotationError(f"{path}: not a kitchen world's: {error}") from error
    return world


def _labels(world: dict[str, Any], name: str) -> LabelSet:
    texts = world[name]["texts"]
    return LabelSet(tuple(texts), tuple(texts.values()), world[name]["template"])


def _segments(text: str, steps: LabelSet, fps: float, place: str) -> tuple[Segment, ...]:
    """`pour_milk:30-59;…`, first and last frame, to seconds."""
    segments = []
    for part in text.split(";"):
        step = _STEP.fullmatch(part)
        if not step:
            raise AnnotationError(f"{place}: the step {part!r} is not like pour_milk:30-59")
        label, first, last = step[1], int(step[2]), int(step[3])
        if label not in steps.names:
            raise AnnotationError(f"{place}: no step is called {label!r}")
        segments.append(Segment(label, *time_span(first / fps, (last + 1) / fps, place)))
    return tuple(segments)
