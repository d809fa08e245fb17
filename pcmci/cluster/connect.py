"""A client of a Dask cluster: one that is there already, or processes of this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Scheduler, SpecCluster, Worker, WorkerPlugin

from pcmci.cluster.nanny import PatientNanny
from pcmci.cluster.threads import THREADS
from pcmci.device import usable_cores
from pcmci.errors import ClusterError, UsageError

CONNECT_SECONDS = 30
PROTOCOLS = ("tcp://", "tls://", "ucx://", "ucxx://", "ws://", "wss://")

TASKS_AT_A_TIME = 2
"""Of a worker on this machine: while the frames of one are encoded, the other's are decoded."""


QUIET = logging.CRITICAL
"""A worker that dies is a line of ours, not ten of Dask's across the bar."""


def lost(error: BaseException | None = None) -> ClusterError:
    """The scheduler no longer answers."""
    why = f" ({_line(error)})" if error is not None else ""
    return ClusterError(
        f"the scheduler is lost{why}; what came back is kept: the same command goes on from here"
    )


@contextlib.contextmanager
def connect(
    scheduler: str | None = None, workers: int | None = None, device: str = "auto"
) -> Iterator[Client]:
    """A client, closed at the end.

    scheduler: `tcp://host:8786`, or a scheduler file. workers: so many processes of this machine,
    without a scheduler elsewhere; one a GPU where there are several, all of its cores shared out
    among them. device: `cpu` leaves GPUs alone.
    Raises UsageError for what cannot be meant, ClusterError where no scheduler answers.
    """
    if scheduler is not None and workers is not None:
        raise UsageError(
            f"--scheduler {scheduler} and --workers {workers}: the scheduler has its workers; "
            "name one of the two"
        )
    if scheduler is not None:
        with _quiet(), _client(scheduler) as client:
            yield client
        return
    assert workers is not None, "one of the two"
    if workers < 1:
        raise UsageError(f"--workers {workers} must be at least 1")
    gpus = [] if device == "cpu" else visible_gpus()
    with local_cluster(workers, gpus) as cluster, Client(cluster) as client:
        client.register_plugin(_DeafToInterrupts())
        yield client


def dashboard(client: Client) -> str:
    """Its address, as far as this side can tell: bokeh has to be installed where the scheduler
    runs."""
    if client.cluster is not None and importlib.util.find_spec("bokeh") is None:
        return "none, for bokeh is not installed: pip install 'pcmci[cluster]'"
    return str(client.dashboard_link)


def visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES would name each."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return [one.strip() for one in named.split(",")][:count] if named else [*map(str, range(count))]


@contextlib.contextmanager
def local_cluster(workers: int, gpus: Sequence[str] = ()) -> Iterator[SpecCluster]:
    """So many processes of this machine, on loopback alone."""
    specs = worker_specs(workers, gpus)
    threads = {"OMP_NUM_THREADS": str(_threads_of_each(workers)), "OMP_WAIT_POLICY": "PASSIVE"}
    settings = {
        "distributed.nanny.pre-spawn-environ": threads,
        # A nanny starts its worker again, however long that takes on a busy machine: Dask would
        # close the nanny after 15 s, and nobody would come.
        "distributed.deploy.lost-worker-timeout": "365 days",
    }
    with _quiet(), dask.config.set(settings):
        options = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
        try:
            cluster = SpecCluster(
                workers=specs, scheduler={"cls": Scheduler, "options": options}, silence_logs=False
            )
        except RuntimeError as error:
            raise ClusterError(f"--workers {workers}: no such cluster: {_line(error)}") from error
        try:
            yield cluster
        finally:
            # Of a worker that goes twice Dask's watcher makes a KeyError, told when all is closed.
            with contextlib.suppress(KeyError):
                cluster.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Dask's loggers as they were, at the end."""
    names = ("", ".nanny", ".scheduler", ".core", ".client", ".batched")
    loggers = [logging.getLogger(f"distributed{name}") for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(QUIET)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def worker_specs(workers: int, gpus: Sequence[str]) -> dict[int, dict[str, Any]]:
    """What SpecCluster is to start: worker i sees GPU i alone, in turn where there are fewer."""
    # memory_limit 0: Dask would pause a worker, or kill it, at a guess of what it may take.
    options = {
        "host": "127.0.0.1", "nthreads": TASKS_AT_A_TIME, "memory_limit": 0, "silence_logs": QUIET,
    }  # fmt: skip
    threads = str(_threads_of_each(workers))
    specs: dict[int, dict[str, Any]] = {}
    for index in range(workers):
        environment = {THREADS: threads}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
        specs[index] = {"cls": PatientNanny, "options": {**options, "env": environment}}
    return specs


def _threads_of_each(workers: int) -> int:
    """Of torch: the cores shared out among so many processes."""
    return max(1, usable_cores() // workers)


class _DeafToInterrupts(WorkerPlugin):
    """Ctrl-C reaches every process of the terminal; the parent hears it, and says so to workers."""

    name = "pcmci-deaf-to-interrupts"

    def setup(self, worker: Worker) -> None:
        with contextlib.suppress(ValueError):  # not the main thread: nothing to do there
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _client(scheduler: str) -> Iterator[Client]:
    address = scheduler
    if not scheduler.startswith(PROTOCOLS):
        address = _address_in(Path(scheduler))
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
        # TypeError is tls:// without its settings, ImportError a protocol without its package.
        raise ClusterError(f"no scheduler answers at {address}: {_line(error)}") from error
    with client:
        yield client


def _address_in(file: Path) -> str:
    """Of the scheduler that wrote this file."""
    try:
        return str(json.loads(file.read_text())["address"])
    except FileNotFoundError:
        raise UsageError(
            f"--scheduler {file}: is neither an address, as tcp://host:8786, nor a scheduler file"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--scheduler {file}: is no scheduler file: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
