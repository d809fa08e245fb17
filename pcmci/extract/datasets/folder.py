"""Any folder of videos, with a CSV file of labels, with a sub-folder a class, or without labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from pcmci.cache.schema import LabelSet
from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets.complaints import Complaints
from pcmci.extract.datasets.drawn_split import draw
from pcmci.extract.datasets.files import VideoTree, new_id, some, tree_of
from pcmci.extract.datasets.label_check import check_label, label_notes
from pcmci.extract.datasets.label_text import readable
from pcmci.extract.datasets.named_files import NamedFiles
from pcmci.extract.datasets.records import Dataset, Video
from pcmci.extract.datasets.split_names import SPELLINGS, spelled_note, split_of
from pcmci.extract.datasets.spreadsheet import read_sheet
from pcmci.extract.datasets.suffixes import is_video, suffix
from pcmci.remote.url import Place

LABELS = "labels.csv"
TEMPLATE = "a video of {}"

COLUMNS = {
    "video": ("file", "filename", "file name", "path", "name", "id", "clip", "video_id"),
    "split": ("subset", "set", "partition"),
    "activity": ("class", "label", "category", "class_name", "activity_name"),
    "steps": ("actions", "labels", "step_names"),
}
"""What a table is read for, and what else that is called in tables."""

TABLES = frozenset((".csv", ".tsv", ".xlsx", ".xls", ".ods"))

LOOKED_THROUGH = frozenset(("videos", "video", "clips", "films", "movies", "data", "dataset"))
"""Folders that are no class, where they lie alone."""


def parse(videos: Place | VideoTree, annotations: Place, follow_links: bool = False) -> Dataset:
    """The videos of a CSV file, else of the class folders, else all of them in split `test`.

    A video's id is its path under `videos` without the suffix, `__` for `/`. Without a split, a
    fifth is the test set (`pcmci.extract.datasets.drawn_split`).

    videos: the folder; `<class>/x.mp4` or `<split>/<class>/x.mp4`, where nothing else labels it.
    annotations: a CSV file of `video,split,activity,steps` (`split` may be left out, and one of
        the other two; the steps stand apart by `;`), or a folder that may hold one as `labels.csv`.
    Raises AnnotationError, and UsageError where no video is there.
    """
    table = annotations / LABELS if annotations.is_dir() else annotations
    tree = tree_of(videos, follow_links)
    if annotations.is_dir() and not table.is_file():
        return _from_folders(tree)
    return _from_table(tree, table)


def _from_table(tree: VideoTree, table: Place) -> Dataset:
    complaints = Complaints()
    files = NamedFiles(tree, _looked_through(tree.files))
    sheet = read_sheet(table, COLUMNS, ("video",), complaints, files.has)
    if not sheet.columns & {"activity", "steps"}:
        raise AnnotationError(
            f"{table}:1: needs one column 'activity' or 'steps'; there are "
            f"{', '.join(sorted(sheet.columns))}"
        )
    found: list[Video] = []
    seen: dict[str, str] = {}
    for place, row in sheet.rows:
        with complaints.kept():
            found.append(_of_row(row, place, files, seen))
    complaints.raise_any()
    tree.require_some()
    notes = [*tree.notes, *sheet.notes, *files.notes]
    unnamed = sorted(tree.files.keys() - files.used)
    if unnamed:
        notes.append(
            f"{len(unnamed):,} video files left out, for {table} does not name them: "
            f"{unnamed[0]}, …"
        )
    if "split" in sheet.columns:
        notes += spelled_note(row["split"] for _, row in sheet.rows)
    else:
        found, drawn = draw(found)
        notes.append(drawn)
    steps = [step for video in found for step in video.steps]
    commas = sorted({step for step in steps if set(step) & {",", "|"}})
    if commas and all(len(video.steps) < 2 for video in found):
        notes.append(f"steps: {commas[0]!r} is taken for one step; ; stands between several")
    return _dataset(found, notes)


def _of_row(row: dict[str, str], place: str, files: NamedFiles, seen: dict[str, str]) -> Video:
    name = files.path_of(row["video"], place)
    video = new_id(_id(name), place, seen)
    path = files.find(name, place)
    split = split_of(row["split"]) if "split" in row else "train"
    if split is None:
        raise AnnotationError(
            f"{place}: no split is called {row['split']!r}; right would be train, val, test or "
            "shift-…"
        )
    steps = {step.strip() for step in row.get("steps", "").split(";")} - {""}
    activity = row.get("activity", "")
    for label in (*sorted(steps), activity):
        if label:
            check_label(label, place)
    return Video(video, path, split, activity or None, tuple(sorted(steps)))


def _from_folders(tree: VideoTree) -> Dataset:
    others = (*_others_note(tree.others), *_tables_note(tree.others))
    if not tree.files:
        raise UsageError(
            "; ".join(
                (f"no video is under {tree.root}", *tree.notes, *others, "--videos names another")
            )
        )
    notes = [*tree.notes, *others]
    skipped = _looked_through(tree.files)
    splits, spelled = _split_folders(tree, skipped)
    notes += spelled

    complaints = Complaints()
    found = []
    seen: dict[str, str] = {}
    for name, path in tree.files.items():
        folders = name[len(skipped) :].split("/")[:-1]
        split = split_of(folders.pop(0)) if splits else None
        activity = folders[0] if folders else None
        with complaints.kept():
            # Its suffix is one that `tree` counts: of a video, or of features of one.
            video = new_id(_without_suffix(name), str(path), seen)
            if activity:
                check_label(activity, str(path))
            found.append(Video(video, path, split or "test", activity, ()))
    complaints.raise_any()
    classless = [video for video in found if not video.activity]
    if classless and len(classless) < len(found):
        names = some([str(video.path) for video in classless])
        lie = "lies" if len(classless) == 1 else "lie"
        raise AnnotationError(
            f"{names}: {lie} in no class folder, others do; right would be a folder a class for "
            f"all, or a {LABELS}"
        )
    if classless:
        notes.append(f"no labels: no class folders and no {LABELS}")
    elif not splits:
        found, drawn = draw(found)
        notes.append(drawn)
    return _dataset(found, notes, _one_class_deep(tree, found, skipped))


def _looked_through(names: Iterable[str]) -> str:
    """The folder that all videos lie in and that is no class, as `videos/`; "" for none."""
    tops = {name.split("/")[0] if "/" in name else "" for name in names}
    top = next(iter(tops), "")
    return f"{top}/" if len(tops) == 1 and top.casefold() in LOOKED_THROUGH else ""


def _split_folders(tree: VideoTree, skipped: str) -> tuple[bool, tuple[str, ...]]:
    """Whether the topmost folders are splits, and a note on how they were read.

    A single `training` beside other folders is a class of its own: what is ambiguous is an error
    only where two splits are there, or one spelled as ours are.
    """
    tops: dict[str, str] = {}
    for name in tree.files:
        inner = name[len(skipped) :]
        tops.setdefault(inner.split("/")[0] if "/" in inner else "", name)
    splits = sorted(top for top in tops if split_of(top))
    if not splits:
        return False, ()
    if len(splits) == len(tops):
        return True, spelled_note(splits)
    beside = next(name for top, name in tops.items() if top not in splits)
    exact = {top for top in splits if top in SPELLINGS or top.startswith("shift-")}
    if exact or len({split_of(top) for top in splits}) > 1:
        raise AnnotationError(
            f"{tree.root}: {', '.join(splits)} name splits, but {beside} lies beside them; right "
            f"would be nothing else beside splits, or a {LABELS}"
        )
    return False, (f"{', '.join(splits)}: taken for a class, for {beside} lies beside",)


def _one_class_deep(tree: VideoTree, found: list[Video], skipped: str) -> str:
    """Where the classes may be, if there is but one: under it."""
    activities = {video.activity for video in found}
    if len(activities) != 1 or not (only := activities.pop()):
        return ""
    folders = [name[len(skipped) :].split("/")[:-1] for name in tree.files]
    if any(len(parts) <= parts.index(only) + 1 for parts in folders):
        return ""
    return f"; is there one folder too many? --videos {tree.root / (skipped + only)}"


def _others_note(others: list[str]) -> tuple[str, ...]:
    """How many files are no videos by their names, of which kinds."""
    if not others:
        return ()
    kinds = Counter(suffix(name) or "without a suffix" for name in others)
    shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
    more = ", …" if len(kinds) > 5 else ""
    return (
        f"{len(others):,} files left out, for their names are no videos': {shown}{more}: "
        f"{some(others)}",
    )


def _tables_note(others: list[str]) -> tuple[str, ...]:
    """Tables that lie where `labels.csv` would, and are not read."""
    tables = [name for name in others if "/" not in name and suffix(name) in TABLES]
    if not tables:
        return ()
    return (
        f"{some(tables)}: not read for labels; a table is called {LABELS}, or given with "
        "--annotations",
    )


def _dataset(videos: list[Video], notes: list[str], deeper: str = "") -> Dataset:
    activities = [video.activity for video in videos if video.activity]
    steps = [step for video in videos for step in video.steps]
    notes += [*label_notes("activity", activities), *label_notes("steps", steps)]
    if len(set(activities)) == 1:
        notes.append(
            f"ONE CLASS ONLY, {activities[0]!r}: whatever is predicted is right, so Acc is 100 "
            f"and says nothing{deeper}"
        )
    return Dataset(
        name="folder",
        videos=tuple(videos),
        activity=_label_set(set(activities)),
        steps=_label_set(set(steps)),
        notes=tuple(notes),
    )


def _label_set(names: set[str]) -> LabelSet | None:
    if not names:
        return None
    ordered = tuple(sorted(names))
    return LabelSet(ordered, tuple(map(readable, ordered)), TEMPLATE)


def _id(name: str) -> str:
    """A path's id: without its suffix, where it has one that is a video's."""
    return _without_suffix(name) if is_video(name) else name.replace("/", "__")


def _without_suffix(name: str) -> str:
    return os.path.splitext(name)[0].replace("/", "__")
