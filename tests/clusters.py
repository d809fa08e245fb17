"""Clusters of real processes for the tests, started quickly, and spoiled on purpose."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import cloudpickle
import dask
from children import forkserver
from distributed import Client, WorkerPlugin

from pcmci.cluster import connect
from pcmci.cluster.dispatch import Dispatcher

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests


@contextlib.contextmanager
def local_client(
    workers: int,
    *plugins: WorkerPlugin,
    threads: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Client]:
    """As `pcmci extract --workers` makes it, but for processes that are forked from one that has
    torch already: importing it takes most of a cluster's start. threads: of torch in each.
    environment: of theirs, beside what is inherited."""
    forkserver()
    share, specs_of = connect._threads_of_each, connect.worker_specs

    def specs(count, gpus):
        found = specs_of(count, gpus)
        for spec in found.values():
            spec["options"]["env"].update(environment or {})
        return found

    with (
        mock.patch.object(connect, "worker_specs", specs),
        mock.patch.object(connect, "_threads_of_each", lambda count: threads or share(count)),
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        connect.local_cluster(workers) as cluster,
        Client(cluster) as client,
    ):
        for plugin in plugins:
            client.register_plugin(plugin)
        yield client


def kill(client: Client, worker: str) -> bool:
    """SIGKILL for the process of a worker, by its name or its address; whether there was one. The
    nanny does it when it knows of its worker: one that dies before is not started again."""
    there = client.scheduler_info(n_workers=-1)["workers"]
    found = [a for a, about in there.items() if worker in (a, str(about["name"]))]
    return bool(found) and any(
        client.run(_kill, workers=found, nanny=True, on_error="ignore").values()
    )


async def _kill(dask_worker) -> bool:
    """In a nanny."""
    import asyncio

    while dask_worker.process is not None and dask_worker.process.status.name == "starting":
        await asyncio.sleep(0.01)
    pid = dask_worker.pid
    if pid is None:
        return False
    os.kill(pid, signal.SIGKILL)
    return True


@contextlib.contextmanager
def work_waits_for(known: Callable[[Dispatcher], bool]) -> Iterator[None]:
    """Nobody gets work before that is so: a quick worker would have done all of it, and what
    becomes of the other one would not be seen."""
    feed, open_ = Dispatcher._feed, []

    def feed_then(dispatcher):
        if not open_ and known(dispatcher):
            open_.append(True)
        if open_:
            feed(dispatcher)

    with mock.patch.object(Dispatcher, "_feed", feed_then):
        yield


def refused(worker: str) -> Callable[[Dispatcher], bool]:
    """For `work_waits_for`: it is known that the worker of this name gets none."""
    return lambda dispatcher: any(
        member.refused for name, member in dispatcher.members.items() if name == worker
    )


def all_ready(workers: int) -> Callable[[Dispatcher], bool]:
    """For `work_waits_for`: so many can work."""
    return lambda dispatcher: sum(p.ready for p in dispatcher._processes.values()) == workers


class Deadly(WorkerPlugin):
    """Who decodes a video of this name dies of it, every time."""

    name = "deadly"

    def __init__(self, video: str) -> None:
        self.video = video

    def setup(self, worker) -> None:
        from pcmci.extract.video.decoding import Decoders

        submit, video = Decoders.submit, self.video

        def deadly(decoders, path):
            if video in str(path):
                os.kill(os.getpid(), signal.SIGKILL)
            return submit(decoders, path)

        Decoders.submit = deadly


class Stillborn(WorkerPlugin):
    """Every process ends when it loads the encoders; or those of one worker, by its name; or the
    first so many of all, counted by files in a folder. how: a signal that it gets, or the status
    with which it exits by itself."""

    name = "stillborn"

    def __init__(
        self,
        worker: str | None = None,
        how: signal.Signals | int = signal.SIGKILL,
        times: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.worker, self.how, self.times, self.folder = worker, how, times, folder

    def setup(self, worker) -> None:
        from pcmci.extract.pair import Encoders

        load, how, times, folder = Encoders.load, self.how, self.times, self.folder

        def end(config):
            if times is not None:
                if len(list(folder.iterdir())) >= times:
                    return load(config)
                (folder / str(os.getpid())).touch()
            if not isinstance(how, signal.Signals):
                os._exit(how)
            os.kill(os.getpid(), how)
            signal.pause()  # it may take another thread

        if self.worker in (None, str(worker.name)):
            Encoders.load = end


class Lacks(WorkerPlugin):
    """A module that cannot be imported, on the worker of one name, or on all."""

    name = "lacks"

    def __init__(self, module: str, worker: str | None = None) -> None:
        self.module, self.worker = module, worker

    def setup(self, worker) -> None:
        if self.worker in (None, str(worker.name)):
            sys.modules[self.module] = None


class Slow(WorkerPlugin):
    """Every video takes so many seconds to decode."""

    name = "slow"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def setup(self, worker) -> None:
        import time

        from pcmci.extract.video.decoding import Decoder

        prepare, seconds = Decoder.prepare, self.seconds

        def slow(decoder, path):
            time.sleep(seconds)
            return prepare(decoder, path)

        Decoder.prepare = slow


class Other(WorkerPlugin):
    """The worker of one name has another version of a library, or other weights."""

    name = "other"

    def __init__(self, worker: str, what: str) -> None:
        self.worker, self.what = worker, what

    def setup(self, worker) -> None:
        import dataclasses

        from pcmci.extract.pair import Encoders

        if str(worker.name) != self.worker:
            return
        made, what = Encoders.made.fget, self.what

        def other(encoders):
            found = made(encoders)
            if what == "library":
                changed = {**found.libraries, "torch": "1.0"}
                return dataclasses.replace(found, libraries=changed)
            return dataclasses.replace(found, vlm=dataclasses.replace(found.vlm, sha256="0" * 64))

        Encoders.made = property(other)


class Sick(WorkerPlugin):
    """The worker of one name cannot encode anything."""

    name = "sick"

    def __init__(self, worker: str) -> None:
        self.worker = worker

    def setup(self, worker) -> None:
        from pcmci.extract.station import Station

        def fail(*arguments):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        if str(worker.name) == self.worker:
            Station.encode = fail


class DeadlyRun(WorkerPlugin):
    """Who trains a stack with this seed dies of it, every time."""

    name = "deadly-run"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def setup(self, worker) -> None:
        from pcmci.heads.ablation import distributed

        train, seed = distributed.train_stack, self.seed

        def deadly(store, recipes, *rest):
            if any(recipe.train.seed == seed for recipe in recipes):
                os.kill(os.getpid(), signal.SIGKILL)
            return train(store, recipes, *rest)

        distributed.train_stack = deadly


class OtherTorch(WorkerPlugin):
    """The worker of one name says that it has another torch."""

    name = "other-torch"

    def __init__(self, worker: str) -> None:
        self.worker = worker

    def setup(self, worker) -> None:
        from pcmci.heads.ablation import distributed

        if str(worker.name) == self.worker:
            distributed.version = lambda name: "1.0"


class CountsReads(WorkerPlugin):
    """Counts how often chunks of features are read, see `reads`."""

    name = "counts-reads"

    def setup(self, worker) -> None:
        from pcmci.cache import store

        read = store.read_features
        worker.pcmci_reads = 0

        def counted(*arguments):
            worker.pcmci_reads += 1
            return read(*arguments)

        store.read_features = counted


def reads(dask_worker) -> int:
    return dask_worker.pcmci_reads
