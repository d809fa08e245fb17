"""Processes that tests stop and kill, forked from one that has torch already: importing it takes
most of a process's start. Not forked from the tests' own, whose threads they would not have."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

PRELOAD = [
    "pcmci.cli",
    "pcmci.extract.station",
    "pcmci.extract.pipeline",
    "pcmci.heads.ablation.ablate",
]


@functools.cache
def forkserver() -> multiprocessing.context.ForkServerContext:
    """The one that starts all of them; it has imported what they need when this returns."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    first = context.Process(target=os.getpid)
    first.start()
    first.join()
    return context


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """What is spawned inside is forked from `forkserver`: as many imports of torch less. That a
    spawned process works as well is the matter of tests that run a script or a command."""
    context = forkserver()
    with mock.patch.object(multiprocessing, "get_context", return_value=context):
        yield


class Child:
    """`work(*arguments)`, with this process's environment and folder, in a session of its own.

    out: what it prints, to be read line by line. Its exit code is that of `SystemExit`, or -N where
    signal N ended it.
    """

    def __init__(self, work: Callable[..., object], *arguments: object) -> None:
        receive, send = forkserver().Pipe(duplex=False)
        with tempfile.NamedTemporaryFile(delete=False) as said:
            self._said = Path(said.name)
        state = dict(os.environ), os.getcwd()
        self._process = forkserver().Process(
            target=_run, args=(send, str(self._said), state, work, arguments)
        )
        self._process.start()
        send.close()
        self.out = open(os.dup(receive.fileno()), encoding="utf-8")  # noqa: SIM115
        receive.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def alive(self) -> bool:
        return self._process.is_alive()

    def send_signal(self, number: int, to_all: bool = False) -> None:
        """to_all: to those that it started too, as a terminal and `scancel` do."""
        (os.killpg if to_all else os.kill)(self.pid, number)

    def wait(self) -> tuple[int | None, str]:
        """Its exit code, and what it wrote to stderr."""
        self._process.join()
        self.out.close()
        said = self._said.read_text(encoding="utf-8")
        self._said.unlink()
        return self._process.exitcode, said


def command(*arguments: object) -> None:
    """In a child: `pcmci` with these arguments."""
    from pcmci import cli

    sys.argv = ["pcmci", *map(str, arguments)]
    cli.main()


def _run(send, said: str, state, work: Callable[..., object], arguments: tuple) -> None:
    os.setsid()
    environment, folder = state
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(send.fileno(), 1)
    send.close()
    err = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(err, 2)
    os.close(err)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    work(*arguments)
