"""An extraction in this process: it encodes, processes of its own decode."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np

from pcmci.cache.schema import Sampling
from pcmci.errors import VideoError
from pcmci.extract.config import ExtractConfig
from pcmci.extract.intake import Intake, Summary
from pcmci.extract.pair import Encoders, Halves
from pcmci.extract.video.decoding import Decoders, Prepared

AHEAD = 4
"""Videos ahead of the encoders, a decoder, where there are several: with fewer one long video,
whose turn it is, leaves the other decoders without work."""


class Extraction:
    """Videos of a data set in this process: the main thread encodes, processes decode."""

    def __init__(self, config: ExtractConfig, encoders: Encoders, intake: Intake) -> None:
        self.encoders, self.intake = encoders, intake
        self.sampling = Sampling(config.frames, config.views)
        self.threads = encoders.decode_threads(config)
        self.decode_seconds, self.damaged = config.decode_seconds, config.damaged
        self.halves = Halves(encoders, self.sampling.views)

    def run(self, retry_failed: bool) -> Summary:
        pending = self.intake.pending(retry_failed)
        with self.intake.taking(pending, self.encoders.described(self.sampling)):
            self._encode_all(pending)
        return self.intake.summary

    def _encode_all(self, pending: list[int]) -> None:
        batchers = self.encoders.batchers()
        for row, decoded in self._decoded(pending):
            if isinstance(decoded, VideoError):
                self.intake.fail(row, str(decoded))
                continue
            if decoded.note:
                self.intake.notes[row] = decoded.note
            for name, clips in decoded.items():
                self._collect(name, batchers[name].push(row, clips))
        for name, batcher in batchers.items():
            self._collect(name, batcher.flush())

    def _decoded(self, pending: list[int]) -> Iterator[tuple[int, Prepared | VideoError]]:
        """Decoded videos in the order of their rows, a few ahead of the encoders."""
        todo, stop, summary = iter(pending), self.intake.stop, self.intake.summary
        most = 2 if self.threads == 1 else AHEAD * self.threads
        ahead: deque[tuple[int, Future[Prepared]]] = deque()
        with Decoders(
            self.threads, self.sampling, self.encoders.inputs, self.decode_seconds, self.damaged
        ) as decoders:
            while True:
                while len(ahead) < most and not stop.number:
                    if (row := next(todo, None)) is None:
                        break
                    path = self.intake.dataset.videos[row].path
                    assert path is not None  # `Intake.pending` recorded those as missing
                    ahead.append((row, decoders.submit(path)))
                if stop.number:  # what has begun is finished and stored
                    ahead = deque(one for one in ahead if not one[1].cancel())
                if not ahead:
                    return
                row, task = ahead.popleft()
                waiting = time.perf_counter()
                error = task.exception()
                summary.waiting += time.perf_counter() - waiting
                if error is None:
                    yield row, task.result()
                elif isinstance(error, VideoError):
                    yield row, error
                else:
                    raise error

    def _collect(self, name: str, finished: Iterator[tuple[int, np.ndarray]]) -> None:
        for row, features in self.halves.join(name, finished):
            self.intake.take(row, **features)
