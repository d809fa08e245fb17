"""What all data sets share: where they lie, which names are safe, words for labels."""

import contextlib
from pathlib import Path

import av.format
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets import DATASETS, load_dataset
from pcmci.extract.datasets.files import (
    VideoTree,
    list_files,
    new_id,
    read_rows,
    read_text,
    time_span,
)
from pcmci.extract.datasets.label_text import distinct, readable
from pcmci.extract.datasets.suffixes import BY_FORMAT, SOUND_OR_STILL, USUAL, VIDEO_SUFFIXES
from pcmci.remote.url import Url


def write(path: Path, text: str | bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# where a data set lies


def test_unknown_data_set_names_those_there_are():
    with pytest.raises(UsageError, match=f"'coyn'; there are {', '.join(DATASETS)}"):
        load_dataset("coyn")


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("breakfast", ["videos", "segmentation_coarse", "groundTruth"]),
        ("coin", ["videos", "COIN.json", "COIN.json.gz"]),
        ("charades", ["videos", ""]),
        ("folder", [""]),
    ],
)
def test_every_default_place_that_is_missing_is_named(name, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--videos") as error:
        load_dataset(name)
    for place in places:
        assert str(Path("data", name, place)) in str(error.value)
    assert ("--annotations" in str(error.value)) == bool(DATASETS[name].annotations)


def test_places_given_are_looked_at_instead_of_the_defaults(tmp_path):
    with pytest.raises(UsageError) as error:
        load_dataset("coin", tmp_path / "clips", tmp_path / "labels.json")
    assert str(tmp_path / "clips") in str(error.value)
    assert str(tmp_path / "labels.json") in str(error.value)
    assert "data/coin" not in str(error.value)


def test_the_defaults_are_enough_where_the_data_lie_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("data/folder/a.mp4"))
    write(Path("data/breakfast/videos/P03/cam01/P03_tea.avi"))
    write(Path("data/breakfast/groundTruth/P03_cam01_P03_tea.txt"), "SIL\n")
    assert [video.id for video in load_dataset("folder").videos] == ["a"]
    assert [video.id for video in load_dataset("breakfast").videos] == ["P03_cam01_P03_tea"]


# files


def test_videos_are_found_whatever_their_suffix_but_not_hidden_ones(tmp_path):
    write(tmp_path / "41" / "abc.WEBM")
    write(tmp_path / "41" / "abc.json")
    write(tmp_path / "41" / "._def.mp4")
    tree = VideoTree(tmp_path)
    assert tree.find("41/abc.mp4", "abc.mp4") == tmp_path / "41" / "abc.WEBM"
    assert tree.find("41/def.mp4") is None
    assert tree.at("41/abc.mp4") is None
    assert list(tree.files) == ["41/abc.WEBM"]


def test_one_video_in_two_files_is_an_error(tmp_path):
    write(tmp_path / "41" / "abc.mp4")
    write(tmp_path / "abc.mkv")
    write(tmp_path / "def.mp4")
    write(tmp_path / "def.avi")
    tree = VideoTree(tmp_path)
    tree.find("41/abc.mp4", "abc.mp4")
    tree.find("def.mp4")
    both = r"41/abc\.mp4 and abc\.mkv are the same video; def\.avi and def\.mp4 are the same"
    with pytest.raises(UsageError, match=both):
        tree.require_some()


def test_links_are_followed_only_to_files_within(tmp_path):
    inside, outside = tmp_path / "videos", tmp_path / "elsewhere"
    write(inside / "a.mp4")
    write(outside / "secret.mp4")
    (inside / "b.mp4").symlink_to("a.mp4")
    (inside / "c.mp4").symlink_to("../elsewhere/secret.mp4")
    (inside / "folder").symlink_to("../elsewhere")
    (inside / "loop").symlink_to(".")
    (inside / "broken.mp4").symlink_to("nothing.mp4")
    found = list_files(inside, {".mp4"})
    assert list(found.files) == ["a.mp4", "b.mp4"]
    assert found.links_out == ["c.mp4", "folder"]
    assert (found.links_in, found.broken) == (["loop"], ["broken.mp4"])
    tree = VideoTree(inside)
    assert tree.find("c.mp4") is None
    with pytest.raises(UsageError, match=r"expected for example .*/c\.mp4; 2 symbolic links"):
        tree.require_some()


def test_objects_that_no_file_can_be_called_are_named(monkeypatch):
    names = ["a/b.mp4", "two\nlines.mp4", "a//b.mp4", "folder/", ".hidden/c.mp4", "back\\slash.mp4"]
    root = Url("s3://bucket/films")
    monkeypatch.setattr(Url, "files", lambda self: ((name, self / name) for name in names))
    found = list_files(root)
    assert list(found.files) == ["a/b.mp4"]
    assert found.odd == ["a//b.mp4", "back\\slash.mp4", "two\nlines.mp4"]
    assert any(note.startswith("3 names left out") for note in found.notes)


def test_what_ffmpeg_opens_and_what_is_a_video_are_one_thing():
    """FFmpeg's own suffixes of the formats that are read, whatever version this is."""
    from pcmci.extract.video.timeline import FORMATS

    assert set(BY_FORMAT) == set(FORMATS.split())
    for name in BY_FORMAT:
        suffixes = set(av.format.ContainerFormat(name, "r").extensions)
        with contextlib.suppress(ValueError):  # some are only read
            suffixes |= set(av.format.ContainerFormat(name, "w").extensions)
        assert {f".{one}" for one in suffixes} <= VIDEO_SUFFIXES | SOUND_OR_STILL, name
    assert not VIDEO_SUFFIXES & SOUND_OR_STILL
    assert USUAL <= VIDEO_SUFFIXES


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="nowhere: cannot be listed"):
        list_files(tmp_path / "nowhere", {".mp4"})


def test_text_may_begin_with_a_byte_order_mark_and_must_be_utf8(tmp_path):
    assert read_text(write(tmp_path / "a", b"\xef\xbb\xbfvideo")) == "video"
    with pytest.raises(AnnotationError, match="a:2: not UTF-8"):
        read_text(write(tmp_path / "a", b"one\nt\xffwo"))
    with pytest.raises(AnnotationError, match="cannot be read: No such file"):
        read_text(tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: needs one column 'id'; the file is empty"),
        ("name,b\n", ":1: needs one column 'id'; there are name, b"),
        ("id,id\n1,2\n", ":1: needs one column 'id'; there are id, id"),
        ("id,b\n1,2\n3\n", ":3: 1 values, but the header has 2 columns"),
        ("id,b\n1,2,3\n", ":2: 3 values, but the header has 2 columns"),
        ('id,b\n1,"open\n2,3\n', ": broken CSV: unexpected end of data"),
    ],
)
def test_broken_tables(text, message, tmp_path):
    with pytest.raises(AnnotationError) as error:
        list(read_rows(write(tmp_path / "t.csv", text), ("id",)))
    assert message in str(error.value)


def test_rows_know_their_line(tmp_path):
    path = write(tmp_path / "t.csv", 'id,b\r\n\r\n1,"two\r\nlines"\r\n2,x\r\n')
    places = [(place.removeprefix(f"{path}:"), row["id"]) for place, row in read_rows(path, ["id"])]
    assert places == [("4", "1"), ("5", "2")]


@pytest.mark.parametrize(
    "bad", ["", " ", "..", "../x", "/etc/x", "a/b", "a\\b", "C:\\x", "x\0y", ".x", "a\nb", "\ud800"]
)
def test_ids_that_are_paths_are_refused(bad):
    with pytest.raises(AnnotationError, match=r"^F:7: .* cannot be a video's id"):
        new_id(bad, "F:7", {})


@given(st.text(max_size=5), st.sampled_from("/\\\0"), st.text(max_size=5))
def test_no_id_with_a_part_of_a_path_gets_through(before, bad, after):
    with pytest.raises(AnnotationError, match="cannot be a video's id"):
        new_id(before + bad + after, "F:1", {})


def test_ids_are_there_once():
    seen = {}
    assert new_id("-u2TR_tyNO9", "F:1", seen) == "-u2TR_tyNO9"
    with pytest.raises(AnnotationError, match="F:9: video '-u2TR_tyNO9' is there already, at F:1"):
        new_id("-u2TR_tyNO9", "F:9", seen)


def test_spans_of_time():
    assert time_span("1.5", 2, "F:1") == (1.5, 2.0)
    assert time_span(3, 3, "F:1") == (3.0, 3.0)
    for bad in [(2, 1), (-1, 1), ("x", 1), (None, 1), ("nan", 1), (0, "inf"), (10**400, 1)]:
        with pytest.raises(AnnotationError, match=r"^F:1: .* is no span of time"):
            time_span(*bad, "F:1")


# words for labels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pour_dough2pan", "pour dough to pan"),
        ("put_toppingOnTop", "put topping on top"),
        ("put_bunTogether", "put bun together"),
        ("ReplaceCDDriveWithSSD", "replace CD drive with SSD"),
        ("ReplaceSIMCard", "replace SIM card"),
        ("ReplaceBatteryOnTVControl", "replace battery on TV control"),
        ("AttendNBASkillsChallenge", "attend NBA skills challenge"),
        ("AssembleDesktopPC", "assemble desktop PC"),
        ("UseEpinephrineAuto-injector", "use epinephrine auto-injector"),
        ("MakeRJ45Cable", "make RJ45 cable"),
        ("PerformCPR", "perform CPR"),
        ("LubricateALock", "lubricate a lock"),
        ("InstallAirConditioner", "install air conditioner"),
        ("Sow", "sow"),
        ("make the  detergent", "make the detergent"),
        ("Watching/Reading/Looking at a book", "watching/reading/looking at a book"),
        ("a video with 2 people", "a video with 2 people"),
    ],
)
def test_readable(name, text):
    assert readable(name) == text


@given(st.text() | st.from_regex(r"[A-Za-z0-9_ -]{0,20}", fullmatch=True))
def test_readable_text_stays_as_it_is(name):
    once = readable(name)
    assert readable(once) == once
    assert "_" not in once
    assert once == " ".join(once.split())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), max_size=8))
def test_distinct_takes_the_plainest_spelling_that_is_one_label_only(labels):
    spellings = [(a, f"{a} ({b})", f"{a} ({b}, {i})") for i, (a, b) in enumerate(labels)]
    chosen = distinct(spellings)
    assert len(set(chosen)) == len(labels)
    for label, choice in zip(spellings, chosen, strict=True):
        for spelling in label[: label.index(choice)]:
            assert sum(spelling in other for other in spellings) > 1
