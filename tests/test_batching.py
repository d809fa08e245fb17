"""Batches across videos give every video its own features back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pcmci.extract.batching import Batcher


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_one_batch_in_flight_changes_nothing():
    videos = films([3, 1, 4])
    batcher = Batcher(MeanEncoder(), 2, torch.device("cuda"))
    finished = [item for row, clips in videos.items() for item in batcher.push(row, clips)]
    for row, features in finished + list(batcher.flush()):
        expected = MeanEncoder().encode(torch.from_numpy(videos[row])).numpy()
        np.testing.assert_allclose(features, expected, rtol=1e-5)
