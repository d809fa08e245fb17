"""An extraction in this process: it encodes, processes of its own decode."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from pcmci.cache.schema import Sampling
from pcmci.errors import VideoError
from pcmci.extract.ahead import decoded
from pcmci.extract.config import ExtractConfig
from pcmci.extract.intake import Intake, Summary
from pcmci.extract.lanes import Lanes
from pcmci.extract.pair import Encoders, Halves
from pcmci.extract.video.decoding import Decoders, Prepared


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
        how = self.encoders.described(self.sampling)
        with self.intake.taking(pending, how), self.encoders.lanes() as lanes:
            self._encode_all(pending, lanes)
        return self.intake.summary

    def _encode_all(self, pending: list[int], lanes: Lanes | None) -> None:
        batchers = self.encoders.batchers(lanes)
        for row, found in self._decoded(pending, lanes):
            if isinstance(found, VideoError):
                self.intake.fail(row, str(found))
                continue
            if found.note:
                self.intake.notes[row] = found.note
            for name, clips in found.items():
                self._collect(name, batchers[name].push(row, clips))
        for name, batcher in batchers.items():
            self._collect(name, batcher.flush())

    def _decoded(
        self, pending: list[int], lanes: Lanes | None
    ) -> Iterator[tuple[int, Prepared | VideoError]]:
        def waited(seconds: float) -> None:
            # what was in flight was encoded meanwhile
            idle = lanes.idle(time.perf_counter() - seconds) if lanes else seconds
            self.intake.waited(idle)

        with Decoders(
            self.threads, self.sampling, self.encoders.inputs, self.decode_seconds, self.damaged
        ) as decoders:
            yield from decoded(decoders, pending, self.intake.place, self.intake.stop, waited)

    def _collect(self, name: str, finished: Iterator[tuple[int, np.ndarray]]) -> None:
        for row, features in self.halves.join(name, finished):
            self.intake.take(row, **features)
