"""Batches across videos give every video its own features back."""

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pcmci.extract.batching import Batcher
from pcmci.extract.lanes import Lanes


class MeanEncoder:
    """Two layers instead of weights: each frame's mean, and the mean of its clip."""

    clip_frames = clip_tokens = 2

    class spec:
        width = 2

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def encode(self, clips):
        self.shapes.append(tuple(clips.shape))
        frames = clips.float().flatten(2).mean(2)
        return torch.stack([frames, frames.mean(1, keepdim=True).expand_as(frames)], dim=2)


class PairEncoder(MeanEncoder):
    """One token of two frames."""

    clip_tokens = 1

    def encode(self, clips):
        return super().encode(clips).mean(1, keepdim=True)


def films(counts):
    rng = np.random.default_rng(0)
    return {
        row: rng.integers(0, 256, (clips, 2, 4, 4, 3), dtype=np.uint8)
        for row, clips in enumerate(counts)
    }


def run(batch_clips, videos, encoder=None):
    encoder = encoder or MeanEncoder()
    batcher = Batcher(encoder, batch_clips, torch.device("cpu"))
    finished = [item for row, clips in videos.items() for item in batcher.push(row, clips)]
    return encoder, finished + list(batcher.flush())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 7))
def test_every_video_gets_its_own_features_once(counts, batch_clips):
    videos = films(counts)
    _, finished = run(batch_clips, videos)
    assert sorted(row for row, _ in finished) == sorted(videos)
    for row, features in finished:
        expected = MeanEncoder().encode(torch.from_numpy(videos[row])).numpy()
        np.testing.assert_array_equal(features, expected)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 7))
def test_every_batch_has_the_same_shape_and_none_is_spare(counts, batch_clips):
    encoder, _ = run(batch_clips, films(counts))
    assert set(encoder.shapes) == {(batch_clips, 2, 4, 4, 3)}
    assert len(encoder.shapes) == -(-sum(counts) // batch_clips)


def test_a_clip_may_become_fewer_tokens_than_it_has_frames():
    videos = films([2, 5, 1, 4])
    _, finished = run(3, videos, PairEncoder())
    for row, features in finished:
        assert features.shape == (len(videos[row]), 1, 2)
        expected = PairEncoder().encode(torch.from_numpy(videos[row])).numpy()
        np.testing.assert_array_equal(features, expected)


def test_videos_are_finished_in_the_order_they_came():
    _, finished = run(3, films([2, 5, 1, 4]))
    assert [row for row, _ in finished] == [0, 1, 2, 3]


def test_lanes_encode_side_by_side_and_change_nothing():
    videos = films([2, 5, 1, 4])
    together = threading.Barrier(2, timeout=60)  # a batch alone would wait there for ever

    class Meeting(MeanEncoder):
        def encode(self, clips):
            together.wait()
            assert torch.get_num_threads() == 1
            return super().encode(clips)

    before = torch.get_num_threads()
    with Lanes(2) as lanes:
        batcher = Batcher(Meeting(), 2, torch.device("cpu"), lanes)
        finished = [item for row, clips in videos.items() for item in batcher.push(row, clips)]
        finished += list(batcher.flush())
    assert torch.get_num_threads() == before
    _, expected = run(2, videos)
    assert [row for row, _ in finished] == [row for row, _ in expected]
    for (_, features), (_, same) in zip(finished, expected, strict=True):
        np.testing.assert_array_equal(features, same)


def test_an_error_in_a_lane_comes_out():
    class Broken(MeanEncoder):
        def encode(self, clips):
            raise RuntimeError("of the encoder")

    with Lanes(2) as lanes:
        batcher = Batcher(Broken(), 2, torch.device("cpu"), lanes)
        list(batcher.push(0, films([2])[0]))
        with pytest.raises(RuntimeError, match="of the encoder"):
            list(batcher.flush())


def test_lanes_are_idle_only_where_none_encodes():
    began, goes_on = time.perf_counter(), threading.Event()

    def encode(batch):
        goes_on.wait(60)
        return batch

    with Lanes(2) as lanes:
        assert lanes.idle(began) > 0
        task = lanes.submit(encode, torch.zeros(1))
        assert lanes.idle(began) == 0
        goes_on.set()
        task.result()
    assert 0 <= lanes.idle(began) < time.perf_counter() - began


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_one_batch_in_flight_changes_nothing():
    videos = films([3, 1, 4])
    batcher = Batcher(MeanEncoder(), 2, torch.device("cuda"))
    finished = [item for row, clips in videos.items() for item in batcher.push(row, clips)]
    for row, features in finished + list(batcher.flush()):
        expected = MeanEncoder().encode(torch.from_numpy(videos[row])).numpy()
        np.testing.assert_allclose(features, expected, rtol=1e-5)
