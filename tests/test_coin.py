"""COIN: splits, steps whose names collide, broken JSON."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets import Segment, coin

DATA = Path(__file__).parents[2] / "shared" / "data" / "coin" / "COIN.json.gz"
needs_data = pytest.mark.skipif(not DATA.is_file(), reason=f"no annotation of COIN at {DATA}")


def step(number, label="stir", start=0.0, end=1.0):
    return {"id": str(number), "label": label, "segment": [start, end]}


def entry(*steps, task="MakeTea", subset="training", **more):
    return {"class": task, "subset": subset, "recipe_type": 7, "annotation": list(steps)} | more


@pytest.fixture
def videos(tmp_path):
    """A folder with the video `a`, of recipe type 7."""
    path = tmp_path / "videos" / "7" / "a.mp4"
    path.parent.mkdir(parents=True)
    path.touch()
    return tmp_path / "videos"


@pytest.fixture
def parse(tmp_path, videos):
    """Parses a database, or the very text of a file."""

    def parsed(database):
        path = tmp_path / "COIN.json"
        path.write_text(
            database if isinstance(database, str) else json.dumps({"database": database})
        )
        return coin.parse(videos, path)

    return parsed


def test_records(parse, videos):
    (videos / "b.webm").touch()
    dataset = parse(
        {
            "b": entry(step(16, "pour", 0, 9), step(3, "stir", 9, 11), step(16, "pour", 12, 13.5)),
            "a": entry(step(16, "pour"), task="BrewCPR", subset="testing"),
            "c": entry(),
        }
    )
    b, a, c = dataset.videos
    assert (b.id, b.split, b.activity) == ("b", "train", "MakeTea")
    assert (a.split, a.activity) == ("test", "BrewCPR")
    assert dataset.activity.names == ("BrewCPR", "MakeTea")
    assert dataset.activity.prompts[0] == "a video of how to brew CPR"
    assert dataset.steps.names == ("stir", "pour")  # by id
    assert b.steps == ("stir", "pour")
    assert b.segments == (
        Segment("pour", 0, 9),
        Segment("stir", 9, 11),
        Segment("pour", 12, 13.5),
    )
    assert (a.path, b.path, c.path) == (videos / "7" / "a.mp4", videos / "b.webm", None)
    assert c.steps == ()


def test_names_of_several_steps_get_their_task_and_their_id(parse):
    dataset = parse(
        {
            "a": entry(step(1, "peel"), step(2, "aim"), step(3, "aim"), task="CutMango"),
            "b": entry(step(4, "peel"), step(5, "cut"), task="EatMango"),
        }
    )
    assert dataset.steps.names == (
        "peel (CutMango)",
        "aim (CutMango, step 2)",
        "aim (CutMango, step 3)",
        "peel (EatMango)",
        "cut",
    )
    assert dataset.steps.texts == (
        "peel, to cut mango",
        "aim, to cut mango (step 2)",
        "aim, to cut mango (step 3)",
        "peel, to eat mango",
        "cut",
    )
    assert dataset.videos[1].steps == ("peel (EatMango)", "cut")


@pytest.mark.parametrize(
    ("subset", "split"),
    [
        ("training", "train"),
        ("train", "train"),
        ("testing", "test"),
        ("test", "test"),
        ("val", "test"),
        ("validation", "test"),
    ],
)
def test_subsets_by_all_their_names(subset, split, parse):
    dataset = parse({"a": entry(subset=subset), "b": entry(subset=subset)})
    assert {video.split for video in dataset.videos} == {split}
    assert f"{subset} 2" in dataset.notes[-1]
    assert ("counts as test" in dataset.notes[-1]) == subset.startswith("val")


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ({"../x": entry()}, r"COIN\.json: '\.\./x' cannot be a video's id"),
        ({"a\\b": entry()}, "cannot be a video's id"),
        ({"\ud800": entry()}, "cannot be a video's id"),
        ({"a": []}, r"video 'a': \[\] is no JSON object"),
        ({"a": {"class": "T", "subset": "test"}}, "video 'a': has no field 'annotation'"),
        ({"a": entry(task=3)}, "video 'a': the class 3 is no name"),
        ({"a": entry(subset="dev")}, "video 'a': no subset is called 'dev'; training, train"),
        ({"a": entry(subset=[])}, r"no subset is called \[\]"),
        ({"a": entry(annotation={})}, "video 'a': the annotation {} is no list"),
        ({"a": entry("stir")}, "video 'a': the step 'stir' is no JSON object"),
        ({"a": entry(step("x"))}, "video 'a': step 'stir' has the id 'x'"),
        ({"a": entry({"label": "stir"})}, "video 'a': step 'stir' has the id 'None'"),
        ({"a": entry(step(1, " "))}, "video 'a': a step's label is ' '"),
        ({"a": entry({"id": 1, "label": "stir"})}, "step 1 has the segment None"),
        ({"a": entry(step(1, end="x"))}, "video 'a': 0.0 to 'x' is no span"),
        ({"a": entry(step(1, start=9))}, "video 'a': 9 to 1.0 is no span"),
        (
            {"a": entry(step(1)), "b": entry(step(1, "pour"))},
            "video 'b': step 1 is 'pour' here and 'stir' elsewhere",
        ),
        ({}, "names no video"),
        ('{"database": {"a": 1,\n"a": 2}}', r"COIN\.json: 'a' is there twice"),
        ('{"database":\n{"a": }}', r"COIN\.json:2: no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", r'not like COIN\.json, which is {"database"'),
    ],
)
def test_broken_annotations(database, message, parse):
    with pytest.raises(AnnotationError, match=message):
        parse(database)


@pytest.mark.parametrize("suffix", [".flv", ".3gp", ".MTS", ".wmv", ".ts", ".gif"])
def test_a_video_in_any_container_is_there(parse, videos, suffix):
    (videos / f"b{suffix}").touch()
    dataset = parse({"a": entry(), "b": entry()})
    assert [video.path for video in dataset.videos] == [
        videos / "7" / "a.mp4", videos / f"b{suffix}",
    ]  # fmt: skip


def test_all_that_is_wrong_is_said_at_once(parse):
    with pytest.raises(
        AnnotationError, match=r"'\.a' cannot be.*; .*video 'b': no subset.*; .*video 'c'"
    ):
        parse({".a": entry(), "b": entry(subset="mine"), "c": entry(step("x"))})
    with pytest.raises(AnnotationError, match=r"'a', 'b' are there twice in one JSON object"):
        parse('{"database": {"a": 1, "b": 2, "a": 3, "b": 4, "c": 5}}')


def test_gzip_is_read_and_must_be_whole(tmp_path, videos, parse):
    plain = parse({"a": entry(step(1))})
    raw = gzip.compress((tmp_path / "COIN.json").read_bytes())
    path = tmp_path / "COIN.json.gz"
    path.write_bytes(raw)
    assert coin.parse(videos, path) == plain
    for broken in (raw[:-9], b"no gzip", raw[:20] + bytes([raw[20] ^ 255]) + raw[21:]):
        path.write_bytes(broken)
        with pytest.raises(AnnotationError, match=r"COIN\.json\.gz: "):
            coin.parse(videos, path)


def test_no_video_there_is_an_error_that_names_some(parse, videos):
    (videos / "7" / "a.mp4").unlink()
    with pytest.raises(UsageError, match=r"none of the 2 .*/7/a\.mp4, .*/7/b\.mp4.*--videos"):
        parse({"a": entry(), "b": entry()})


@needs_data
def test_the_whole_annotation(tmp_path):
    (tmp_path / "4MiubN1oQkg.mkv").touch()
    dataset = coin.parse(tmp_path, DATA)
    assert Counter(video.split for video in dataset.videos) == {"train": 9030, "test": 2797}
    assert (len(dataset.activity), len(dataset.steps)) == (180, 778)
    assert [video.id for video in dataset.videos if video.path] == ["4MiubN1oQkg"]
    # told apart as keys, and as texts for the encoder
    assert len(set(dataset.steps.texts)) == 778
    assert sum("(" in name and "step" in name for name in dataset.steps.names) == 6
    for text in dataset.activity.texts:
        words = text.split()
        assert all(word.islower() or word.isupper() for word in words), text
        assert all(len(word) > 1 or word == "a" for word in words), text
