"""Charades, in the official layout of three small files."""

from pathlib import Path

import pytest

from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets import Segment, charades

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
CLASSES = "c000 Holding some clothes\nc001 Putting clothes somewhere\nc150 Someone is running\n"


def row(video: str, actions: str) -> str:
    return f'{video},S1,Kitchen,6,7,Yes,"A person, at home.",cup;sofa,It says ""so"".,{actions},9\n'


TRAIN = row("AAAAA", "c150 1.00 2.50;c000 0.00 9.10;c000 9.10 9.20") + row("BBBBB", "")
TEST = row("CCCCC", "c001 0.00 3.00")


@pytest.fixture
def parse(tmp_path):
    """Parses the three files; `AAAAA` is on disk."""

    def parsed(train=TRAIN, test=TEST, classes=CLASSES, header=HEADER):
        (tmp_path / charades.SPLITS["train"]).write_text(header + train)
        (tmp_path / charades.SPLITS["test"]).write_text(header + test)
        (tmp_path / charades.CLASSES).write_text(classes)
        return charades.parse(tmp_path / "videos", tmp_path)

    path = tmp_path / "videos" / "Charades_v1_480" / "AAAAA.mp4"
    path.parent.mkdir(parents=True)
    path.touch()
    return parsed


def test_records(parse, tmp_path):
    dataset = parse()
    a, b, c = dataset.videos
    assert [(video.id, video.split) for video in (a, b, c)] == [
        ("AAAAA", "train"),
        ("BBBBB", "train"),
        ("CCCCC", "test"),
    ]
    assert a.steps == ("Holding some clothes", "Someone is running")
    assert a.segments[0] == Segment("Someone is running", 1, 2.5)
    assert (b.steps, b.segments) == ((), ())
    assert dataset.activity is None
    assert {video.activity for video in dataset.videos} == {None}
    assert dataset.steps.unlabelled_last
    assert dataset.steps.prompts == (
        "a video of a person holding some clothes",
        "a video of a person putting clothes somewhere",
        "a video of a person running",
    )
    assert (a.path, b.path) == (tmp_path / "videos" / "Charades_v1_480" / "AAAAA.mp4", None)
    assert any(note.startswith("1 of 3 videos have no action") for note in dataset.notes)


def test_flat_folders_and_the_folder_above_serve_too(parse, tmp_path):
    dataset = parse()
    flat = tmp_path / "videos" / "Charades_v1_480"
    assert charades.parse(flat, tmp_path).videos == dataset.videos
    above = tmp_path / "above"
    (above / "Charades").mkdir(parents=True)
    for name in (*charades.SPLITS.values(), charades.CLASSES):
        (tmp_path / name).rename(above / "Charades" / name)
    assert charades.parse(flat, above).videos == dataset.videos


def test_one_name_of_two_actions_gets_its_code(parse):
    dataset = parse(classes=CLASSES + "c151 Someone is running\n")
    assert dataset.steps.names[2:] == ("Someone is running (c150)", "Someone is running (c151)")
    assert "Someone is running (c150)" in dataset.videos[0].steps


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"train": row("../x", "")}, r"train\.csv:2: '\.\./x' cannot be a video's id"),
        ({"test": TEST + row("AAAAA", "")}, r"test\.csv:3: .* already, at .*train\.csv:2"),
        ({"train": row("A", "c777 0 1")}, r"train\.csv:2: action 'c777' is not in Charades_v1_cl"),
        ({"train": row("A", "c000 0")}, r"train\.csv:2: 'c000 0' is not like 'c092 11\.90"),
        ({"train": row("A", "c000 0 x")}, r"train\.csv:2: '0' to 'x' is no span of time"),
        ({"train": row("A", "c000 2 1")}, r"train\.csv:2: '2' to '1' is no span of time"),
        ({"header": HEADER.replace("actions", "act")}, r"train\.csv:1: needs one column 'actions'"),
        ({"classes": "c000 Holding\nHolding"}, r"classes\.txt:2: 'Holding' is not like 'c000 H"),
        ({"classes": "c000 A\nc000 B"}, r"classes\.txt:2: c000 is there already: 'A'"),
        ({"train": "", "test": ""}, "names no video"),
    ],
)
def test_broken_annotations(broken, message, parse):
    with pytest.raises(AnnotationError, match=message):
        parse(**broken)


def test_missing_files_are_named(tmp_path):
    (tmp_path / charades.CLASSES).write_text(CLASSES)
    with pytest.raises(UsageError, match=r"lacks Charades_v1_train\.csv, Charades_v1_test\.csv;"):
        charades.parse(tmp_path, tmp_path)


def test_no_video_there_is_an_error_that_names_some(parse, tmp_path):
    Path(tmp_path, "videos", "Charades_v1_480", "AAAAA.mp4").unlink()
    with pytest.raises(UsageError, match=r"none of the 3 .*/Charades_v1_480/AAAAA\.mp4, "):
        parse()
