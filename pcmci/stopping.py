"""A clean stop of long work: what is finished is kept, and the last line says how to go on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from pcmci.errors import PcmciError


class StoppedError(PcmciError):
    """The user, or the machine, asked the work to stop. number: of the signal; exit code 128 + N.
    how: what is left, and how to go on."""

    def __init__(self, number: int, how: str) -> None:
        self.exit_code = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name}; {how}")


@dataclass
class Stop:
    """number: of the signal that asked to stop; 0 while none did."""

    number: int = 0


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """The first SIGINT or SIGTERM asks for a clean stop, a second one has its usual effect.

    Only the main thread may set handlers: elsewhere (a library call in a thread) nothing changes.
    """
    stop = Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.number = number
        for caught, handler in before.items():
            signal.signal(caught, handler)

    with contextlib.suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
