"""Several video encoders from one decoding of each video: a store each, over one VLM's half.

What the VLM makes of a video is the same in all of them, so it is computed once, and not at all
where one of the stores has it already.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from pcmci.cache.schema import FEATURES, Sampling, StoreSpec
from pcmci.cache.store import Store
from pcmci.errors import UsageError, VideoError
from pcmci.extract.ahead import decoded
from pcmci.extract.config import ExtractConfig
from pcmci.extract.intake import Intake, Summary, bar_of_videos, stopped
from pcmci.extract.pair import Encoders, wanted
from pcmci.extract.video.decoding import Decoders
from pcmci.stopping import stop_signals

VLM = FEATURES[0]


class SideBySide:
    """One run over all stores.

    pairs: of each store its encoders; the VLM is the same object in all. intakes: of each store.
    stores: each as it was before, to take the VLM's half from.
    Raises UsageError where the stores are not over the same VLM, sampling and versions.
    """

    def __init__(
        self,
        config: ExtractConfig,
        pairs: Sequence[Encoders],
        intakes: Sequence[Intake],
        stores: Sequence[Store],
        progress: bool,
    ) -> None:
        self.config, self.pairs, self.intakes, self.progress = config, pairs, intakes, progress
        self.sampling = Sampling(config.frames, config.views)
        _check_one_half([store.spec for store in stores])
        self._donors = {int(row): store for store in stores for row in store.done_rows}

    def run(self, retry_failed: bool) -> list[Summary]:
        """Of each store. Raises StoppedError after SIGINT or SIGTERM."""
        pending = [intake.pending(retry_failed) for intake in self.intakes]
        self._todo: dict[int, set[int]] = {}
        for k, rows in enumerate(pending):
            for row in rows:
                self._todo.setdefault(row, set()).add(k)
        rows = sorted(self._todo)
        first, began = self.intakes[0], time.perf_counter()
        first.say(self._described(pending))
        with stop_signals() as stop, ThreadPoolExecutor(1) as thread:
            with bar_of_videos(len(rows), self.progress) as bar, _silent_bars() as silent:
                for intake in self.intakes:
                    # one thread writes all stores, and reads from them what is copied
                    intake.begin(stop, thread, silent)
                with self._decoders() as decoders:
                    waited = self._waited
                    for row, found in decoded(decoders, rows, first.place, stop, waited):
                        self._take(row, found)
                        bar.update()
                self._flush()
            for intake in self.intakes:
                intake.finish(time.perf_counter() - began)
        if stop.number:
            left = set().union(*(intake.writer.pending.tolist() for intake in self.intakes))
            raise stopped(stop, len(left))
        return [intake.summary for intake in self.intakes]

    def _described(self, pending: Sequence[Sequence[int]]) -> str:
        names = ", ".join(
            f"{pair.video.spec.name} {len(rows)} to do"
            for pair, rows in zip(self.pairs, pending, strict=True)
        )
        copied = sum(row in self._donors for row in self._todo)
        half = f" | {copied} videos have the VLM's half already" if copied else ""
        first = self.pairs[0]
        return (
            f"{first.device} {first.precision} | vlm {first.vlm.spec.name} "
            f"({first.vlm.spec.weights}) | {names}{half}"
        )

    def _decoders(self) -> Decoders:
        """With what those encoders want that have anything to do."""
        busy = sorted(set().union(*self._todo.values())) if self._todo else []
        first = self.pairs[0]
        inputs = {str(k): wanted(self.pairs[k].video) for k in busy}
        if any(row not in self._donors for row in self._todo):
            inputs[VLM] = wanted(first.vlm)
        self._batchers = {
            name: first.batcher(first.vlm if name == VLM else self.pairs[int(name)].video)
            for name in inputs
        }
        self._parts: dict[int, dict[str, np.ndarray]] = {}
        return Decoders(
            first.decode_threads(self.config), self.sampling, inputs, self.config.decode_seconds,
            self.config.damaged,
        )  # fmt: skip

    def _waited(self, seconds: float) -> None:
        for intake in self.intakes:
            intake.waited(seconds)

    def _take(self, row: int, found: dict[str, np.ndarray] | VideoError) -> None:
        if isinstance(found, VideoError):
            for k in self._todo.pop(row):
                self.intakes[k].fail(row, str(found))
            return
        note = getattr(found, "note", "")
        for k in self._todo[row]:
            if note:
                self.intakes[k].notes[row] = note
        names = [str(k) for k in sorted(self._todo[row])]
        if row not in self._donors:
            names.append(VLM)
        for name in names:
            self._collect(name, self._batchers[name].push(row, found[name]))

    def _flush(self) -> None:
        for name, batcher in self._batchers.items():
            self._collect(name, batcher.flush())

    def _collect(self, name: str, finished: Iterator[tuple[int, np.ndarray]]) -> None:
        """Take what an encoder finished, and give each store what is complete by it."""
        for row, features in finished:
            parts = self._parts.setdefault(row, {})
            encoder = self.pairs[0].vlm if name == VLM else self.pairs[int(name)].video
            shape = (self.sampling.views, encoder.spec.tokens, encoder.spec.width)
            parts[name] = features.reshape(shape)
            donor = self._donors.get(row)
            if donor is None and VLM not in parts:
                continue
            for k in [k for k in self._todo[row] if str(k) in parts]:
                half = parts[VLM] if donor is None else partial(_half, donor, row)
                self.intakes[k].take(row, half, parts.pop(str(k)))
                self._todo[row].discard(k)
            if not self._todo[row]:
                del self._todo[row], self._parts[row]


def _half(store: Store, row: int) -> np.ndarray:
    """[views, L, D] of the VLM, as it is stored."""
    return store.read(VLM, [row])[0]


def _check_one_half(specs: Sequence[StoreSpec]) -> None:
    """Raises UsageError where the VLM's half of one store is not that of another."""
    for other in specs[1:]:
        differing = [
            line
            for line in specs[0].differences(other, "another")
            if not line.startswith(("video.", "libraries."))
        ]
        if differing:
            raise UsageError(f"these stores do not share one VLM's half: {differing[0]}")


@contextlib.contextmanager
def _silent_bars() -> Iterator[object]:
    with bar_of_videos(0, False) as bar:
        yield bar
