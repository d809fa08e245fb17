"""Stacks of runs on the workers of a Dask cluster.

The client plans and scores; workers train, one stack at a time each, and write run folders where
the client finds them. So the store and the folder of runs have to lie where all of them see them.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from distributed import Client, Worker, get_worker

from pcmci.cache.store import Store, open_store
from pcmci.cluster.dispatch import Dispatcher, Killer
from pcmci.cluster.first import WorkerGone, answer_of, first_answer, workers
from pcmci.cluster.halting import is_halted
from pcmci.cluster.kept import Kept
from pcmci.cluster.patience import WAIT_MINUTES
from pcmci.cluster.threads import torch_threads
from pcmci.device import choose_device
from pcmci.errors import PcmciError
from pcmci.heads.ablation.pool import Place, Stopped, train_stack
from pcmci.heads.config import TransportConfig
from pcmci.heads.training.frozen import frozen_weights
from pcmci.heads.training.recipe import Recipe

STACKS_A_WORKER = 2
"""One that is trained, and the next."""

HELD_SHARE = 0.4
"""Of a worker's free memory, for the store: it is read once."""

SAY_SECONDS = 0.5
"""A worker tells of its epochs no more often."""

LIBRARIES = ("torch", "numpy", "POT")
"""Another version of these may give other numbers."""

Stack = tuple[int, tuple[Recipe, ...]]
"""A group's index, and its runs."""


@dataclass(frozen=True)
class Job:
    """What all tasks of one sweep have in common. token: what they ask `is_halted` about, and the
    name of a file in `out` that every worker has to see. digest: of the store's content."""

    token: str
    store: str
    digest: str
    out: Path
    device: str


@dataclass(frozen=True)
class About:
    """A worker's answer to the question who it is. trouble: why it cannot train, or "".
    device: its type. free: bytes of the GPU's memory, 0 without one. libraries: versions."""

    trouble: str = ""
    device: str = "cpu"
    free: int = 0
    libraries: tuple[tuple[str, str], ...] = ()


@dataclass
class TrainerSummary:
    """What one worker did. runs: trained. seconds: from when it could work to what it did last;
    busy: of these, in which it trained. note: that it died, left, or got no work."""

    runs: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    note: str = ""


class Trainers:
    """The workers of a cluster, for one sweep: `with Trainers(...) as trainers`.

    about: what the first one that answered is like; the others have to be the same.
    workers: what each did, by name. wait_minutes: without one that can work, after which it ends.
    Raises NoWorker where none can be used, ClusterError where the scheduler is lost.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        out: Path,
        device: str,
        say: Callable[[str], None],
        wait_minutes: float = WAIT_MINUTES,
    ) -> None:
        self._client, self._say, self._wait_minutes = client, say, wait_minutes
        self.workers: dict[str, TrainerSummary] = {}
        out.mkdir(parents=True, exist_ok=True)
        where = store.path
        self._job = Job(
            token=uuid.uuid4().hex[:12],
            store=str(where.absolute() if isinstance(where, Path) else where),
            digest=store.content_digest,
            out=out.absolute(),
            device=device,
        )
        self._seen = self._job.out / f".pcmci-{self._job.token}"
        self._seen.touch()
        try:
            self._ask = functools.partial(_about, self._job)
            self._first, self.about = first_answer(
                client, self._ask, lambda a: a.trouble, say, wait_minutes
            )
        except BaseException:
            self.close()
            raise

    def solve(self, labels: str, config: TransportConfig) -> None:
        """Frozen plans, kept where every worker finds them. Raises PcmciError."""
        for last in (False, False, True):
            try:
                error = answer_of(self._client, self._first, _solve, self._job, labels, config)
                break
            except WorkerGone:
                if last:
                    raise
                self._first, _ = first_answer(
                    self._client, self._ask, self._trouble, self._say, self._wait_minutes
                )
        if error:
            raise PcmciError(error)

    def train(
        self,
        groups: Sequence[Sequence[Recipe]],
        memory: int | None,
        on_epochs: Callable[[int], None],
    ) -> Iterator[tuple[int, str | None]]:
        """As `pcmci.heads.ablation.pool.train_groups`; memory: bytes for features of each
        worker, None for what it finds to spare."""
        epochs: queue.SimpleQueue[int] = queue.SimpleQueue()

        def tick() -> None:
            while not epochs.empty():
                on_epochs(epochs.get())

        self._client.subscribe_topic(self._job.token, lambda event: epochs.put(event[1]))
        dispatcher: Dispatcher[Stack] = Dispatcher(
            self._client,
            functools.partial(_train, self._job, memory),
            self._ask,
            self._trouble,
            token=self._job.token,
            tasks_a_worker=STACKS_A_WORKER,
            wait_minutes=self._wait_minutes,
            say=self._say,
            tick=tick,
        )
        try:
            for what in dispatcher.run((i, tuple(group)) for i, group in enumerate(groups)):
                if isinstance(what, Killer):
                    yield what.item[0], what.reason
                    continue
                ((index, recipes),) = what.items
                one = self.workers.setdefault(what.worker.name, TrainerSummary())
                one.busy += what.result.seconds
                one.seconds = time.monotonic() - what.worker.since
                if not what.result.left:
                    one.runs += len(recipes)
                    yield index, what.result.error
        finally:
            for name, member in dispatcher.members.items():
                self.workers.setdefault(name, TrainerSummary()).note = member.note
        tick()
        on_epochs(0)

    def __len__(self) -> int:
        """How many workers are there now."""
        return len(workers(self._client))

    def close(self) -> None:
        self._seen.unlink(missing_ok=True)

    def __enter__(self) -> Trainers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _trouble(self, about: About) -> str:
        if about.trouble:
            return about.trouble
        ours, theirs = dict(self.about.libraries), dict(about.libraries)
        differing = [f"{n} {theirs[n]}, not {ours[n]}" for n in ours if ours[n] != theirs[n]]
        if about.device != self.about.device:
            differing.append(f"trains on {about.device}, not on {self.about.device}")
        return "; ".join(differing)


# --- in a worker ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Outcome:
    """error: what stopped a stack, if anything did. left: the sweep was halted before its end.
    seconds: of training."""

    error: str | None = None
    left: bool = False
    seconds: float = 0.0


class _Desk:
    """What a worker's process keeps from one task to the next: the store, which is read once, and
    the one thread that computes. What torch is told about numbers is told to a thread.
    """

    def __init__(self, job: Job) -> None:
        """Raises StoreError and UsageError."""
        self._computing = ThreadPoolExecutor(1, "train")
        self.device = self.in_turn(choose_device, job.device)
        self.threads = torch_threads()
        self.in_turn(torch.set_num_threads, self.threads)
        self.store = open_store(job.store)
        self.store.hold(int(HELD_SHARE * psutil.virtual_memory().available))

    def in_turn(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._computing.submit(function, *arguments).result()

    def close(self) -> None:
        self._computing.shutdown()
        self.store.close()


_desks: Kept[_Desk] = Kept()


def _the_desk(job: Job) -> contextlib.AbstractContextManager[_Desk]:
    """The one of this process for that store, as it was when the sweep began.

    Raises PcmciError where the store is another one by now.
    """
    return _desks.using((job.store, job.digest, job.device), lambda: _desk_of(job))


def _desk_of(job: Job) -> _Desk:
    desk = _Desk(job)
    if desk.store.content_digest != job.digest:
        desk.close()
        raise PcmciError(f"{job.store} is another store there, or was written to since")
    return desk


def _about(job: Job) -> About:
    if not (job.out / f".pcmci-{job.token}").exists():
        return About(f"it does not see {job.out}: --out has to lie where every worker sees it")
    try:
        with _the_desk(job) as desk:
            cuda = desk.device.type == "cuda"
            return About(
                device=desk.device.type,
                free=torch.cuda.mem_get_info(desk.device)[0] if cuda else 0,
                libraries=tuple((name, version(name)) for name in LIBRARIES),
            )
    except PcmciError as error:
        return About(str(error))


def _solve(job: Job, labels: str, config: TransportConfig) -> str | None:
    plans = job.out / "plans"
    try:
        with _the_desk(job) as desk:
            desk.in_turn(frozen_weights, desk.store, labels, config, desk.device, False, plans)
    except PcmciError as error:
        return str(error)
    return None


def _train(job: Job, memory: int | None, stacks: Sequence[Stack]) -> _Outcome:
    """One stack."""
    ((_, recipes),) = stacks
    teller = _Teller(get_worker(), job.token)

    def timed(desk: _Desk) -> _Outcome:
        place = Place(job.out, desk.device, memory, workers=1, threads=desk.threads)
        began = time.monotonic()
        error = train_stack(desk.store, recipes, place, teller.on_epochs)
        return _Outcome(error, seconds=time.monotonic() - began)

    try:
        with _the_desk(job) as desk:
            outcome: _Outcome = desk.in_turn(timed, desk)
    except PcmciError as error:
        outcome = _Outcome(str(error))
    except Stopped:
        outcome = _Outcome(left=True)
    finally:
        teller.close()
    return outcome


class _Teller:
    """Tells the client of epochs, now and then."""

    def __init__(self, worker: Worker, token: str) -> None:
        self._worker, self._token = worker, token
        self._count, self._last = 0, time.monotonic()

    def on_epochs(self, count: int) -> None:
        """Raises Stopped where the sweep was halted."""
        self._count += count
        if time.monotonic() - self._last > SAY_SECONDS:
            self.close()
        if is_halted(self._token):
            raise Stopped

    def close(self) -> None:
        if self._count:
            self._worker.log_event(self._token, self._count)
        self._count, self._last = 0, time.monotonic()
