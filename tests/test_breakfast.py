"""Breakfast: two layouts of annotation, two of videos, and the protocol's own list."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets import Segment, breakfast

DATA = Path(__file__).parents[2] / "shared" / "data" / "breakfast"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no annotations of Breakfast at {DATA}")

TEA = "P03_cam01_P03_tea"


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def coarse(tmp_path):
    return tmp_path / "segmentation_coarse"


@pytest.fixture
def videos(tmp_path):
    """A folder with the video of P03_cam01_P03_tea."""
    return write(tmp_path / "videos" / "P03" / "cam01" / "P03_tea.avi").parents[2]


def test_both_layouts_say_the_same(tmp_path, coarse, videos):
    write(coarse / "tea" / f"{TEA}.txt", "1-2 SIL \n3-3 pour_water \n4-6 SIL \n")
    truth = tmp_path / "ms_tcn" / "groundTruth"
    write(truth / f"{TEA}.txt", "SIL\nSIL\npour_water\nSIL\nSIL\nSIL\n")
    ours, theirs = breakfast.parse(videos, coarse), breakfast.parse(videos, truth)
    assert ours == theirs
    (video,) = ours.videos
    assert video.segments == (
        Segment("SIL", 0, 2 / 15),
        Segment("pour_water", 2 / 15, 3 / 15),
        Segment("SIL", 3 / 15, 6 / 15),
    )
    assert video.steps == ("SIL", "pour_water")
    assert (video.id, video.split, video.activity) == (TEA, "train", "tea")
    assert (video.session, video.group) == ("P03_tea", "P03")
    # the folder above, and a mapping beside or inside, change nothing
    write(truth.parent / "mapping.txt", "0 SIL\n")
    write(truth / "mapping.txt", "0 SIL\n")
    assert breakfast.parse(videos, coarse.parent) == ours
    assert breakfast.parse(videos, truth.parent) == ours


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("P16_webcam02_P16_salat", "P16/webcam02/P16_salat.avi"),
        ("P16_stereo01_P16_salat", "P16/stereo/P16_salat_ch0.avi"),
        ("P16_stereo01_P16_salat", "BreakfastII_15fps_qvga_sync/P16/stereo/P16_salat_ch0.avi"),
        ("P16_cam01_P16_salat", "BreakfastII_15fps_qvga_sync/P16/cam01/P16_salat.mp4"),
        ("P16_cam01_P16_salat", "P16_cam01_P16_salat.mp4"),
    ],
)
def test_where_videos_lie(name, file, coarse, tmp_path):
    write(coarse / "salat" / f"{name}.txt", "1-9 SIL\n")
    path = write(tmp_path / "videos" / file)
    write(tmp_path / "videos" / "P16" / "stereo" / "P16_salat_ch1.avi")
    (video,) = breakfast.parse(tmp_path / "videos", coarse).videos
    assert video.path == path


def test_a_video_that_is_not_there_has_no_path_and_none_at_all_is_an_error(coarse, videos):
    write(coarse / "tea" / f"{TEA}.txt", "1-9 SIL\n")
    write(coarse / "tea" / "P47_stereo01_P47_tea.txt", "1-9 SIL\n")
    paths = [video.path for video in breakfast.parse(videos, coarse).videos]
    assert paths == [videos / "P03" / "cam01" / "P03_tea.avi", None]
    (videos / "P03" / "cam01" / "P03_tea.avi").unlink()
    with pytest.raises(UsageError, match=r"none of the 2 .*/P03/cam01/P03_tea\.avi.*--videos"):
        breakfast.parse(videos, coarse)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1-9 SIL\n10-20 pour_wine\n", ":2: 'pour_wine' is none of the 48 unit actions"),
        ("SIL\nSIL\npour_wine\n", ":3: 'pour_wine' is none of the 48"),
        ("SIL\n\nSIL\n", ":2: '' is none of the 48"),
        ("1-9 SIL\n9-20 pour_water\n", ":2: frames 9-20 after frame 9; right would be"),
        ("1-9 SIL\n20-10 pour_water\n", ":2: frames 20-10 after frame 9"),
        ("0-9 SIL\n", ":1: frames 0-9 after frame 0"),
        ("1-9 SIL\n10-x pour_water\n", ":2: '10-x pour_water' is not like '1-9 SIL'"),
        ("1-9\n", ":1: '1-9' is not like"),
        ("1-9 SIL\n\n10-11 SIL\n", ":2: '' is not like"),
    ],
)
def test_broken_annotations(text, message, coarse, videos):
    path = write(coarse / "tea" / f"{TEA}.txt", text)
    with pytest.raises(AnnotationError, match=f"^{re.escape(str(path) + message)}"):
        breakfast.parse(videos, coarse)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("tea/P02_cam01_P02_tea.txt", "person P02 is in no split"),
        ("tea/P55_cam01_P55_tea.txt", "person P55 is in no split"),
        ("tea/P03_cam01_P04_tea.txt", "not named as an annotation"),
        ("tea/P03_cam09_P03_tea.txt", "not named as an annotation"),
        ("P03_cam01_P03_wine.txt", "the activity one of cereals, coffee"),
        ("tea/P03_cam01_P03_milk.txt", "an annotation of milk in the folder tea"),
        ("P03_cam01_P03_tea.txt", "is there already, at"),
    ],
)
def test_names_that_cannot_be(file, message, coarse, videos):
    write(coarse / "tea" / f"{TEA}.txt", "1-9 SIL\n")
    write(coarse / file, "1-9 SIL\n")
    with pytest.raises(AnnotationError, match=message):
        breakfast.parse(videos, coarse)


def test_a_mapping_with_another_label_is_an_error(tmp_path, videos):
    write(tmp_path / "groundTruth" / f"{TEA}.txt", "SIL\n")
    write(tmp_path / "mapping.txt", "0 SIL\n1 pour_wine\n")
    with pytest.raises(AnnotationError, match=r"mapping\.txt:2: '1 pour_wine' does not name"):
        breakfast.parse(videos, tmp_path)


def test_no_annotations_at_all(tmp_path, videos):
    with pytest.raises(UsageError, match=r"no annotation such as P16_cam01.*--annotations"):
        breakfast.parse(videos, tmp_path)


def test_an_empty_annotation_keeps_its_video_and_is_noted(coarse, videos):
    write(coarse / "tea" / f"{TEA}.txt", "")
    dataset = breakfast.parse(videos, coarse)
    assert dataset.videos[0].steps == ()
    assert any(TEA in note and "empty" in note for note in dataset.notes)


def test_labels_read_well(coarse, videos):
    write(coarse / "tea" / f"{TEA}.txt", "1-9 SIL\n")
    dataset = breakfast.parse(videos, coarse)
    activity = dict(zip(dataset.activity.names, dataset.activity.prompts, strict=True))
    assert activity["friedegg"] == "a video of a person making fried egg"
    assert activity["scrambledegg"] == "a video of a person making scrambled egg"
    assert activity["salat"] == "a video of a person making salad"
    steps = dict(zip(dataset.steps.names, dataset.steps.texts, strict=True))
    assert steps["SIL"] == "doing nothing"
    assert steps["add_saltnpepper"] == "add salt and pepper"
    assert steps["stirfry_egg"] == "stir-fry egg"
    assert steps["put_toppingOnTop"] == "put topping on top"
    assert dataset.steps.background == ("SIL",)
    assert dataset.activity.background == ()


@needs_data
def test_the_annotations_agree_with_the_protocol(tmp_path):
    write(tmp_path / "P16_cam01_P16_cereals.avi")
    dataset = breakfast.parse(tmp_path, DATA)
    with open(DATA / "ltar_split.csv", newline="") as file:
        protocol = {_official_id(row["video"]): row for row in csv.DictReader(file)}
    assert len(protocol) == sum(breakfast.OFFICIAL_COUNTS.values())
    names = {"cereal": "cereals", "fried egg": "friedegg", "scrambled egg": "scrambledegg"}
    for video in dataset.videos:
        row = protocol[video.id]
        activity = names.get(row["activity"], row["activity"])
        assert (video.split, video.activity) == (row["split"], activity), video.id
    files = list((DATA / "segmentation_coarse").rglob("*.txt"))
    assert len(dataset.videos) == len(files)
    expected = Counter(protocol[file.stem]["split"] for file in files)
    assert Counter(video.split for video in dataset.videos) == expected
    assert expected["test"] == breakfast.OFFICIAL_COUNTS["test"]
    assert len({video.session for video in dataset.videos if video.split == "test"}) == 80
    assert all("SIL" in video.steps for video in dataset.videos)


@needs_data
def test_the_48_unit_actions_are_those_of_the_mapping():
    lines = (DATA / "ms_tcn" / "mapping.txt").read_text().splitlines()
    assert tuple(line.split()[1] for line in lines) == breakfast.UNIT_ACTIONS


@needs_data
def test_real_annotations_in_both_layouts_say_the_same(tmp_path):
    write(tmp_path / "P16_cam01_P16_cereals.avi")
    coarse = {video.id: video for video in breakfast.parse(tmp_path, DATA).videos}
    both = [v for v in breakfast.parse(tmp_path, DATA / "ms_tcn").videos if v.id in coarse]
    assert len(both) == 3
    for video in both:
        assert video.steps == coarse[video.id].steps


def _official_id(video: str) -> str:
    """`P03-stereo-P03_tea_ch0` to `P03_stereo01_P03_tea`."""
    return video.replace("-stereo-", "-stereo01-").replace("_ch0", "").replace("-", "_")
