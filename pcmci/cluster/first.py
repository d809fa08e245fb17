"""A question to any one worker of a cluster: what all of them are expected to be like."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TypeVar

from distributed import Client, wait
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from pcmci.cluster.connect import lost
from pcmci.cluster.exits import Exits, check_faults
from pcmci.cluster.late import late_with_address
from pcmci.cluster.patience import NOBODY, WAIT_MINUTES, Patience
from pcmci.errors import ClusterError, NoWorker, PcmciError

Answer = TypeVar("Answer")

POLL_SECONDS = 1


def first_answer(
    client: Client,
    ask: Callable[[], Answer],
    trouble: Callable[[Answer], str],
    say: Callable[[str], None] = lambda line: None,
    wait_minutes: float = WAIT_MINUTES,
) -> tuple[str, Answer]:
    """A worker's address and its answer; of the first one whose answer tells of no trouble.

    trouble: why a worker that answers so cannot be used, or "". say: a line for the user.
    Waits where no worker is there: the question makes an adaptive cluster start one. Those that are
    killed while they look for the answer are waited for too, `wait_minutes` in all.
    Raises NoWorker where none of those there can be used, ClusterError for a lost scheduler, for
    workers that end by themselves, and where the time is up.
    """
    with Exits(client) as exits:
        return _Inquiry(client, exits, Patience(wait_minutes, say), say).first(ask, trouble)


class _Fault(Exception):
    """A worker's: others are asked."""


class _Inquiry:
    """One question, and what became of the workers meanwhile."""

    def __init__(
        self, client: Client, exits: Exits, patience: Patience, say: Callable[[str], None]
    ) -> None:
        self._client, self._exits, self._patience, self._say = client, exits, patience, say
        self._names: dict[str, str] = {}  # by address, of those there when last looked at
        self._reasons: dict[str, str] = {}  # by address, why it cannot be used
        self._one_by_one = False
        self._died = 0
        self._faults: Counter[str] = Counter()

    def first(
        self, ask: Callable[[], Answer], trouble: Callable[[Answer], str]
    ) -> tuple[str, Answer]:
        while True:
            self._look()
            untried = [address for address in self._names if address not in self._reasons]
            if self._reasons and not untried and not self._died:
                address, reason = next(iter(self._reasons.items()))
                raise NoWorker(f"no worker can be used; {address}: {reason}")
            if self._reasons and not untried:  # the ones that died will be back
                time.sleep(POLL_SECONDS)
                continue
            some = untried if self._reasons else None
            if self._one_by_one:
                some = untried[:1] or None
            try:
                answered = self._ask(late_with_address(ask), some)
            except _Fault as fault:
                # An error does not say whose it was.
                if some and len(some) == 1:
                    self._reasons[some[0]] = str(fault)
                self._one_by_one = True
                continue
            if answered is None:
                continue
            address, answer = answered
            if reason := trouble(answer):
                self._reasons[address] = reason
            else:
                return address, answer

    def _ask(
        self, ask: Callable[[], tuple[str, Answer]], some: list[str] | None
    ) -> tuple[str, Answer] | None:
        """What one of them says; None where all that were asked are gone. Raises _Fault where that
        one fails."""
        client = self._client
        future = client.submit(ask, workers=some, pure=False)
        while future.status == "pending":
            with contextlib.suppress(TimeoutError, CancelledError):
                wait(future, timeout=POLL_SECONDS)
            if client.status != "running" or future.status == "cancelled":
                raise lost()
            self._look()
            if some and not set(some) & set(self._names):
                return None  # nobody would answer
        try:
            if error := future.exception():
                if isinstance(error, KilledWorker):
                    return None  # Dask has counted to three; what is counted here is why
                raise _Fault(_line(error))
            answered: tuple[str, Answer] = future.result()
            return answered
        except (OSError, CommClosedError, CancelledError) as error:
            raise lost(error) from error

    def _look(self) -> None:
        """Who is there now. Raises ClusterError where nobody is worth waiting for."""
        before, self._names = self._names, names_of_workers(self._client)
        for address in self._names.keys() - before.keys():
            self._exits.watch(address)
        for address in before.keys() - self._names.keys() - self._reasons.keys():
            self._died += 1
            self._say(f"worker {before[address]} is gone")
        self._faults.update(fault for _, fault in self._exits.told() if fault)
        check_faults(self._faults, len(self._names.keys() - self._reasons.keys()))
        self._patience.wait("" if self._names else NOBODY, self._died)


class WorkerGone(ClusterError):
    """The worker that was asked is no longer there."""


def answer_of(
    client: Client, address: str, function: Callable[..., Answer], *arguments: object
) -> Answer:
    """Of one worker. Raises WorkerGone, ClusterError for a lost scheduler and for a worker that
    fails."""
    future = client.submit(function, *arguments, workers=[address], pure=False)
    while True:
        try:
            answer: Answer = future.result(timeout=POLL_SECONDS)
            return answer
        except TimeoutError:
            if client.status != "running":
                raise lost() from None
            if address not in workers(client):
                raise WorkerGone(f"the worker {address} has gone") from None
        except (CommClosedError, CancelledError) as error:
            raise lost(error) from error
        except PcmciError:
            raise
        except Exception as error:
            raise ClusterError(f"a worker fails: {type(error).__name__}: {error}") from error


def workers(client: Client) -> list[str]:
    """The addresses of those there. Raises ClusterError for a lost scheduler."""
    return list(names_of_workers(client))


def names_of_workers(client: Client) -> dict[str, str]:
    """By their addresses. Raises ClusterError for a lost scheduler."""
    try:
        there = client.scheduler_info(n_workers=-1)["workers"]
    except (OSError, CommClosedError) as error:
        raise lost(error) from error
    return {address: str(about.get("name", address)) for address, about in there.items()}


def _line(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
