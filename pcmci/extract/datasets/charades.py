"""Charades: 9,848 videos of people at home, 157 actions, several at a time.

Sigurdsson et al., "Hollywood in Homes", ECCV 2016. The annotation is the official
`Charades_v1_train.csv`, `Charades_v1_test.csv` and `Charades_v1_classes.txt`.
"""

from __future__ import annotations

import re

from pcmci.cache.schema import LabelSet
from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets.complaints import Complaints
from pcmci.extract.datasets.files import (
    VideoTree,
    is_plain,
    new_id,
    read_rows,
    read_text,
    time_span,
    tree_of,
)
from pcmci.extract.datasets.label_text import distinct, readable
from pcmci.extract.datasets.records import Dataset, Segment, Video
from pcmci.remote.url import Place

CLASSES = "Charades_v1_classes.txt"
SPLITS = {"train": "Charades_v1_train.csv", "test": "Charades_v1_test.csv"}
VIDEO_FOLDER = "Charades_v1_480"
OFFICIAL_CLASSES = 157


def parse(videos: Place | VideoTree, annotations: Place, follow_links: bool = False) -> Dataset:
    """All videos of the two CSV files, those without an action among them.

    videos: `Charades_v1_480`, the folder that holds it, or any other with `<id>.mp4` in it.
    annotations: the folder with the three files, or the one that holds it as `Charades`.
    Raises AnnotationError, and UsageError where a file, or every video, is missing.
    """
    folder = annotations / "Charades"
    folder = folder if folder.is_dir() else annotations
    missing = [name for name in (*SPLITS.values(), CLASSES) if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"{folder} lacks {', '.join(missing)}; --annotations names the folder that holds them"
        )

    codes, labels = _classes(folder / CLASSES)
    rank = {name: i for i, name in enumerate(labels.names)}
    tree = tree_of(videos, follow_links)
    seen: dict[str, str] = {}
    found = []
    complaints = Complaints()
    for split, name in SPLITS.items():
        for place, row in read_rows(folder / name, ("id", "actions")):
            with complaints.kept():
                video = new_id(row["id"], place, seen)
                segments = tuple(_segments(row["actions"], codes, place))
                found.append(
                    Video(
                        id=video,
                        path=tree.find(f"{VIDEO_FOLDER}/{video}.mp4", f"{video}.mp4"),
                        split=split,
                        activity=None,
                        steps=tuple(
                            sorted({segment.label for segment in segments}, key=rank.__getitem__)
                        ),
                        segments=segments,
                    )
                )
    complaints.raise_any()
    tree.require_some()
    notes = list(tree.notes)
    unlabelled = sum(not video.steps for video in found)
    if unlabelled:
        notes.append(f"{unlabelled:,} of {len(found):,} videos have no action; they rank last")
    if len(labels) != OFFICIAL_CLASSES:
        notes.append(f"{len(labels)} actions; the official list has {OFFICIAL_CLASSES}")
    return Dataset("charades", tuple(found), None, labels, tuple(notes))


def _classes(path: Place) -> tuple[dict[str, str], LabelSet]:
    """{code: key}, and the label set in the order of the file."""
    texts: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        code, _, text = line.strip().partition(" ")
        if not code:
            continue
        if not re.fullmatch(r"c\d{3}", code) or not is_plain(text):
            raise AnnotationError(
                f"{path}:{number}: {line!r} is not like 'c000 Holding some clothes'"
            )
        if code in texts:
            raise AnnotationError(f"{path}:{number}: {code} is there already: {texts[code]!r}")
        texts[code] = text.strip()
    names = distinct((text, f"{text} ({code})") for code, text in texts.items())
    # most names begin "Holding", a few "Someone is going": the template names the person
    prompts = tuple(readable(text).removeprefix("someone is ") for text in texts.values())
    labels = LabelSet(names, prompts, "a video of a person {}", unlabelled_last=True)
    return dict(zip(texts, names, strict=True)), labels


def _segments(actions: str, codes: dict[str, str], place: str) -> list[Segment]:
    """`c092 11.90 21.20;c147 0.00 12.60` to segments, in that order."""
    segments = []
    for action in filter(None, (part.strip() for part in actions.split(";"))):
        match action.split():
            case [code, start, end] if code in codes:
                segments.append(Segment(codes[code], *time_span(start, end, place)))
            case [code, _, _]:
                raise AnnotationError(f"{place}: action {code!r} is not in {CLASSES}")
            case _:
                raise AnnotationError(f"{place}: {action!r} is not like 'c092 11.90 21.20'")
    return segments
