"""Folders as people have them, through the command line: what is said, and what becomes of it."""

import shutil

import pytest
from conftest import write_video

from pcmci.cache.store import open_store


@pytest.fixture
def extract(pcmci, tiny_encoders, tmp_path):
    """`extract(films, *flags)` into one store."""
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in tiny_encoders.items()]

    def run(films, *more):
        return pcmci("extract", "--dataset", "folder", "--videos", films, "--frames", 8,
                     "--out", tmp_path / "x.zarr", *flags, *more)  # fmt: skip

    return run


def test_a_farm_of_links_from_the_first_note_to_one_video_more(extract, tmp_path):
    disk, farm, store = tmp_path / "disk", tmp_path / "farm", tmp_path / "x.zarr"
    for name in ("tea", "milk"):
        (disk / name).mkdir(parents=True)
        for index in range(2):
            write_video(disk / name / f"{index}.mp4", frames=10, seed=len(name) + index)
    (farm / "tea").mkdir(parents=True)
    (farm / "tea" / "program.ts").write_text("export const tea = 1;\n")
    (farm / "tea" / "list.txt").write_text("0.mp4")
    (farm / "milk").symlink_to(disk / "milk")
    for index in range(2):
        (farm / "tea" / f"{index}.mp4").symlink_to(disk / "tea" / f"{index}.mp4")

    answer = extract(farm)
    assert answer.code == 0, answer.err
    assert "3 symbolic links out of the folder not followed" in answer.err
    assert "--follow-links takes them" in answer.err
    assert "ONE CLASS ONLY, 'tea'" in answer.err
    shutil.rmtree(store)

    answer = extract(farm, "--follow-links")
    assert answer.code == 0, answer.err
    assert "1 files left out, for their names are no videos': 1 .txt: tea/list.txt" in answer.err
    assert "folders train and test above the classes, or a column split, choose it" in answer.err
    assert "failed: tea__program: not a video file: Invalid data found" in answer.out
    with open_store(store) as found:
        assert found.ids == ("milk__0", "milk__1", "tea__0", "tea__1", "tea__program")
        splits = [found.splits[row] for row in found.done_rows]
        assert {"train", "test"} == set(found.splits)
        assert "train" in splits
    assert extract(farm, "--follow-links").code == 0

    shutil.copy(disk / "tea" / "0.mp4", farm / "tea" / "new.mp4")
    answer = extract(farm, "--follow-links")
    assert answer.code == 2
    assert "1 video more, 0 fewer: tea__new." in answer.err
    assert "Name another --out, or replace it with --overwrite" in answer.err
    assert "sha256" not in answer.err


def test_one_class_is_said_again_where_heads_are_trained(extract, pcmci, tmp_path):
    films = tmp_path / "films"
    for split in ("Train", "Test"):
        (films / split / "tea").mkdir(parents=True)
        write_video(films / split / "tea" / "a.mp4", frames=10, seed=len(split))
    answer = extract(films)
    assert answer.code == 0
    assert "splits: 'Test' is read as test, 'Train' is read as train" in answer.err
    trained = pcmci("train-heads", "--features", tmp_path / "x.zarr", "--out", tmp_path / "runs",
                    "--order", "none", "--epochs", 1, "--feedforward", 16)  # fmt: skip
    assert "ONE CLASS ONLY, 'tea': whatever is predicted is right" in trained.err
