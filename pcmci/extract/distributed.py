"""An extraction whose frames are decoded and encoded by the workers of a Dask cluster.

This process lists the videos, hands out a few at a time, and is the store's one writer. Features
depend on nothing but a video's own pixels (`pcmci.extract.batching`), so it does not matter who
computed which, or when.
"""

from __future__ import annotations

import functools
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from distributed import Client
from tqdm import tqdm

from pcmci.cache.chunks import exists
from pcmci.cache.schema import StoreSpec
from pcmci.cache.store import open_store
from pcmci.cache.writer import StoreWriter
from pcmci.cluster.connect import dashboard
from pcmci.cluster.dispatch import Dispatcher, Finished, Killer
from pcmci.cluster.first import answer_of, first_answer, workers
from pcmci.extract import station
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets.records import Dataset
from pcmci.extract.intake import Intake, Summary, WorkerSummary
from pcmci.extract.pair import Made
from pcmci.extract.pipeline import make_spec, prepare_store
from pcmci.extract.station import About, Encoded, Order
from pcmci.extract.table import video_table
from pcmci.plain import plain
from pcmci.remote.url import Place

VIDEOS_A_TASK = 4
"""At least, where a batch holds fewer: a worker that dies costs its tasks, and asking for each
video on its own would cost a small one's worth of time."""

Row = tuple[int, Place]
"""A row of the store, and where its video lies."""


class ClusterExtraction:
    """One run of the pipeline on a cluster. Arguments as for `pcmci.extract.pipeline.extract`."""

    def __init__(
        self, client: Client, dataset: Dataset, out: Place, config: ExtractConfig, progress: bool
    ) -> None:
        self.client, self.dataset, self.out, self.config = client, dataset, out, config
        self.progress = progress
        self.table = video_table(dataset)
        self.order = Order(uuid.uuid4().hex[:12], config)
        # One that every worker has to see.
        self.sample = next((_anywhere(one.path) for one in dataset.videos if one.path), None)

    def run(self, overwrite: bool, retry_failed: bool, repair: bool) -> Summary:
        """Raises what `extract` does."""
        ask = functools.partial(station.about, self.order, self.sample)
        # Where there is a store, it says which workers are right, not the one that answers first.
        stored = self._stored() if exists(self.out) and not overwrite and not repair else None
        worker, about = first_answer(
            self.client, ask, lambda answer: self._trouble(answer, stored), self._say
        )
        assert about.made is not None  # there is no trouble
        spec = stored or self._spec(about.made)

        def text(prompts: Sequence[str]) -> np.ndarray:
            return answer_of(self.client, worker, station.encode_text, self.order, list(prompts))

        prepare_store(self.out, spec, self.dataset, text, overwrite=overwrite, repair=repair)
        with StoreWriter(self.out) as writer:
            intake = Intake(self.dataset, writer, self.progress)
            pending = intake.pending(retry_failed)
            intake.say(f"dashboard: {dashboard(self.client)}")
            there = len(workers(self.client))
            with intake.taking(pending, f"{there} workers | {about.how}"):
                self._encode(pending, intake, ask, spec, about.videos_a_batch)
        return intake.summary

    def _say(self, line: str) -> None:
        if self.progress:
            tqdm.write(plain(line), file=sys.stderr)

    def _spec(self, made: Made) -> StoreSpec:
        return make_spec(self.dataset, self.table, self.config, made)

    def _stored(self) -> StoreSpec:
        """Of the store. Raises SpecMismatch where it is of other videos, or of other settings."""
        with open_store(self.out) as store:
            store.check_spec(self._spec(Made.of(store.spec)), self.table)
            return store.spec

    def _encode(
        self,
        pending: list[int],
        intake: Intake,
        ask: Callable[[], About],
        spec: StoreSpec,
        batch: int,
    ) -> None:
        dispatcher: Dispatcher[Row] = Dispatcher(
            self.client,
            functools.partial(station.encode, self.order),
            ask,
            lambda about: self._trouble(about, spec),
            token=self.order.token,
            size=-(-VIDEOS_A_TASK // batch) * batch,
            least=batch,
            stopping=lambda: bool(intake.stop.number),
            say=intake.say,
        )
        found = {row: self.dataset.videos[row].path for row in pending}
        try:
            rows = [(row, _anywhere(path)) for row, path in found.items() if path is not None]
            for what in dispatcher.run(rows):
                if isinstance(what, Killer):
                    intake.fail(what.item[0], what.reason)
                else:
                    self._take(what, intake)
        finally:
            for name, member in dispatcher.members.items():
                one = intake.summary.workers.setdefault(name, WorkerSummary())
                one.note, one.deaths = member.note, member.deaths

    def _trouble(self, about: About, spec: StoreSpec | None) -> str:
        """Why a worker cannot add to a store of this spec, be it the first one or not."""
        if about.made is None or spec is None:
            return about.trouble
        differing = spec.differences(self._spec(about.made), "the worker")
        return "; ".join(differing[:3])

    def _take(self, finished: Finished[Row], intake: Intake) -> None:
        encoded: Encoded = finished.result
        summary, worker = intake.summary, finished.worker
        one = summary.workers.setdefault(worker.name, WorkerSummary())
        one.videos += len(encoded.features)
        one.failures += len(encoded.failures)
        one.busy += encoded.busy
        one.seconds = time.monotonic() - worker.since
        summary.waiting = sum(each.waiting for each in summary.workers.values())
        for row, features in encoded.features.items():
            intake.take(row, **features)
        for row, reason in encoded.failures.items():
            intake.fail(row, reason)


def _anywhere(path: Place) -> Place:
    """As a process in another folder has to name it."""
    return path.absolute() if isinstance(path, Path) else path
