"""Clips of many videos in batches of one fixed shape, and their features back to their videos."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from pcmci.extract.encoders.protocol import Encoder


@dataclass
class _Video:
    row: int
    features: np.ndarray
    outstanding: int


@dataclass
class Batcher:
    """Batches that cross the borders of videos, for one encoder.

    Every batch has the same shape; the last is filled up with black frames. A sample's bits are
    then those of its own pixels, whoever shares its batch, and a resumed extraction ends with the
    bits of an undisturbed one.

    On CUDA one batch is always in flight: its results are fetched when the next was launched.
    """

    encoder: Encoder
    batch_clips: int
    device: torch.device
    _waiting: deque[tuple[_Video, int, np.ndarray]] = field(default_factory=deque)
    _in_flight: deque[tuple[torch.Tensor, list[tuple[_Video, int]]]] = field(default_factory=deque)

    def push(self, row: int, clips: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Take the clips [C, F, S, S, 3] uint8 of a video; yields (row, features [C, F, width]
        float32) of every video that got complete by it."""
        shape = (len(clips), self.encoder.clip_frames, self.encoder.spec.width)
        video = _Video(row, np.empty(shape, np.float32), len(clips))
        self._waiting.extend((video, index, clip) for index, clip in enumerate(clips))
        while len(self._waiting) >= self.batch_clips:
            yield from self._encode()

    def flush(self) -> Iterator[tuple[int, np.ndarray]]:
        """Encode what is left; yields as `push` does."""
        while self._waiting:
            yield from self._encode()
        while self._in_flight:
            yield from self._collect()

    def _encode(self) -> Iterator[tuple[int, np.ndarray]]:
        taken = [self._waiting.popleft() for _ in range(min(self.batch_clips, len(self._waiting)))]
        cuda = self.device.type == "cuda"
        batch = torch.zeros(
            (self.batch_clips, *taken[0][2].shape), dtype=torch.uint8, pin_memory=cuda
        )
        for place, (_, _, clip) in enumerate(taken):
            batch[place] = torch.from_numpy(clip)
        features = self.encoder.encode(batch.to(self.device, non_blocking=cuda))
        self._in_flight.append((features, [(video, index) for video, index, _ in taken]))
        while len(self._in_flight) > (1 if cuda else 0):
            yield from self._collect()

    def _collect(self) -> Iterator[tuple[int, np.ndarray]]:
        on_device, places = self._in_flight.popleft()
        features = on_device.cpu().numpy()
        for (video, index), value in zip(places, features, strict=False):
            video.features[index] = value
            video.outstanding -= 1
            if video.outstanding == 0:
                yield video.row, video.features
