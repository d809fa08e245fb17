"""Any folder of videos, with a CSV file of labels, with a sub-folder a class, or without labels."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter

from pcmci.cache.schema import LabelSet
from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets.files import (
    VIDEO_SUFFIXES,
    VideoTree,
    is_plain,
    is_plain_name,
    new_id,
    read_rows,
    tree_of,
)
from pcmci.extract.datasets.label_text import readable
from pcmci.extract.datasets.records import Dataset, Video
from pcmci.remote.url import Place

LABELS = "labels.csv"
TEMPLATE = "a video of {}"
SPLIT_SEED = 0

_SPLIT = re.compile(r"train|val|test|shift-[\w-]+")


def parse(videos: Place | VideoTree, annotations: Place) -> Dataset:
    """The videos of a CSV file, else of the class folders, else all of them in split `test`.

    A video's id is its path under `videos` without the suffix, `__` for `/`. Without a split, a
    fifth is the test set, drawn video by video from a hash of the id, so that another video does
    not move those that were there.

    videos: the folder; `<class>/x.mp4` or `<split>/<class>/x.mp4`, where nothing else labels it.
    annotations: a CSV file of `video,split,activity,steps` (`split` may be left out, the steps
        stand apart by `;`), or a folder that may hold one as `labels.csv`.
    Raises AnnotationError, and UsageError where no video is there.
    """
    table = annotations / LABELS if annotations.is_dir() else annotations
    tree = tree_of(videos)
    if annotations.is_dir() and not table.is_file():
        return _from_folders(tree)
    return _from_table(tree, table)


def _from_table(tree: VideoTree, table: Place) -> Dataset:
    found = []
    seen: dict[str, str] = {}
    names = set()
    drawn = True
    for place, row in read_rows(table, ("video", "activity", "steps")):
        name = row["video"]
        if not all(map(is_plain_name, name.split("/"))):
            raise AnnotationError(
                f"{place}: {name!r} is no path of a file under {tree.root}, such as "
                "kitchen/clip1.mp4"
            )
        if os.path.splitext(name)[1].lower() not in VIDEO_SUFFIXES:
            raise AnnotationError(
                f"{place}: {name!r} is no video file; those end in "
                f"{', '.join(sorted(VIDEO_SUFFIXES))}"
            )
        video = new_id(_id(name), place, seen)
        drawn = "split" not in row
        split = _drawn_split(video) if drawn else row["split"]
        if not _SPLIT.fullmatch(split):
            raise AnnotationError(
                f"{place}: no split is called {split!r}; right would be train, val, test or shift-…"
            )
        steps = {step.strip() for step in row["steps"].split(";")} - {""}
        activity = row["activity"].strip()
        for label in (*steps, activity):
            if label and not is_plain(label):
                raise AnnotationError(f"{place}: the label {label!r} has control characters")
        names.add(name)
        path = tree.at(name)
        found.append(Video(video, path, split, activity or None, tuple(sorted(steps))))
    tree.require_some()
    notes = list(tree.notes)
    unnamed = sorted(tree.files.keys() - names)
    if unnamed:
        notes.append(
            f"{len(unnamed):,} video files left out, for {table} does not name them: "
            f"{unnamed[0]}, …"
        )
    if drawn:
        notes.append(_drawn_note(found))
    return _dataset(found, notes)


def _from_folders(tree: VideoTree) -> Dataset:
    if not tree.files:
        raise UsageError(
            "; ".join((f"no video is under {tree.root}", *tree.notes, "--videos names another"))
        )
    tops = {name.split("/")[0] if "/" in name else "" for name in tree.files}
    splits = {top for top in tops if _SPLIT.fullmatch(top)}
    if splits and splits != tops:
        beside = next(name for name in tree.files if name.split("/")[0] not in splits)
        raise AnnotationError(
            f"{tree.root}: {', '.join(sorted(splits))} name splits, but {beside} lies beside "
            f"them; right would be nothing else beside splits, or a {LABELS}"
        )

    found = []
    seen: dict[str, str] = {}
    for name, path in tree.files.items():
        video = new_id(_id(name), str(path), seen)
        folders = name.split("/")[:-1]
        split = folders.pop(0) if splits else None
        activity = folders[0] if folders else None
        if activity and not split:
            split = _drawn_split(video)
        found.append(Video(video, path, split or "test", activity, ()))
    classless = [video for video in found if not video.activity]
    if classless and len(classless) < len(found):
        raise AnnotationError(
            f"{classless[0].path}: lies in no class folder, others do; right would be a folder "
            f"a class for all, or a {LABELS}"
        )
    notes = list(tree.notes)
    if classless:
        notes.append(f"no labels: no class folders and no {LABELS}")
    elif not splits:
        notes.append(_drawn_note(found))
    return _dataset(found, notes)


def _dataset(videos: list[Video], notes: list[str]) -> Dataset:
    return Dataset(
        name="folder",
        videos=tuple(videos),
        activity=_label_set({video.activity for video in videos if video.activity}),
        steps=_label_set({step for video in videos for step in video.steps}),
        notes=tuple(notes),
    )


def _label_set(names: set[str]) -> LabelSet | None:
    if not names:
        return None
    ordered = tuple(sorted(names))
    return LabelSet(ordered, tuple(map(readable, ordered)), TEMPLATE)


def _id(name: str) -> str:
    return os.path.splitext(name)[0].replace("/", "__")


def _drawn_split(video: str) -> str:
    digest = hashlib.sha256(f"{SPLIT_SEED}:{video}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % 5 == 0 else "train"


def _drawn_note(videos: list[Video]) -> str:
    counts = Counter(video.split for video in videos)
    return (
        f"no split given: drawn from a hash of each id, {counts['train']:,} train, "
        f"{counts['test']:,} test"
    )
