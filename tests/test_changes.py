"""What a user is told where a store is not the one that is asked for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from store_contract import make_spec, make_table, make_text

from pcmci.cache.schema import LabelSet, StoreSpec, VideoTable
from pcmci.cache.store import check_same, create_store
from pcmci.errors import SpecMismatch

TABLE = make_table(8)
SPEC = make_spec(TABLE)


def rows(table: VideoTable, keep: list[int]) -> VideoTable:
    columns = {
        name: tuple(getattr(table, name)[k] for k in keep)
        for name in ("ids", "splits", "sessions", "groups")
    }
    return VideoTable(**columns, activity=table.activity[keep], steps=table.steps[keep])


def said(spec: StoreSpec, table: VideoTable = TABLE) -> str:
    """Of a store of eight videos."""
    spec = dataclasses.replace(spec, videos_sha256=table.digest())
    with pytest.raises(SpecMismatch) as error:
        check_same("x.zarr", SPEC, spec, (TABLE, table))
    assert error.value.exit_code == 2
    message = str(error.value)
    assert "sha256" not in message
    assert "--out" in message
    assert "--overwrite" in message
    return message


def test_the_same_is_no_mismatch() -> None:
    check_same("x.zarr", SPEC, SPEC, (TABLE, TABLE))
    check_same("x.zarr", SPEC, SPEC)


def test_videos_that_came_or_went_are_named() -> None:
    last = "vidéo-7"
    fewer = said(SPEC, rows(TABLE, list(range(7))))
    assert f"0 videos more, 1 fewer: {last}." in fewer
    assert "fixed when it is made" in fewer
    small = rows(TABLE, list(range(7)))
    with pytest.raises(SpecMismatch, match=f"1 video more, 0 fewer: {last}"):
        check_same("x.zarr", make_spec(small), SPEC, (small, TABLE))
    renamed = dataclasses.replace(TABLE, ids=("new", *TABLE.ids[1:]))
    assert "1 video more (new), 1 fewer (vidéo-0)" in said(SPEC, renamed)
    assert "0 videos more, 6 fewer: vidéo-2, vidéo-3, vidéo-4 and 3 more" in said(
        SPEC, rows(TABLE, [0, 1])
    )


def test_videos_that_changed_are_named() -> None:
    moved = dataclasses.replace(TABLE, splits=("val", *TABLE.splits[1:]))
    assert "1 in another split: vidéo-0 (train, now val)" in said(SPEC, moved)
    activity = TABLE.activity.copy()
    activity[3] = (activity[3] + 2) % 3 - 1
    assert "1 with other labels: vidéo-3" in said(
        SPEC, dataclasses.replace(TABLE, activity=activity)
    )
    assert "in another order" in said(SPEC, rows(TABLE, [1, 0, *range(2, 8)]))
    grouped = dataclasses.replace(TABLE, groups=TABLE.ids)
    assert "grouped otherwise" in said(SPEC, grouped)


def test_labels_that_came_are_named_and_move_no_other() -> None:
    """A new first label changes every number, and no video's label."""
    names = ("coffee", "tea", "toast")
    spec = dataclasses.replace(SPEC, activity=LabelSet(names, names, "a video of {}"))
    activity = np.where(TABLE.activity < 0, -1, TABLE.activity + 1).astype(np.int32)
    message = said(spec, dataclasses.replace(TABLE, activity=activity))
    assert "activity: 1 label more, 0 fewer: coffee" in message
    assert "with other labels" not in message
    texts = LabelSet(("tea", "toast"), ("tea", "toasted bread"), "a video of {}")
    assert "activity: the same labels with another text" in said(
        dataclasses.replace(SPEC, activity=texts)
    )


def test_settings_are_named_with_the_flags_that_ask_for_them_again() -> None:
    vlm = dataclasses.replace(SPEC.vlm, name="resnet", sha256="ef" * 32, width=9, tokens=7)
    message = said(dataclasses.replace(SPEC, vlm=vlm, precision="bf16"))
    assert "vlm.name: the store has 'clip', asked for 'resnet'" in message
    assert "width" not in message, "it follows from the name"
    assert "(--vlm clip --vlm-weights random:0 --precision float32)" in message
    video = dataclasses.replace(SPEC.video, weights="random:1", sha256="ef" * 32)
    sampling = dataclasses.replace(SPEC.sampling, frames=16)
    message = said(dataclasses.replace(SPEC, video=video, sampling=sampling))
    assert "video.weights: the store has 'random:0', asked for 'random:1'" in message
    assert "(--frames 4 --video-weights random:0)" in message
    same_name = dataclasses.replace(SPEC.video, sha256="ef" * 32)
    assert "'random:0' are others than those" in said(dataclasses.replace(SPEC, video=same_name))


def test_a_store_that_is_there_says_so(tmp_path) -> None:
    path = tmp_path / "x.zarr"
    small = rows(TABLE, list(range(7)))
    create_store(path, make_spec(small), small, make_text(make_spec(small)))
    with pytest.raises(SpecMismatch, match="1 video more, 0 fewer: vidéo-7"):
        create_store(path, SPEC, TABLE, make_text(SPEC))
