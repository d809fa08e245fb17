"""An extraction whose frames are decoded and encoded by the workers of a Dask cluster.

This process lists the videos, hands out a few at a time, and is the store's one writer. Features
depend on nothing but a video's own pixels (`pcmci.extract.batching`), so it does not matter who
computed which, or when.
"""

from __future__ import annotations

import contextlib
import functools
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from distributed import Client

from pcmci.cache.formats.choose import exists
from pcmci.cache.schema import StoreSpec
from pcmci.cache.store import check_same, open_store
from pcmci.cache.upkeep.convert import allowing
from pcmci.cache.writing.writer import StoreWriter
from pcmci.cluster.connect import dashboard
from pcmci.cluster.dispatch import Dispatcher, Finished, Killer
from pcmci.cluster.first import WorkerGone, answer_of, first_answer, workers
from pcmci.cluster.patience import WAIT_MINUTES
from pcmci.extract import station
from pcmci.extract.config import ExtractConfig
from pcmci.extract.datasets.records import Dataset
from pcmci.extract.intake import Intake, Summary, WorkerSummary
from pcmci.extract.opening import make_spec, prepare_store
from pcmci.extract.pair import Made
from pcmci.extract.station import About, Encoded, Order
from pcmci.extract.table import video_table
from pcmci.remote.url import Place
from pcmci.saying import sayer

VIDEOS_A_TASK = 4
"""At least, where a batch holds fewer: a worker that dies costs its tasks, and asking for each
video on its own would cost a small one's worth of time."""

Row = tuple[int, Place]
"""A row of the store, and where its video lies."""


class ClusterExtraction:
    """One run of the pipeline on a cluster. Arguments as for `pcmci.extract.pipeline.extract`.

    wait_minutes: without a worker that can do the work, after which the run ends.
    """

    def __init__(
        self,
        client: Client,
        dataset: Dataset,
        out: Place,
        config: ExtractConfig,
        progress: bool,
        wait_minutes: float = WAIT_MINUTES,
    ) -> None:
        self.client, self.dataset, self.out, self.config = client, dataset, out, config
        self.progress, self.wait_minutes = progress, wait_minutes
        self.say = sayer(progress)
        self.table = video_table(dataset)
        self.order = Order(uuid.uuid4().hex[:12], config)
        # One that every worker has to see.
        self.sample = next((_anywhere(one.path) for one in dataset.videos if one.path), None)

    def run(self, overwrite: bool, retry_failed: bool, repair: bool) -> Summary:
        """Raises what `extract` does."""
        ask = functools.partial(station.about, self.order, self.sample)
        # Where there is a store, it says which workers are right, not the one that answers first.
        stored = self._stored() if exists(self.out) and not overwrite and not repair else None

        def first(spec: StoreSpec | None) -> tuple[str, About]:
            return first_answer(
                self.client, ask, lambda a: self._trouble(a, spec), self.say, self.wait_minutes
            )

        worker, about = first(stored)
        assert about.made is not None  # there is no trouble
        spec = stored or self._spec(about.made)

        def text(prompts: Sequence[str]) -> np.ndarray:
            nonlocal worker
            for last in (False, False, True):
                with contextlib.nullcontext() if last else contextlib.suppress(WorkerGone):
                    return answer_of(
                        self.client, worker, station.encode_text, self.order, list(prompts)
                    )
                worker, _ = first(spec)  # another one, with the same encoders
            raise AssertionError("the last one answers or raises")

        prepare_store(self.out, spec, self.dataset, text, overwrite=overwrite, repair=repair)
        with StoreWriter(self.out) as writer:
            intake = Intake(self.dataset, writer, self.progress)
            pending = intake.pending(retry_failed)
            intake.say(f"dashboard: {dashboard(self.client)}")
            there = len(workers(self.client))
            with intake.taking(pending, f"{there} workers | {about.how}"):
                self._encode(pending, intake, ask, spec, about.videos_a_batch)
        return intake.summary

    def _spec(self, made: Made) -> StoreSpec:
        return make_spec(self.dataset, self.table, self.config, made)

    def _stored(self) -> StoreSpec:
        """Of the store. Raises SpecMismatch where it is of other videos, or of other settings."""
        with open_store(self.out) as store:
            spec = allowing(self.out, store.spec, self.config.damaged)
            check_same(self.out, spec, self._spec(Made.of(spec)), (store.table, self.table))
            return spec

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
            wait_minutes=self.wait_minutes,
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
        intake.notes |= encoded.notes
        for row, features in encoded.features.items():
            intake.take(row, **features)
        for row, reason in encoded.failures.items():
            intake.fail(row, reason)


def _anywhere(path: Place) -> Place:
    """As a process in another folder has to name it."""
    return path.absolute() if isinstance(path, Path) else path
