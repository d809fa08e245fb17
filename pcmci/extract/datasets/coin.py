"""COIN: 11,827 instructional videos of 180 tasks, 778 steps.

Tang et al., "COIN: A Large-scale Dataset for Comprehensive Instructional Video Analysis", CVPR
2019. The annotation is the official `COIN.json`, plain or gzipped.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from pcmci.cache.schema import LabelSet
from pcmci.errors import AnnotationError
from pcmci.extract.datasets.complaints import MOST, Complaints
from pcmci.extract.datasets.files import (
    VideoTree,
    is_plain,
    new_id,
    read_bytes,
    some,
    time_span,
    tree_of,
)
from pcmci.extract.datasets.label_text import distinct, readable
from pcmci.extract.datasets.records import Dataset, Segment, Video
from pcmci.remote.url import Place

SUBSETS = {
    "training": "train",
    "train": "train",
    "testing": "test",
    "test": "test",
    # copies exist that call the official test set so
    "validation": "test",
    "val": "test",
}


def parse(videos: Place | VideoTree, annotations: Place, follow_links: bool = False) -> Dataset:
    """All videos of the annotation; the labels are those that occur in it.

    A step's label is its id, for several ids share a name: the key is the name where only one
    has it, else `name (Task)`, else `name (Task, step 123)`.

    videos: a folder of `<recipe_type>/<id>.mp4` or `<id>.mp4`.
    annotations: `COIN.json` or `COIN.json.gz`.
    Raises AnnotationError, and UsageError where none of the videos is there.
    """
    database = _read(annotations)
    step_texts: dict[int, str] = {}
    step_tasks: dict[int, set[str]] = {}
    timed: dict[str, list[tuple[int, float, float]]] = {}
    seen: dict[str, str] = {}
    complaints = Complaints()
    for video, entry in database.items():
        place = f"{annotations}: video {video!r}"
        with complaints.kept():
            new_id(video, str(annotations), seen)
            _check_entry(entry, place)
            timed[video] = []
            for step in entry["annotation"]:
                number, text = _step(step, place)
                if step_texts.setdefault(number, text) != text:
                    raise AnnotationError(
                        f"{place}: step {number} is {text!r} here and {step_texts[number]!r} "
                        "elsewhere"
                    )
                step_tasks.setdefault(number, set()).add(entry["class"])
                segment = step.get("segment")
                if not isinstance(segment, list) or len(segment) != 2:
                    raise AnnotationError(
                        f"{place}: step {number} has the segment {segment!r}; right would be "
                        "[start, end] in seconds"
                    )
                timed[video].append((number, *time_span(segment[0], segment[1], place)))
    complaints.raise_any()

    names, steps = _step_labels(step_texts, step_tasks)
    tasks = tuple(sorted({entry["class"] for entry in database.values()}))
    tree = tree_of(videos, follow_links)
    found = []
    for video, entry in database.items():
        places = [f"{video}.mp4"]
        if "recipe_type" in entry:
            places.insert(0, f"{entry['recipe_type']}/{video}.mp4")
        found.append(
            Video(
                id=video,
                path=tree.find(*places),
                split=SUBSETS[entry["subset"]],
                activity=entry["class"],
                steps=tuple(names[step] for step in sorted({step for step, *_ in timed[video]})),
                segments=tuple(Segment(names[step], *span) for step, *span in timed[video]),
            )
        )
    tree.require_some()
    activity = LabelSet(tasks, tuple(map(readable, tasks)), "a video of how to {}")
    return Dataset("coin", tuple(found), activity, steps, (*tree.notes, _subsets_note(database)))


def _step_labels(texts: dict[int, str], tasks: dict[int, set[str]]) -> tuple[dict, LabelSet]:
    """{step id: key}, and the label set in the order of the ids."""
    keys, prompts = [], []
    for number in sorted(texts):
        name, task = texts[number], " or ".join(sorted(tasks[number]))
        keys.append((name, f"{name} ({task})", f"{name} ({task}, step {number})"))
        text, purpose = readable(name), readable(task)
        prompts.append((text, f"{text}, to {purpose}", f"{text}, to {purpose} (step {number})"))
    names = distinct(keys)
    labels = LabelSet(names, distinct(prompts), "a step of an instructional video: {}")
    return dict(zip(sorted(texts), names, strict=True)), labels


def _subsets_note(database: dict[str, Any]) -> str:
    counts = Counter(entry["subset"] for entry in database.values())
    return "subsets found: " + ", ".join(
        f"{subset} {count:,}" + (" (counts as test)" if subset.startswith("val") else "")
        for subset, count in sorted(counts.items())
    )


def _read(path: Place) -> dict[str, Any]:
    def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            keys = [repr(key) for key, n in Counter(key for key, _ in pairs).items() if n > 1]
            are = "is" if len(keys) == 1 else "are"
            raise AnnotationError(
                f"{path}: {some(keys, MOST)} {are} there twice in one JSON object"
            )
        return dict(pairs)

    try:
        content = json.loads(read_bytes(path), object_pairs_hook=no_key_twice)
    except json.JSONDecodeError as error:
        raise AnnotationError(f"{path}:{error.lineno}: no JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: no JSON: {error}") from error
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise AnnotationError(f'{path}: not like COIN.json, which is {{"database": {{id: …}}}}')
    return database


def _check_entry(entry: Any, place: str) -> None:
    if not isinstance(entry, dict):
        raise AnnotationError(f"{place}: {entry!r} is no JSON object")
    for field in ("class", "subset", "annotation"):
        if field not in entry:
            raise AnnotationError(f"{place}: has no field {field!r}")
    task, subset, annotation = entry["class"], entry["subset"], entry["annotation"]
    if not isinstance(task, str) or not is_plain(task):
        raise AnnotationError(f"{place}: the class {task!r} is no name of a task")
    if not isinstance(subset, str) or subset not in SUBSETS:
        raise AnnotationError(f"{place}: no subset is called {subset!r}; {', '.join(SUBSETS)} are")
    if not isinstance(annotation, list):
        raise AnnotationError(f"{place}: the annotation {annotation!r} is no list of steps")


def _step(step: Any, place: str) -> tuple[int, str]:
    if not isinstance(step, dict):
        raise AnnotationError(f"{place}: the step {step!r} is no JSON object")
    text = step.get("label")
    if not isinstance(text, str) or not is_plain(text):
        raise AnnotationError(f"{place}: a step's label is {text!r}; right would be a name")
    number = str(step.get("id"))
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise AnnotationError(f"{place}: step {text!r} has the id {number!r}; '587' would be one")
    return int(number), text
