"""A question to any one worker of a cluster: what all of them are expected to be like."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from distributed import Client, get_worker, wait
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from pcmci.cluster.connect import lost
from pcmci.errors import ClusterError, NoWorker, PcmciError

Answer = TypeVar("Answer")

POLL_SECONDS = 1


def first_answer(
    client: Client,
    ask: Callable[[], Answer],
    trouble: Callable[[Answer], str],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[str, Answer]:
    """A worker's address and its answer; of the first one whose answer tells of no trouble.

    trouble: why a worker that answers so cannot be used, or "". say: a line for the user.
    Waits where no worker is there: the question makes an adaptive cluster start one.
    Raises NoWorker where none of those there can be used, ClusterError for a lost scheduler and
    for workers that die of the question.
    """
    reasons: dict[str, str] = {}
    while True:
        untried = [address for address in workers(client) if address not in reasons]
        if reasons and not untried:
            address, reason = next(iter(reasons.items()))
            raise NoWorker(f"no worker can be used; {address}: {reason}")
        if not untried:
            say("no worker is there: waiting for one")
        some = untried if reasons else None
        future = client.submit(_with_address, ask, workers=some, pure=False)
        while future.status == "pending":
            with contextlib.suppress(TimeoutError, CancelledError):
                wait(future, timeout=POLL_SECONDS)
            if client.status != "running" or future.status == "cancelled":
                raise lost()
            there = workers(client)
            if some and not set(some) & set(there):
                break  # all of them have gone, and nobody would answer
        else:
            try:
                address, answer, fault = future.result()
            except KilledWorker as error:
                raise ClusterError("workers die before they have work (out of memory?)") from error
            except (OSError, CommClosedError, CancelledError) as error:
                raise lost(error) from error
            if fault or (fault := trouble(answer)):
                reasons[address] = fault
            else:
                return address, answer


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
    try:
        return list(client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, CommClosedError) as error:
        raise lost(error) from error


def _with_address(ask: Callable[[], Answer]) -> tuple[str, Any, str]:
    address = get_worker().address
    try:
        return address, ask(), ""
    except Exception as error:  # a fault of this worker's: others are asked
        return address, None, f"{type(error).__name__}: {error}"
