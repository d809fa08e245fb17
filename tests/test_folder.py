"""A folder of videos: with a table, with class folders, without labels."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmci.errors import AnnotationError, UsageError
from pcmci.extract.datasets import folder
from pcmci.extract.datasets.drawn_split import draw, drawn_split
from pcmci.extract.datasets.records import Video


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
    assert dataset.videos[0].split == drawn_split("a")
    assert any("no split given" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("../x.mp4,test,,\n", r":2: '\.\./x\.mp4' is no path of a file under"),
        ("/x.mp4,test,,\n", ":2: '/x.mp4' is no path"),
        ("..\\x.mp4,test,,\n", ":2: .* is no path"),
        ("a//x.mp4,test,,\n", ":2: .* is no path"),
        (",test,,\n", ":2: '' is no path"),
        (".x.mp4,test,,\n", ":2: .* is no path"),
        ("x.txt,test,,\n", r":2: 'x\.txt' is no video file; those end in \.avi"),
        ("x.mp4,mine,,\n", ":2: no split is called 'mine'; right would be train, val"),
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


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("split,steps\ntest,\n", r"labels\.csv:1: needs one column 'video'; there are split, st"),
        ("video,split\nx.mp4,test\n", r"labels\.csv:1: needs one column 'activity' or 'steps'"),
        ("video,split,Split,steps\nx.mp4,test,test,\n", "needs one column 'split'"),
        ("video,spilt,steps\nx.mp4,test,\n", "'spilt' is not read; should it be called 'split'?"),
        ("video,Subset,steps\nx.mp4,test,\n", "'Subset' .* should it be called 'split'?"),
        ("video,split,steps,class\nx.mp4,test,,tea\n", "'class' .* be called 'activity'?"),
        ("file,split,step\nx.mp4,test,\n", r"'file' .* 'video'\?; .*'step' .* 'steps'\?"),
        ("x.mp4,test,tea\n", "needs one column 'video'; there are x.mp4, test, tea"),
    ],
)
def test_a_header_that_will_not_do(table, message, tmp_path):
    fill(tmp_path, "x.mp4", labels=table)
    with pytest.raises(AnnotationError, match=message):
        parse(tmp_path)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    rows = "x.mp4,test,,\nx.mp4,test,,\ny.mp4,mine,,\nz.mp4,test\n../a.mp4,test,,\n"
    rows += "".join(f"b{i}.mp4,mine,,\n" for i in range(8))
    fill(tmp_path, "x.mp4", labels="video,split,activity,steps\n" + rows)
    with pytest.raises(AnnotationError) as error:
        parse(tmp_path)
    message = str(error.value)
    for line in (":3: video 'x'", ":4: no split", ":5: 2 values", ":6: '../a.mp4'", ":7: no sp"):
        assert line in message
    assert message.endswith("; and 2 more")


SPELLED = [
    'video;split;activity;steps\na/x.mp4;test;tea;"pour;stir"\ny.mp4;train;tea;pour\n',
    "video\tsplit\tactivity\tsteps\na/x.mp4\ttest\ttea\tpour;stir\ny.mp4\ttrain\ttea\tpour\n",
    "video|split|activity|steps\na/x.mp4|test|tea|pour;stir\ny.mp4|train|tea|pour\n",
    'sep=;\nvideo;split;activity;steps\na/x.mp4;test;tea;"pour;stir"\ny.mp4;train;tea;pour\n',
    " Video , SPLIT,Activity,steps \na/x.mp4,test,tea,pour;stir\ny.mp4,train,tea,pour\n",
    "split,steps,video,activity\nTEST,pour;stir,a/x.mp4,tea\nTraining,pour,y.mp4,tea\n",
    "# mine\n\nvideo,split,activity,steps\n,,,\na/x.mp4,test,tea,pour;stir\n#y\n"
    "y.mp4,train,tea,pour\n",
    "video,split,activity,steps,,\na/x.mp4,test,tea,pour;stir,,\ny.mp4,train,tea,pour,\n",
    "video,split,activity,steps\n./a/./x.mp4,test,tea,pour;stir\n./y.mp4,train,tea,pour\n",
    "video,split,activity,steps\na\\x.mp4,test,tea,pour;stir\n.\\y.mp4,train,tea,pour\n",
    "video,split,activity,steps\na/x,test,tea,pour;stir\ny,train,tea,pour\n",
    "video,split,activity,steps\n{root}/a/x.mp4,test,tea,pour;stir\n{root}/y.mp4,train,tea,pour\n",
    "video,split,activity,steps\r\na/x.mp4, test ,tea , pour ; stir\r\ny.mp4,train,tea,pour\r\n",
]


@pytest.mark.parametrize("table", SPELLED)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_means_the_same_however_it_is_spelled(table, encoding, tmp_path):
    fill(tmp_path, "a/x.mp4", "y.mp4")
    (tmp_path / "labels.csv").write_bytes(table.replace("{root}", str(tmp_path)).encode(encoding))
    dataset = parse(tmp_path)
    videos = {video.id: video for video in dataset.videos}
    assert {name: video.split for name, video in videos.items()} == {"a__x": "test", "y": "train"}
    assert videos["a__x"].path == tmp_path / "a" / "x.mp4"
    assert videos["y"].path == tmp_path / "y.mp4"
    assert dataset.activity.names == ("tea",)
    assert videos["a__x"].steps == ("pour", "stir")
    assert not any("drawn" in note for note in dataset.notes)


@pytest.mark.parametrize("start", ["sep=\r\n", "sep=\n", 'sep="\n', "sep=;"])
def test_a_first_line_that_names_no_separator(start, tmp_path):
    fill(tmp_path, "a.mp4", labels=start + "video,steps\na.mp4,pour\n")
    if start == "sep=;":  # the header itself
        with pytest.raises(AnnotationError, match="needs one column 'video'"):
            parse(tmp_path)
    else:
        assert parse(tmp_path).steps.names == ("pour",)


def test_columns_that_are_not_read_and_comments_are_named(tmp_path):
    table = (
        "video,split,steps,camera,,\n#x.mp4,test,pour,1,,\ny.mp4,test,pour,1,,\n#z.mp4,test,a,1,,\n"
    )
    dataset = parse(fill(tmp_path, "y.mp4", "#z.mp4", labels=table))
    assert [video.id for video in dataset.videos] == ["y", "#z"]  # there is a file of that name
    assert any("not read: camera" in note for note in dataset.notes)
    assert any(note.startswith("1 rows of") and "begin with #" in note for note in dataset.notes)


def test_a_name_that_differs_in_case_or_form_alone_is_found_with_a_note(tmp_path):
    composed, apart = "caf\u00e9.mp4", "cafe\u0301.mp4"
    table = f"video,split,steps\nTea/A.MP4,test,pour\n{apart},test,pour\nplain.mp4,train,pour\n"
    root = fill(tmp_path, "tea/a.mp4", composed, "plain.mp4", labels=table)
    dataset = parse(root)
    assert [video.path for video in dataset.videos] == [
        root / "tea" / "a.mp4", root / composed, root / "plain.mp4",
    ]  # fmt: skip
    # As spelled in the table: whether the file is there does not change what the video is called.
    assert [video.id for video in dataset.videos] == ["Tea__A", apart[:-4], "plain"]
    assert any(note.startswith("2 names differ") and "Tea/A.MP4 is tea/a.mp4" in note
               for note in dataset.notes)  # fmt: skip


@pytest.mark.parametrize(
    ("files", "rows", "message"),
    [
        (("a.mp4", "a.mkv"), "a,test,p\n", "'a' may be a.mkv or a.mp4"),
        (("a.mp4", "A.mp4"), "a.MP4,test,p\n", "'a.MP4' may be A.mp4 or a.mp4"),
        (("a.mp4",), "a.mp4,test,p\nA.mp4,test,p\n", ":3: 'A.mp4' is the file a.mp4, as at .*:2"),
        (("a.mp4",), "a.mp4,test,p\na,test,p\n", ":3: video 'a' is there already"),
        (("a.mp4",), "a.mp4,test,p\n./a.mp4,test,p\n", ":3: video 'a' is there already"),
    ],
)
def test_names_that_may_be_several_files(files, rows, message, tmp_path):
    fill(tmp_path, *files, labels="video,split,steps\n" + rows)
    with pytest.raises(AnnotationError, match=message):
        parse(tmp_path)


def test_a_name_without_suffix_whose_file_is_not_there_is_missing(tmp_path):
    dataset = parse(fill(tmp_path, "a.mp4", labels="video,split,steps\na,test,p\nb,test,p\n"))
    assert [(v.id, v.path) for v in dataset.videos] == [("a", tmp_path / "a.mp4"), ("b", None)]


def test_a_table_beside_a_folder_of_videos(tmp_path):
    root = fill(
        tmp_path, "videos/a.mp4", "videos/b.mp4", labels="video,split,steps\na.mp4,test,p\n"
    )
    (video,) = parse(root).videos
    assert (video.id, video.path) == ("a", root / "videos" / "a.mp4")


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
    assert any("1 symbolic links out of the folder" in note and "--follow-links" in note
               for note in dataset.notes)  # fmt: skip


def test_links_are_followed_where_that_is_asked_for(tmp_path):
    fill(tmp_path / "disk", "shelf/tea/a.mp4", "shelf/tea/b.mp4", "one.mp4")
    root = fill(tmp_path / "farm", "milk/c.mp4")
    (root / "tea").symlink_to(tmp_path / "disk" / "shelf" / "tea")
    (root / "milk" / "d.mp4").symlink_to(tmp_path / "disk" / "one.mp4")
    (root / "milk" / "again").symlink_to(root)  # a circle
    (root / "milk" / "lost.mp4").symlink_to(tmp_path / "nothing.mp4")
    dataset = folder.parse(root, root, follow_links=True)
    assert [(video.id, video.activity) for video in dataset.videos] == [
        ("milk__c", "milk"), ("milk__d", "milk"), ("tea__a", "tea"), ("tea__b", "tea"),
    ]  # fmt: skip
    assert any("lead back: milk/again" in note for note in dataset.notes)
    kept = folder.parse(root, root)
    assert [video.id for video in kept.videos] == ["milk__c"]
    assert any("out of the folder" in note and "milk/d.mp4" in note for note in kept.notes)
    assert any("to folders not followed: milk/again" in note for note in kept.notes)


def test_one_file_under_two_names_is_named(tmp_path):
    root = fill(tmp_path, "tea/a.mp4", "milk/b.mp4")
    (root / "milk" / "c.mp4").symlink_to(root / "tea" / "a.mp4")
    (root / "shelf").symlink_to(root / "milk")
    note = "under two names, by links: milk/c.mp4 and tea/a.mp4"
    assert any(note in one for one in parse(root).notes)
    assert any(
        one.startswith("3 files") and "milk/b.mp4 and shelf/b.mp4" in one
        for one in folder.parse(root, root, follow_links=True).notes
    )


@pytest.mark.parametrize("name", ["Labels.csv", "labels.tsv", "mine.xlsx"])
def test_a_table_that_is_not_read_is_named(name, tmp_path):
    dataset = parse(fill(tmp_path, "tea/a.mp4", "milk/b.mp4", name))
    assert any(f"{name}: not read for labels" in note for note in dataset.notes)


def test_folders_that_link_to_each_other_have_an_end(tmp_path):
    names = [f"f{i}" for i in range(6)]
    for name in names:
        fill(tmp_path, f"{name}/{name}.mp4")
        for other in names:
            if other != name:
                (tmp_path / name / other).symlink_to(tmp_path / other)
    tree = folder.VideoTree(tmp_path, follow_links=True)
    assert {f"{name}/{name}.mp4" for name in names} <= tree.files.keys()
    assert max(name.count("/") for name in tree.files) <= 6


def test_every_file_that_ffmpeg_opens_is_a_video_and_the_others_are_named(tmp_path):
    names = [f"tea/{i}{s}" for i, s in enumerate((".wmv", ".flv", ".MTS", ".3gp", ".ts", ".ogv",
                                                  ".gif", ".mp4", ".vob", ".rmvb"))]  # fmt: skip
    others = ["tea/n.txt", "tea/Thumbs.db", "tea/a.srt", "milk/a.jpg", "milk/README"]
    dataset = parse(fill(tmp_path, *names, "milk/b.mp4", *others))
    assert {str(video.path.relative_to(tmp_path)) for video in dataset.videos} == {
        *names, "milk/b.mp4",
    }  # fmt: skip
    (note,) = (note for note in dataset.notes if "names are no videos'" in note)
    assert note.startswith("5 files left out")
    for kind in ("1 .txt", "1 .db", "1 .srt", "1 .jpg", "1 without a suffix"):
        assert kind in note


def test_a_preview_beside_a_video_is_none(tmp_path):
    """Folders with both were read before `.gif` was a video's name: they mean the same still."""
    dataset = parse(fill(tmp_path, "tea/a.mp4", "tea/a.gif", "tea/b.gif", "milk/c.mp4"))
    assert [video.id for video in dataset.videos] == ["milk__c", "tea__a", "tea__b"]
    assert dataset.videos[1].path == tmp_path / "tea" / "a.mp4"
    assert any("1 files left out" in note and "tea/a.gif" in note for note in dataset.notes)


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


SPLIT_FOLDERS = [
    ("Train", "Test"), ("training", "testing"), ("TRAIN", "VALIDATION"), ("train", "dev"),
    ("train_set", "test_set"), ("TrainSet", "valid"), ("train data", "Val-Split"),
]  # fmt: skip
MEANT = {"tes": "test", "val": "val", "dev": "val"}


@pytest.mark.parametrize("inside", ["", "videos/", "Data/"])
@pytest.mark.parametrize(("one", "other"), SPLIT_FOLDERS)
def test_splits_in_any_spelling(one, other, inside, tmp_path):
    dataset = parse(fill(tmp_path, f"{inside}{one}/tea/a.mp4", f"{inside}{other}/milk/b.mp4"))
    found = {video.activity: video.split for video in dataset.videos}
    assert found == {"tea": "train", "milk": MEANT[other[:3].lower()]}
    assert any(f"'{one}' is read as train" in note for note in dataset.notes) == (one != "train")


def test_a_single_folder_of_videos_is_looked_through(tmp_path):
    dataset = parse(fill(tmp_path, "videos/tea/a.mp4", "videos/milk/b.mp4"))
    assert dataset.activity.names == ("milk", "tea")
    assert [video.id for video in dataset.videos] == ["videos__milk__b", "videos__tea__a"]


def test_one_folder_too_many_is_said_loudly(tmp_path):
    dataset = parse(fill(tmp_path, "kinetics/tea/a.mp4", "kinetics/milk/b.mp4"))
    (note,) = (note for note in dataset.notes if note.startswith("ONE CLASS ONLY"))
    assert "'kinetics'" in note
    assert note.endswith(f"--videos {tmp_path}/kinetics")
    (note,) = (n for n in parse(fill(tmp_path / "b", "tea/a.mp4")).notes if "ONE CLASS" in n)
    assert "--videos" not in note


def test_a_class_may_be_called_as_a_split(tmp_path):
    dataset = parse(fill(tmp_path, "training/a.mp4", "match/b.mp4"))
    assert dataset.activity.names == ("match", "training")
    assert any("training: taken for a class" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("tea/a.mp4", "b.mp4"), r"b\.mp4: lies in no class folder"),
        (("train/a.mp4", "test/tea/b.mp4"), r"train/a\.mp4: lies in no class folder"),
        (("train/a.mp4", "car/b.mp4"), r"train name splits, but car/b\.mp4 lies beside them"),
        (("train/tea/a.mp4", "b.mp4"), r"but b\.mp4 lies beside them"),
        (
            ("Train/tea/a.mp4", "Test/tea/b.mp4", "extra/c.mp4"),
            r"Test, Train name splits, but extra",
        ),
        (("tea/a.mp4", "b.mp4", "c.mp4"), r"b\.mp4, .*c\.mp4: lie in no class folder"),
        (("tea/a.mp4", "_/b.mp4"), r"the label '_' has no words"),
        (("tea/a.mp4", "tea/a.avi", "milk/b.mp4", "milk/b.mkv"), "'milk__b' .*'tea__a' is there"),
        (("tea/a.mp4", "tea/a.avi"), "video 'tea__a' is there already"),
        (("a__b.mp4", "a/b.mp4"), "video 'a__b' is there already"),
    ],
)
def test_folders_that_cannot_be_read_as_one_thing(names, message, tmp_path):
    with pytest.raises(AnnotationError, match=message):
        parse(fill(tmp_path, *names))


# labels


def test_labels_with_the_same_text_are_named(tmp_path):
    table = "video,split,activity,steps\n" + "".join(
        f"{i}.mp4,test,{activity},{steps}\n"
        for i, (activity, steps) in enumerate(
            [("Tea", "pour_milk"), ("tea", "pour milk;PourMilk"), ("caf\u00e9", "stir"),
             ("cafe\u0301", "nan"), ("None", ""), ("7", "")]
        )
    )  # fmt: skip
    dataset = parse(fill(tmp_path, "0.mp4", labels=table))
    assert len(dataset.activity) == 6, "none is merged"
    notes = "\n".join(dataset.notes)
    assert "activity: 'Tea' and 'tea' are 2 labels with the same text" in notes
    assert "steps: 'PourMilk' and 'pour milk' and 'pour_milk' are 3 labels" in notes
    assert notes.count("with the same text") == 3
    assert "activity: 'None' (1 videos) is taken for a label" in notes
    assert "steps: 'nan' (1 videos)" in notes
    assert "activity: 1 of 6 labels are numbers (7)" in notes


@pytest.mark.parametrize("row", ["x.mp4,test,_,\n", "x.mp4,test,tea,pour; _ ;stir\n"])
def test_a_label_without_words_is_an_error(row, tmp_path):
    fill(tmp_path, "x.mp4", labels="video,split,activity,steps\n" + row)
    with pytest.raises(AnnotationError, match=":2: the label '_' has no words"):
        parse(tmp_path)


def test_steps_between_commas_are_one_step_and_it_is_said(tmp_path):
    table = 'video,split,steps\nx.mp4,test,"pour,stir"\n'
    dataset = parse(fill(tmp_path, "x.mp4", labels=table))
    assert dataset.steps.names == ("pour,stir",)
    assert any("'pour,stir' is taken for one step" in note for note in dataset.notes)


def test_names_that_are_not_utf8_are_refused_in_words_that_can_be_written(tmp_path):
    for name in (b"tea/caf\xe9.mp4", b"caf\xe9/b.mp4"):
        path = os.fsencode(tmp_path) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "wb").close()
    with pytest.raises(AnnotationError) as error:
        parse(tmp_path)
    message = str(error.value)
    assert message.count("is not UTF-8; rename it") == 2
    assert "'tea__caf\\udce9'" in message


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


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 1000))
def test_no_side_of_a_drawn_split_is_empty_without_need(sizes, salt):
    videos = [
        Video(f"{salt}_{c}_{i}", None, "test", f"class {c}", ())
        for c, size in enumerate(sizes)
        for i in range(size)
    ]
    drawn, note = draw(videos)
    by_class = {}
    for video in drawn:
        by_class.setdefault(video.activity, []).append(video.split)
    for splits in by_class.values():
        assert "train" in splits or len(splits) == 1
    hashed = [drawn_split(video.id) for video in videos]
    if max(sizes) > 1:
        assert any("test" in splits for splits in by_class.values())
    fine = "test" in hashed and all(
        "train" in [s for v, s in zip(videos, hashed, strict=True) if v.activity == c] or len(x) < 2
        for c, x in by_class.items()
    )
    if fine:  # stores that were made with it are resumed
        assert [video.split for video in drawn] == hashed
        assert "moved" not in note
    assert draw(list(reversed(videos)))[0] == list(reversed(drawn))
    assert "a column split" in note
    assert ("NOTHING TO" in note) == (len({video.split for video in drawn}) < 2)


def test_about_a_fifth_is_drawn_for_the_test():
    share = sum(drawn_split(str(i)) == "test" for i in range(10_000)) / 10_000
    assert share == pytest.approx(0.2, abs=0.02)
