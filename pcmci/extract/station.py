"""What a worker of a cluster does for an extraction: it holds the encoders, and turns videos into
features, a few at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from pcmci.cache.schema import Sampling
from pcmci.cluster.halting import is_halted
from pcmci.cluster.kept import Kept
from pcmci.cluster.threads import torch_threads
from pcmci.errors import PcmciError, VideoError
from pcmci.extract.config import ExtractConfig
from pcmci.extract.pair import Encoders, Halves, Made
from pcmci.extract.video.decoding import Decoders
from pcmci.remote.url import Place

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Order:
    """What all tasks of one extraction have in common. token: what they ask `is_halted` about."""

    token: str
    config: ExtractConfig


@dataclass(frozen=True)
class About:
    """A worker's answer to the question who it is.

    trouble: why it cannot work, "" where it can; the rest is then there. how: one line, what
    computes. videos_a_batch: fewer leave a part of a batch black.
    """

    trouble: str = ""
    made: Made | None = None
    how: str = ""
    videos_a_batch: int = 1


@dataclass
class Encoded:
    """What became of a task's videos.

    features: row -> `vlm` [views, L, D] and `video` [views, Lv, Dv], float32. notes: row -> how
    many frames of a damaged one were replaced. failures: row -> reason. In none: not begun, for
    the work was halted. busy: seconds of encoding.
    """

    features: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    busy: float = 0.0


class Station:
    """Encoders and decoders of one process, for tasks that run side by side.

    One thread alone encodes, the one that loaded the encoders: what torch is told about numbers is
    told to a thread, and two that encode at once would only be in each other's way.
    """

    def __init__(self, config: ExtractConfig, threads: int) -> None:
        """Raises UsageError for a device that is not there, WeightsError for weights."""
        self._sampling = Sampling(config.frames, config.views)
        with contextlib.ExitStack() as opening:
            self._encoding = opening.enter_context(ThreadPoolExecutor(1, "encode"))
            self._in_turn(torch.set_num_threads, threads)
            self.encoders = self._in_turn(Encoders.load, config)
            count = self.encoders.decode_threads(config)
            self._decoders = opening.enter_context(
                Decoders(
                    count,
                    self._sampling,
                    self.encoders.inputs,
                    config.decode_seconds,
                    config.damaged,
                )
            )
            self._open = opening.pop_all()

    def about(self) -> About:
        frames = self._sampling.views * self._sampling.frames
        return About(
            made=self.encoders.made,
            how=self.encoders.described(self._sampling),
            videos_a_batch=-(-self.encoders.batch_frames // frames),
        )

    def text(self, prompts: Sequence[str]) -> np.ndarray:
        """[N, D] float32: the VLM's embeddings."""
        return self._in_turn(self.encoders.text, prompts)

    def encode(self, token: str, videos: Sequence[tuple[int, Place]]) -> Encoded:
        """videos: (row, path) of each."""
        decoding = [(row, self._decoders.submit(path)) for row, path in videos]
        batchers = self.encoders.batchers()
        halves = Halves(self.encoders, self._sampling.views)
        found = Encoded()

        def collect(name: str, finished: Iterator[tuple[int, np.ndarray]]) -> None:
            began = time.perf_counter()  # they are encoded as they are asked for
            found.features.update(halves.join(name, finished))
            found.busy += time.perf_counter() - began

        try:
            for row, task in decoding:
                if is_halted(token) and task.cancel():
                    continue  # it stays pending
                try:
                    decoded = task.result()
                except VideoError as error:
                    found.failures[row] = str(error)
                    continue
                if decoded.note:
                    found.notes[row] = decoded.note
                for name, clips in decoded.items():
                    self._in_turn(collect, name, batchers[name].push(row, clips))
            for name, batcher in batchers.items():
                self._in_turn(collect, name, batcher.flush())
        finally:
            for _, task in decoding:  # where the work ends early, nobody waits for its frames
                task.cancel()
        return found

    def close(self) -> None:
        self._open.close()

    def _in_turn(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        return self._encoding.submit(function, *arguments).result()


# --- what a client submits ------------------------------------------------------------------------

_stations: Kept[Station] = Kept()


def about(order: Order, sample: object) -> About:
    """Load the encoders, if they are not there yet. sample: a video that has to be in sight."""
    if isinstance(sample, Path) and not sample.exists():
        return About(f"it does not see {sample}: videos have to lie where every worker finds them")
    try:
        with _station(order) as station:
            return station.about()
    except PcmciError as error:
        return About(str(error))


def encode_text(order: Order, prompts: Sequence[str]) -> np.ndarray:
    """[N, D] float32."""
    with _station(order) as station:
        return station.text(prompts)


def encode(order: Order, videos: Sequence[tuple[int, Place]]) -> Encoded:
    """videos: (row, path) of each."""
    with _station(order) as station:
        return station.encode(order.token, videos)


def _station(order: Order) -> contextlib.AbstractContextManager[Station]:
    """The one of this process with these settings."""
    return _stations.using(order.config, lambda: Station(order.config, torch_threads()))
