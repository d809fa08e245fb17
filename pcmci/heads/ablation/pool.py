"""Stacks of runs on one machine: in this process, or in several that share its cores.

On a CPU many processes of one thread each beat one process of many threads: the matrices of a run
are too small to be shared out (benchmarks/ablation.py measures it).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import torch

from pcmci.cache.store import Store, open_store
from pcmci.device import choose_device
from pcmci.errors import PcmciError
from pcmci.heads.training.recipe import Recipe
from pcmci.heads.training.run import find_run, make_runs
from pcmci.stopping import StoppedError

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Place:
    """Where and how runs are trained.

    out: the folder of run folders. memory: bytes for features of each worker, None for what it
    finds to spare. workers: processes; threads: of each.
    """

    out: Path
    device: torch.device
    memory: int | None
    workers: int
    threads: int


class Stopped(BaseException):
    """Raised in a worker whose sweep was stopped: as little an error as an interrupt from the
    keyboard."""


def train_groups(
    store: Store,
    groups: Sequence[Sequence[Recipe]],
    place: Place,
    on_epochs: Callable[[int], None],
) -> Iterator[tuple[int, str | None]]:
    """Train every group as one stack; yields a group's index when it is done, with the error that
    stopped it, if one did. Runs and failures are found in `place.out`.

    on_epochs: told of the epochs trained since it was last told, of all runs and label sets; an
    error that it raises stops everything, and leaves nothing half done.
    Raises PcmciError where a worker was killed.
    """
    if place.workers == 1:
        for index, recipes in enumerate(groups):
            yield index, train_stack(store, recipes, place, on_epochs)
        return
    context = multiprocessing.get_context("spawn")
    epochs, stop = context.SimpleQueue(), context.Event()
    beginning = (str(store.path), store.content_digest, place, epochs, stop)
    with ProcessPoolExecutor(place.workers, context, _begin, beginning) as workers:
        try:
            with _without_main():  # the first call starts the processes
                waiting = {workers.submit(_work, list(group)): i for i, group in enumerate(groups)}
            while waiting:
                done, _ = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
                on_epochs(0)
                while not epochs.empty():
                    on_epochs(epochs.get())
                for future in done:
                    yield waiting.pop(future), _result(future)
        except BaseException:
            # They stop after the epoch they are in; what they have half done is taken away.
            stop.set()
            workers.shutdown(wait=True, cancel_futures=True)
            raise


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that are started inside do not run the caller's script again, as spawned ones
    would: it may have no `if __name__ == "__main__"`, and they need nothing of it."""
    main = sys.modules["__main__"]
    hidden = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


def _result(future: Future[str | None]) -> str | None:
    try:
        return future.result()
    except BrokenProcessPool:
        raise PcmciError(
            "a worker was killed (out of memory?); finished runs are kept, and the same command "
            "goes on with the rest: use fewer --workers or less --memory"
        ) from None


def train_stack(
    store: Store, recipes: Sequence[Recipe], place: Place, on_epochs: Callable[[int], None]
) -> str | None:
    """Train runs as one stack, in this thread, or as several where the device is too small for
    that; returns the error that stopped it, if one did."""
    # another sweep may have made some of them since this one was planned
    recipes = [recipe for recipe in recipes if not find_run(store, recipe, place.out)]
    if not recipes:
        return None
    try:
        with threads(place.threads):
            make_runs(
                store, recipes, place.out, place.device, place.memory, progress=False,
                on_epoch=lambda labels, epoch, losses: on_epochs(len(losses)),
            )  # fmt: skip
    except StoppedError:
        raise
    except PcmciError as error:
        return str(error)
    except torch.OutOfMemoryError as error:
        if len(recipes) == 1:
            return f"out of memory: {str(error).splitlines()[0]}"
    else:
        return None
    finally:
        if place.device.type == "cuda":
            torch.cuda.empty_cache()  # the next group plans with what is free
    half = len(recipes) // 2  # too wide a stack
    errors = [
        train_stack(store, part, place, on_epochs) for part in (recipes[:half], recipes[half:])
    ]
    return next((error for error in errors if error), None)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch computes with so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- in a worker ----------------------------------------------------------------------------------

_worker: dict[str, Any] = {"busy": False, "terminated": False}


def _begin(store: str, digest: str, place: Place, epochs: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and says so by `stop`
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()
    choose_device(str(place.device))  # before this process computes anything
    _worker.update(store=store, digest=digest, place=place, epochs=epochs, stop=stop)


def _leave_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _terminate(number: int, frame: Any) -> None:
    """Whole process groups are asked to stop (`scancel`, `timeout`): nothing half done stays."""
    _worker["terminated"] = True
    if not _worker["busy"]:
        os._exit(128 + number)
    raise Stopped


def _work(recipes: list[Recipe]) -> str | None:
    def on_epochs(count: int) -> None:
        _worker["epochs"].put(count)
        if _worker["stop"].is_set():
            raise Stopped

    _worker["busy"] = True
    try:
        if isinstance(_worker["store"], str):
            _worker["store"] = open_store(_worker["store"])
        if _worker["store"].content_digest != _worker["digest"]:
            return "the store was written to after the sweep began: start it again"
        return train_stack(_worker["store"], recipes, _worker["place"], on_epochs)
    except Stopped:
        if _worker["terminated"]:
            os._exit(128 + signal.SIGTERM)
        raise
    finally:
        _worker["busy"] = False
