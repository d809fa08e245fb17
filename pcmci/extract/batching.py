"""Clips of many videos in batches of one fixed shape, and their features back to their videos."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch

from pcmci.extract.encoders.protocol import Encoder
from pcmci.extract.lanes import Lanes


@dataclass
class _Video:
    row: int
    features: np.ndarray
    outstanding: int


@dataclass
class _Flight:
    """A batch that is being encoded. features: on the CPU, there when `done` has come about."""

    features: torch.Tensor | Future[torch.Tensor]
    done: torch.cuda.Event | None
    places: list[tuple[_Video, int]]

    def wait(self) -> torch.Tensor:
        """The features, once they are there."""
        if self.done is not None:
            self.done.synchronize()
        if isinstance(self.features, Future):
            return self.features.result()
        return self.features


@dataclass
class Batcher:
    """Batches that cross the borders of videos, for one encoder.

    Every batch has the same shape; the last is filled up with black frames. A sample's bits are
    then those of its own pixels, whoever shares its batch, and a resumed extraction ends with the
    bits of an undisturbed one.

    On CUDA one batch is always in flight: a batch's frames travel while the one before it is
    encoded, and nothing waits for it but the collecting of its own features. lanes: encode as many
    batches at a time on a CPU; None: one, in the caller's thread.
    """

    encoder: Encoder
    batch_clips: int
    device: torch.device
    lanes: Lanes | None = None
    _waiting: deque[tuple[_Video, int, np.ndarray]] = field(default_factory=deque)
    _in_flight: deque[_Flight] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._uploads = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def push(self, row: int, clips: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Take the clips [C, F, S, S, 3] uint8 of a video; yields (row, features
        [C, clip_tokens, width] float32) of every video that got complete by it."""
        shape = (len(clips), self.encoder.clip_tokens, self.encoder.spec.width)
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
        shape = (self.batch_clips, *taken[0][2].shape)
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=cuda)
        for place, (_, _, clip) in enumerate(taken):
            batch[place] = torch.from_numpy(clip)
        batch[len(taken) :] = 0
        features: torch.Tensor | Future[torch.Tensor]
        done, ahead = None, 0
        if cuda:
            (features, done), ahead = self._launch(batch), 1
        elif self.lanes is not None:
            features, ahead = self.lanes.submit(self.encoder.encode, batch), self.lanes.count
        else:
            features = self.encoder.encode(batch)
        places = [(video, index) for video, index, _ in taken]
        self._in_flight.append(_Flight(features, done, places))
        while len(self._in_flight) > ahead:
            yield from self._collect()

    def _launch(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event]:
        """A pinned batch to its features in pinned memory, and the event that says they are there.

        The way back is launched right behind the encoding: what is launched later (the next batch)
        would have to be waited for otherwise, for a stream does one thing after the other.
        """
        assert self._uploads is not None
        encoding = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._uploads):
            frames = batch.to(self.device, non_blocking=True)
        encoding.wait_stream(self._uploads)
        frames.record_stream(encoding)  # its memory must not go to the next upload before
        found = self.encoder.encode(frames)
        features = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        features.copy_(found, non_blocking=True)
        done = torch.cuda.Event()
        done.record(encoding)
        return features, done

    def _collect(self) -> Iterator[tuple[int, np.ndarray]]:
        flight = self._in_flight.popleft()
        for (video, index), value in zip(flight.places, flight.wait().numpy(), strict=False):
            video.features[index] = value
            video.outstanding -= 1
            if video.outstanding == 0:
                yield video.row, video.features
