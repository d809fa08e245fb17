"""Breakfast: 10 breakfast dishes, 48 unit actions, filmed by several cameras at a time.

Kuehne et al., "The Language of Actions", CVPR 2014. The annotation is the official
`segmentation_coarse` (`first-last label` a line) or MS-TCN's `groundTruth` (a label a frame).
The split is that of long-term action recognition: by person, P03 to P46 train, P47 to P54 test.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter

from pcmci.cache.schema import LabelSet
from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets.complaints import Complaints
from pcmci.extract.datasets.files import VideoTree, list_files, new_id, read_text, tree_of
from pcmci.extract.datasets.label_text import readable
from pcmci.extract.datasets.records import Dataset, Segment, Video
from pcmci.remote.url import Place

FRAMES_PER_SECOND = 15
SPLITS = {"train": range(3, 47), "test": range(47, 55)}
OFFICIAL_COUNTS = {"train": 1357, "test": 355}
VIDEO_FOLDER = "BreakfastII_15fps_qvga_sync"

# fmt: off
ACTIVITIES = (
    "cereals", "coffee", "friedegg", "juice", "milk", "pancake", "salat", "sandwich",
    "scrambledegg", "tea",
)

UNIT_ACTIONS = (
    "SIL", "pour_cereals", "pour_milk", "stir_cereals", "take_bowl", "pour_coffee", "take_cup",
    "spoon_sugar", "stir_coffee", "pour_sugar", "pour_oil", "crack_egg", "add_saltnpepper",
    "fry_egg", "take_plate", "put_egg2plate", "take_eggs", "butter_pan", "take_knife",
    "cut_orange", "squeeze_orange", "pour_juice", "take_glass", "take_squeezer", "spoon_powder",
    "stir_milk", "spoon_flour", "stir_dough", "pour_dough2pan", "fry_pancake",
    "put_pancake2plate", "pour_flour", "cut_fruit", "put_fruit2bowl", "peel_fruit",
    "stir_fruit", "cut_bun", "smear_butter", "take_topping", "put_toppingOnTop",
    "put_bunTogether", "take_butter", "stir_egg", "pour_egg2pan", "stirfry_egg", "add_teabag",
    "pour_water", "stir_tea",
)
# fmt: on

IRREGULAR = {
    "SIL": "doing nothing",
    "add_saltnpepper": "add salt and pepper",
    "stirfry_egg": "stir-fry egg",
    "friedegg": "fried egg",
    "scrambledegg": "scrambled egg",
    "salat": "salad",
    "milk": "chocolate milk",
}

_ID = re.compile(r"(P\d\d)_(cam01|cam02|webcam01|webcam02|stereo01)_\1_([a-z]+)")
_RANGE = re.compile(r"(\d{1,9})-(\d{1,9}) +(\S+)")


def parse(videos: Place | VideoTree, annotations: Place, follow_links: bool = False) -> Dataset:
    """All annotated videos.

    videos: `BreakfastII_15fps_qvga_sync`, the folder that holds it, or one with `<id>.avi` in it.
    annotations: `segmentation_coarse`, `groundTruth`, or the folder that holds one of them.
    Raises AnnotationError, and UsageError where none of the videos or annotations is there.
    """
    places = annotations / "segmentation_coarse", annotations / "groundTruth"
    folder = next((place for place in places if place.is_dir()), annotations)
    listing = list_files(folder, {".txt"}, follow_links)
    for mapping in (folder / "mapping.txt", folder.parent / "mapping.txt"):
        if mapping.is_file():
            _check_mapping(mapping)
    files = {name: path for name, path in listing.files.items() if re.match(r"P\d", path.name)}
    if not files:
        raise UsageError(
            f"no annotation such as P16_cam01_P16_cereals.txt is under {folder}; --annotations "
            "names another folder"
        )

    tree = tree_of(videos, follow_links)
    seen: dict[str, str] = {}
    found = []
    complaints = Complaints()
    for path in files.values():
        with complaints.kept():
            found.append(_video(path, tree, seen))
    complaints.raise_any()
    tree.require_some()
    counts = Counter(video.split for video in found)
    notes = [*tree.notes, *listing.notes]
    for split, official in OFFICIAL_COUNTS.items():
        if counts[split] != official:
            notes.append(f"{counts[split]:,} {split} videos; the protocol has {official:,}")
    empty = [video.id for video in found if not video.steps]
    if empty:
        notes.append(f"no unit actions, for the annotation is empty: {', '.join(empty)}")
    return Dataset(
        name="breakfast",
        videos=tuple(found),
        activity=_label_set(ACTIVITIES, "a video of a person making {}"),
        steps=_label_set(UNIT_ACTIONS, "a video of a person making breakfast: {}"),
        notes=tuple(notes),
    )


def _label_set(names: tuple[str, ...], template: str) -> LabelSet:
    texts = tuple(IRREGULAR.get(name) or readable(name) for name in names)
    background = ("SIL",) if "SIL" in names else ()
    return LabelSet(names, texts, template, background)


def _video(path: Place, tree: VideoTree, seen: dict[str, str]) -> Video:
    match = _ID.fullmatch(path.stem)
    if not match or match[3] not in ACTIVITIES:
        raise AnnotationError(
            f"{path}: not named as an annotation of Breakfast; right would be "
            f"P16_cam01_P16_cereals.txt, the activity one of {', '.join(ACTIVITIES)}"
        )
    person, camera, activity = match.groups()
    if path.parent.name in ACTIVITIES and path.parent.name != activity:
        raise AnnotationError(
            f"{path}: an annotation of {activity} in the folder {path.parent.name}"
        )
    split = next((split for split, ids in SPLITS.items() if int(person[1:]) in ids), None)
    if split is None:
        raise AnnotationError(f"{path}: person {person} is in no split; there are P03 to P54")

    video = new_id(path.stem, str(path), seen)
    # of the stereo camera's two channels the protocol uses the first
    in_tree = (
        f"{person}/stereo/{person}_{activity}_ch0.avi"
        if camera == "stereo01"
        else f"{person}/{camera}/{person}_{activity}.avi"
    )
    segments = _segments(path)
    labels = {segment.label for segment in segments}
    return Video(
        id=video,
        path=tree.find(f"{VIDEO_FOLDER}/{in_tree}", in_tree, f"{video}.avi"),
        split=split,
        activity=activity,
        steps=tuple(name for name in UNIT_ACTIONS if name in labels),
        segments=segments,
        session=f"{person}_{activity}",
        group=person,
    )


def _segments(path: Place) -> tuple[Segment, ...]:
    lines = [line.strip() for line in read_text(path).rstrip().splitlines()]
    # no label begins with a digit, every range does
    ranges = _coarse(path, lines) if lines and lines[0][:1].isdigit() else _framewise(lines)
    segments = []
    for number, first, last, label in ranges:
        if label not in UNIT_ACTIONS:
            raise AnnotationError(
                f"{path}:{number}: {label!r} is none of the 48 unit actions "
                f"({', '.join(UNIT_ACTIONS[:3])}, …)"
            )
        segments.append(Segment(label, (first - 1) / FRAMES_PER_SECOND, last / FRAMES_PER_SECOND))
    return tuple(segments)


# Both give (line, first frame, last frame, label): frames from 1, the last one included.
def _coarse(path: Place, lines: list[str]) -> list[tuple[int, int, int, str]]:
    ranges = []
    end = 0
    for number, line in enumerate(lines, 1):
        match = _RANGE.fullmatch(line)
        if not match:
            raise AnnotationError(f"{path}:{number}: {line!r} is not like '1-9 SIL'")
        first, last = int(match[1]), int(match[2])
        if not end < first <= last:
            raise AnnotationError(
                f"{path}:{number}: frames {first}-{last} after frame {end}; right would be a "
                f"range that begins at {end + 1} or later and does not run backwards"
            )
        ranges.append((number, first, last, match[3]))
        end = last
    return ranges


def _framewise(lines: list[str]) -> list[tuple[int, int, int, str]]:
    ranges = []
    for label, run in itertools.groupby(enumerate(lines, 1), key=lambda line: line[1]):
        frames = [number for number, _ in run]
        ranges.append((frames[0], frames[0], frames[-1], label))
    return ranges


def _check_mapping(path: Place) -> None:
    for number, line in enumerate(read_text(path).rstrip().splitlines(), 1):
        label = line.split()[1:]
        if len(label) != 1 or label[0] not in UNIT_ACTIONS:
            raise AnnotationError(
                f"{path}:{number}: {line!r} does not name one of the 48 unit actions; right "
                "would be '0 SIL'"
            )
