"""Workers' processes that end before they had any work: killed from outside, or of their own fault.

A scheduler sees a connection that closed, whatever the reason. A worker's nanny sees the exit code
of its process, so it is asked to tell. On machines that are taken back (preemptible, a queue's)
a process may be killed any number of times while it loads, which is nobody's fault; one that
crashes does so the same way each time.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import signal
import uuid
from collections import Counter
from types import TracebackType
from typing import Any

from distributed import Client, Nanny
from distributed.comm import CommClosedError

from pcmci.errors import ClusterError

FAULTS = 3
"""Ends before any work, all of the same cause, after which a worker is not waited for."""

CRASHES = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
"""Signals that a process brings on itself. SIGKILL may be the kernel's, which is out of memory, or
that of whoever takes a machine back: nobody can tell."""

UNKNOWN = 255
"""What multiprocessing's fork server says where it does not know."""


def fault(code: int) -> str:
    """How a process failed by itself, from its exit code (-N: signal N); "" where it was killed,
    told to end, or nobody knows."""
    if code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            return name if name in CRASHES else ""
        return ""
    return f"exit status {code}" if code not in (0, UNKNOWN) else ""


class Exits:
    """How the processes of a cluster's workers end: `with Exits(client) as exits`.

    Where a worker has no nanny, or one that cannot be asked, nothing is told of it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._topic = f"pcmci-exits-{uuid.uuid4().hex[:12]}"
        self._told: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()

    def __enter__(self) -> Exits:
        self._client.subscribe_topic(self._topic, lambda event: self._told.put(tuple(event[1])))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client.status == "running":
            with contextlib.suppress(OSError, CommClosedError, TimeoutError, ValueError):
                self._client.unsubscribe_topic(self._topic)

    def watch(self, address: str) -> None:
        """Ask the nanny of the worker there, without waiting for its answer."""
        assert self._client.loop is not None  # it is connected
        self._client.loop.add_callback(self._ask, address)

    async def _ask(self, address: str) -> None:
        """In the client's own thread."""
        with contextlib.suppress(Exception):  # it goes, has no nanny, or the scheduler is lost
            await self._client.run(
                _tell, address, self._topic, workers=[address], nanny=True, asynchronous=True,
                on_error="ignore",
            )  # fmt: skip

    def told(self) -> list[tuple[str, str]]:
        """What came in since: the address of a process that ended, and its `fault`."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                address, code = self._told.get_nowait()
                found.append((address, fault(code)))
        return found


def check_faults(faults: Counter[str], workers: int) -> None:
    """Raises ClusterError where processes that ended by themselves are so many of one cause that
    all of `workers` must have it. faults: since one of them could last work."""
    for cause, count in faults.most_common(1):
        if count >= FAULTS * max(1, workers):
            raise ClusterError(
                f"{count} times a worker ended by itself before it had work, with {cause}: "
                "its own log says more"
            )


def _tell(address: str, topic: str, dask_worker: Nanny) -> None:
    """In a nanny: tell under this topic how its process of now, the worker at `address`, ends."""
    process: Any = dask_worker.process
    if process is None:
        return
    process.on_exit = functools.partial(_told, dask_worker, address, topic, process.on_exit)


def _told(nanny: Nanny, address: str, topic: str, on_exit: Any, code: int) -> None:
    async def send() -> None:
        with contextlib.suppress(Exception):  # all is closing: nobody waits for what it says
            await nanny.scheduler.log_event(topic=topic, msg=[address, code])

    nanny.loop.add_callback(send)
    on_exit(code)
