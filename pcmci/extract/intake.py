"""Where features arrive, whoever computed them: one writer, one bar, one count of failures."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from pcmci.cache.schema import Status
from pcmci.cache.writer import StoreWriter
from pcmci.errors import VideoError
from pcmci.extract.datasets.records import Dataset
from pcmci.plain import plain
from pcmci.stopping import Stop, StoppedError, stop_signals

WRITES_AHEAD = 8
"""Videos that may wait to be written; a disk that is slower than that is waited for."""


@dataclass
class WorkerSummary:
    """What one worker of a cluster did. videos: encoded. seconds: from when it could work to what
    it did last; busy: of these, in which it encoded. deaths: of its processes. note: that it died,
    left, or got no work."""

    videos: int = 0
    failures: int = 0
    deaths: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    note: str = ""

    @property
    def waiting(self) -> float:
        """Seconds in which its encoders waited, for frames or for tasks."""
        return max(0.0, self.seconds - self.busy)


@dataclass
class Summary:
    """How an extraction ended.

    counts: videos by status, over the whole store. failures: id -> reason, of this run.
    seconds: of decoding and encoding. waiting: seconds in which encoders waited for frames, of all
    workers together. videos, frames: encoded in this run. workers: of a cluster, by name.
    """

    counts: dict[Status, int]
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    waiting: float = 0.0
    videos: int = 0
    frames: int = 0
    workers: dict[str, WorkerSummary] = field(default_factory=dict)

    def waiting_share(self, seconds: float) -> float:
        """Of the time of all that encoded: on a cluster the workers' own, else `seconds`."""
        return self.waiting / (sum(one.seconds for one in self.workers.values()) or seconds)


class Intake:
    """Takes what became of each video, in any order, and hands it to the store's one writer.

    writer: the store's. frames: of a video, all views together.
    """

    def __init__(self, dataset: Dataset, writer: StoreWriter, progress: bool) -> None:
        self.dataset, self.writer, self.progress = dataset, writer, progress
        sampling = writer.spec.sampling
        self.frames = sampling.views * sampling.frames
        self.summary = Summary(counts={})
        self.stop = Stop()
        self._writes: deque[Future[None]] = deque()

    def pending(self, retry_failed: bool) -> list[int]:
        """Rows to do. What was missing and is there now is to do; what is not there is missing."""
        videos, writer = self.dataset.videos, self.writer
        found = [row for row in writer.rows(Status.MISSING) if videos[row].path is not None]
        writer.reset(found)
        if retry_failed:
            writer.reset(writer.rows(Status.FAILED))
        for row in writer.pending:
            if videos[row].path is None:
                writer.missing(row, "not on disk")
        return [int(row) for row in writer.pending]

    def say(self, line: str) -> None:
        """A line above the bar, unless progress is not wanted."""
        if self.progress:
            tqdm.write(plain(line), file=sys.stderr)

    @contextlib.contextmanager
    def taking(self, pending: list[int], how: str) -> Iterator[None]:
        """The work itself stands inside; all that was taken is written when the block has ended.

        how: a line for the user about who computes. Raises StoppedError after SIGINT or SIGTERM,
        which `stop` tells inside.
        """
        counts, began = self.writer.counts, time.perf_counter()
        self.say(how)
        self.say(
            f"{self.dataset.name}: {counts[Status.DONE]} videos done, {len(pending)} to do, "
            f"{counts[Status.MISSING]} missing, {counts[Status.FAILED]} failed before"
        )
        with stop_signals() as self.stop, ThreadPoolExecutor(1) as self._thread:
            with self._bar(len(pending)) as self.bar:
                yield
            while self._writes:
                self._writes.popleft().result()
        self.summary.seconds = time.perf_counter() - began
        self.summary.counts = self.writer.counts
        if self.stop.number:
            left = len(self.writer.pending)
            raise StoppedError(
                self.stop.number, f"{left} videos are left: the same command goes on from here"
            )

    def take(self, row: int, vlm: np.ndarray, video: np.ndarray) -> None:
        """A video's features, [views, L, D] and [views, Lv, Dv]."""

        def put() -> None:
            try:
                self.writer.put(row, vlm, video)
            except VideoError as error:  # not finite, or too large for float16
                self.writer.fail(row, str(error))
                self.summary.failures[self.dataset.videos[row].id] = str(error)

        self._later(put)
        self.summary.videos += 1
        self.summary.frames += self.frames
        self._advance()

    def fail(self, row: int, reason: str) -> None:
        """A video that has no features, and why."""
        self.summary.failures[self.dataset.videos[row].id] = reason
        self._later(lambda: self.writer.fail(row, reason))
        self._advance()

    def _later(self, write: Any) -> None:
        """Hand a write to the writing thread; wait when it falls behind, raise what it raised."""
        self._writes.append(self._thread.submit(write))
        while len(self._writes) > WRITES_AHEAD or (self._writes and self._writes[0].done()):
            self._writes.popleft().result()

    def _bar(self, total: int) -> Any:
        # In a job's log a line every half minute is enough.
        interval = 0.1 if sys.stderr.isatty() else 30
        return tqdm(
            total=total, desc="extract", unit="video", disable=not self.progress or not total,
            mininterval=interval,
        )  # fmt: skip

    def _advance(self) -> None:
        self.bar.update()
        seconds = self.bar.format_dict["elapsed"] or 1e-9
        self.bar.set_postfix_str(
            f"{self.summary.frames / seconds:.1f} frames/s, "
            f"waiting {self.summary.waiting_share(seconds):.0%}, "
            f"failed {len(self.summary.failures)}",
            refresh=False,
        )
