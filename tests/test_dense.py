"""Dense windows: which frames a clip is made of, and what a store has of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import write_video
from hypothesis import given
from hypothesis import strategies as st

from pcmci.cache.schema import Preprocessing, Sampling
from pcmci.cache.store import open_store
from pcmci.errors import UsageError, VideoError
from pcmci.extract.encode_files import encode_files
from pcmci.extract.encoders import load_video_encoder
from pcmci.extract.encoders.pace import native_stride
from pcmci.extract.encoders.preprocess import resize_and_crop
from pcmci.extract.video.decoding import Input, prepare_video
from pcmci.extract.video.frames import FrameReader, dense_indices, iter_frames, sample_indices

CLIP = 4
X3D = {
    "model_type": "x3d", "short_side": 36, "input_crop_size": 32, "input_clip_length": CLIP,
    "depth_factor": 0.5, "stem_dim_in": 4, "head_dim_out": 12,
}  # fmt: skip
SAMPLING = Sampling(frames=3, views=2)
PIXELS = Preprocessing(24, 16, "bilinear", (0.5,) * 3, (0.5,) * 3)


@given(
    count=st.integers(1, 5000), fps=st.floats(5, 60), clip=st.integers(2, 32),
    stride=st.integers(1, 32),
)  # fmt: skip
def test_a_clip_is_of_native_pace_around_its_frame_and_inside_the_video(count, fps, clip, stride):
    centres = sample_indices(count, 16)[0]
    found = dense_indices(centres, count, fps, clip, stride)
    assert found.shape == (16, clip)
    assert found.min() >= 0
    assert found.max() < count
    step = stride * fps / 30
    length = step * (clip - 1)
    if length <= count - 1:
        np.testing.assert_allclose(np.diff(found), step, atol=1)
        inside = (centres >= length / 2) & (centres <= count - 1 - length / 2)
        np.testing.assert_allclose(found.mean(1)[inside], centres[inside], atol=1)
    else:  # too short for one: every clip is the whole of it, and its last frame again
        assert (found == found[0]).all()
        assert (found[0, 0], found[0, -1]) == (0, count - 1)


def test_a_file_of_half_the_rate_has_half_as_many_frames_between():
    fast = dense_indices(np.array([300]), 600, 30.0, 16, 4)
    slow = dense_indices(np.array([150]), 300, 15.0, 16, 4)
    assert np.unique(np.diff(fast)).tolist() == [4]
    np.testing.assert_allclose(slow, fast / 2, atol=0.5)


def test_frames_without_times_are_refused_where_times_matter():
    assert dense_indices(np.array([0]), 1, 0.0, 4, 5).tolist() == [[0, 0, 0, 0]]
    with pytest.raises(VideoError, match="no times, which dense windows need"):
        dense_indices(np.array([0]), 2, 0.0, 4, 5)


def test_a_model_that_was_trained_on_no_pace_has_no_dense_windows():
    strides = {"x3d-s": 6, "x3d-m": 5, "videomae-base": 4, "timesformer-long": 4}
    assert {name: native_stride(name) for name in strides} == strides
    for name in ("vit-base", "videomamba-m", "timm:vit_tiny_patch16_224"):
        with pytest.raises(UsageError, match=f"--windows dense is not for {name}"):
            native_stride(name)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, frames=40, seed=0)
    return path


def test_clips_are_of_the_frames_that_a_whole_decode_has(film):
    """And those of an encoder with uniform windows are what they are without the other."""
    dense, uniform = Input(PIXELS, CLIP, stride=5), Input(PIXELS, 1)
    both = prepare_video(film, SAMPLING, {"dense": dense, "uniform": uniform})
    alone = prepare_video(film, SAMPLING, {"uniform": uniform})
    np.testing.assert_array_equal(both["uniform"], alone["uniform"])
    whole: dict[int, np.ndarray] = {}
    for places, frame in iter_frames(film, frames=40):
        whole |= {int(place): resize_and_crop(frame, PIXELS) for place in places}
    centres = sample_indices(40, SAMPLING.frames, SAMPLING.views).ravel()
    wanted = dense_indices(centres, 40, 10.0, CLIP, 5)
    assert both["dense"].shape == (6, CLIP, 16, 16, 3)
    expected = np.stack([[whole[k] for k in clip] for clip in wanted.tolist()])
    np.testing.assert_array_equal(both["dense"], expected)


def test_the_rate_of_a_file_is_by_the_times_of_its_frames(film):
    reader = FrameReader(film)
    list(reader.read(lambda count: np.array([0])))
    assert reader.fps == pytest.approx(10)


def test_a_store_of_dense_windows_has_the_mean_of_a_clip_around_each_frame(
    pcmci, tiny_encoders, film, tmp_path
):
    (tmp_path / "x3d.json").write_text(json.dumps(X3D))
    for kind in ("tea", "milk"):
        (tmp_path / "films" / kind).mkdir(parents=True)
        (tmp_path / "films" / kind / "a.mp4").symlink_to(film)
    flags = {**tiny_encoders, "video_encoder": tmp_path / "x3d.json", "video_weights": "random:0"}
    named = [f"--{key.replace('_', '-')}={value}" for key, value in flags.items()]

    def extract(frames, *more):
        return pcmci("extract", "--dataset", "folder", "--videos", tmp_path / "films", "--frames",
                     frames, "--follow-links", "--out", tmp_path / "x.zarr", *named,
                     *more)  # fmt: skip

    answer = extract(3)
    assert answer.code == 2
    assert "3 frames cannot be cut into the clips of 4" in answer.err
    answer = extract(3, "--windows", "dense")
    assert answer.code == 0, answer.err
    encoder = load_video_encoder(str(flags["video_encoder"]), "random:0", frames=CLIP)
    inputs = {"video": Input(encoder.spec.preprocessing, CLIP, stride=5)}
    clips = prepare_video(film, Sampling(3), inputs)["video"]
    oracle = torch.cat([encoder.encode(torch.from_numpy(clip[None])) for clip in clips]).mean(1)
    with open_store(tmp_path / "x.zarr") as store:
        spec = store.spec.video
        assert (spec.windows, spec.stride, spec.tokens) == ("dense", 5, 3)
        for features in store.read("video", view=0):
            np.testing.assert_array_equal(features, oracle.numpy().astype(np.float16))
        again, failures = encode_files([film], store.spec)
        np.testing.assert_array_equal(again["video"][0], store.read("video", [0], view=0)[0])
        assert not failures
    answer = extract(4)
    assert answer.code == 2
    assert "--windows dense" in answer.err
