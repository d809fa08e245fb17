"""A folder of videos: with a table, with class folders, without labels."""

from pathlib import Path

import pytest

from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets import folder


def fill(root: Path, *names: str, labels: str | None = None) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if labels is not None:
        (root / "labels.csv").write_text(labels)
    return root


def parse(root: Path):
    return folder.parse(root, root)


def shown(dataset):
    return [(video.id, video.split, video.activity) for video in dataset.videos]


# with a table


def test_table(tmp_path):
    table = (
        "video,split,activity,steps\n"
        "b/x.mp4,test,MakeTea,pour;stir ; pour;\n"
        "y.mkv,shift-light,MakeTea,\n"
        "a.avi,train,,stir\n"
        "gone.mp4,val,BrewCoffee,\n"
    )
    root = fill(tmp_path, "b/x.mp4", "y.mkv", "a.avi", "other.mp4", labels=table)
    dataset = parse(root)
    assert shown(dataset) == [
        ("b__x", "test", "MakeTea"),
        ("y", "shift-light", "MakeTea"),
        ("a", "train", None),
        ("gone", "val", "BrewCoffee"),
    ]
    assert dataset.videos[0].path == root / "b" / "x.mp4"
    assert dataset.videos[0].steps == ("pour", "stir")
    assert dataset.videos[3].path is None
    assert dataset.activity.names == ("BrewCoffee", "MakeTea")
    assert dataset.activity.prompts == ("a video of brew coffee", "a video of make tea")
    assert dataset.steps.names == ("pour", "stir")
    assert any("1 video files left out" in note and "other.mp4" in note for note in dataset.notes)


def test_the_table_may_lie_elsewhere_and_say_less(tmp_path):
    root = fill(tmp_path / "videos", "a.mp4", labels="video,activity,steps\nnone.mp4,,\n")
    table = tmp_path / "mine.csv"
    table.write_text("video,activity,steps\na.mp4,,pour\n")
    dataset = folder.parse(root, table)
    assert dataset.activity is None
    assert dataset.steps.names == ("pour",)
    assert dataset.videos[0].split == folder._drawn_split("a")
    assert any("no split given" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("../x.mp4,test,,\n", r":2: '\.\./x\.mp4' is no path of a file under"),
        ("/x.mp4,test,,\n", ":2: '/x.mp4' is no path"),
        ("a\\x.mp4,test,,\n", ":2: .* is no path"),
        ("a//x.mp4,test,,\n", ":2: .* is no path"),
        (",test,,\n", ":2: '' is no path"),
        (".x.mp4,test,,\n", ":2: .* is no path"),
        ("x.txt,test,,\n", r":2: 'x\.txt' is no video file; those end in \.avi"),
        ("x.mp4,dev,,\n", ":2: no split is called 'dev'; right would be train, val"),
        ("x.mp4,,,\n", ":2: no split is called ''"),
        ("x.mp4,shift-,,\n", ":2: no split is called 'shift-'"),
        ("x.mp4,test,a\0b,\n", ":2: the label .* has control characters"),
        ("x.mp4,test,,\nx.mp4,test,,\n", ":3: video 'x' is there already, at .*:2"),
        ("a__x.mp4,test,,\na/x.mkv,test,,\n", ":3: video 'a__x' is there already"),
        ("x.mp4,test\n", ":2: 2 values, but the header has 4"),
        ("", "names no video"),
    ],
)
def test_broken_tables(rows, message, tmp_path):
    fill(tmp_path, "x.mp4", labels="video,split,activity,steps\n" + rows)
    with pytest.raises(AnnotationError, match=message):
        parse(tmp_path)


def test_a_missing_column(tmp_path):
    fill(tmp_path, "x.mp4", labels="video,split,steps\nx.mp4,test,\n")
    with pytest.raises(AnnotationError, match=r"labels\.csv:1: needs one column 'activity'"):
        parse(tmp_path)


def test_a_table_without_any_of_its_videos(tmp_path):
    fill(tmp_path, "y.mp4", labels="video,split,activity,steps\nx.mp4,test,,\n")
    with pytest.raises(UsageError, match=r"none of the 1 .*/x\.mp4; --videos"):
        parse(tmp_path)


def test_a_file_with_another_suffix_is_another_file(tmp_path):
    table = "video,split,activity,steps\nx.mp4,test,,\ny.mp4,test,,\n"
    dataset = parse(fill(tmp_path, "x.avi", "y.mp4", labels=table))
    assert [video.path for video in dataset.videos] == [None, tmp_path / "y.mp4"]


def test_a_link_out_of_the_folder_is_missing(tmp_path):
    fill(tmp_path, "secret.mp4")
    table = "video,split,activity,steps\nx.mp4,test,,\ny.mp4,test,,\n"
    root = fill(tmp_path / "videos", "y.mp4", labels=table)
    (root / "x.mp4").symlink_to(tmp_path / "secret.mp4")
    dataset = parse(root)
    assert [video.path for video in dataset.videos] == [None, root / "y.mp4"]
    assert any("1 symbolic links out of the folder" in note for note in dataset.notes)


# with class folders


def test_class_folders(tmp_path):
    dataset = parse(fill(tmp_path, "tea/a.mp4", "tea/more/b.mp4", "make_coffee/a.mp4", "tea/n.txt"))
    assert [(video.id, video.activity) for video in dataset.videos] == [
        ("make_coffee__a", "make_coffee"),
        ("tea__a", "tea"),
        ("tea__more__b", "tea"),
    ]
    assert dataset.activity.texts == ("make coffee", "tea")
    assert dataset.steps is None
    assert {video.split for video in dataset.videos} <= {"train", "test"}
    assert any("no split given" in note for note in dataset.notes)


def test_split_folders_above_the_classes(tmp_path):
    dataset = parse(fill(tmp_path, "train/tea/a.mp4", "val/tea/a.mp4", "shift-1/milk/c.mp4"))
    assert shown(dataset) == [
        ("shift-1__milk__c", "shift-1", "milk"),
        ("train__tea__a", "train", "tea"),
        ("val__tea__a", "val", "tea"),
    ]
    assert dataset.notes == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("tea/a.mp4", "b.mp4"), r"b\.mp4: lies in no class folder"),
        (("train/a.mp4", "test/tea/b.mp4"), r"train/a\.mp4: lies in no class folder"),
        (("train/a.mp4", "car/b.mp4"), r"train name splits, but car/b\.mp4 lies beside them"),
        (("train/tea/a.mp4", "b.mp4"), r"but b\.mp4 lies beside them"),
        (("tea/a.mp4", "tea/a.avi"), "video 'tea__a' is there already"),
        (("a__b.mp4", "a/b.mp4"), "video 'a__b' is there already"),
    ],
)
def test_folders_that_cannot_be_read_as_one_thing(names, message, tmp_path):
    with pytest.raises(AnnotationError, match=message):
        parse(fill(tmp_path, *names))


# without labels


def test_no_labels(tmp_path):
    dataset = parse(fill(tmp_path, "b.mp4", "a.mov", ".hidden.mp4"))
    assert shown(dataset) == [("a", "test", None), ("b", "test", None)]
    assert (dataset.activity, dataset.steps) == (None, None)
    assert any("no labels" in note for note in dataset.notes)


def test_no_videos(tmp_path):
    with pytest.raises(UsageError, match="no video is under"):
        parse(fill(tmp_path, "readme.txt"))


# the drawn split


def test_another_video_does_not_move_those_that_were_there(tmp_path):
    names = [f"tea/{i}.mp4" for i in range(40)]
    before = {video.id: video.split for video in parse(fill(tmp_path, *names)).videos}
    after = {video.id: video.split for video in parse(fill(tmp_path, "tea/new.mp4")).videos}
    assert after.items() > before.items()


def test_about_a_fifth_is_drawn_for_the_test():
    share = sum(folder._drawn_split(str(i)) == "test" for i in range(10_000)) / 10_000
    assert share == pytest.approx(0.2, abs=0.02)
