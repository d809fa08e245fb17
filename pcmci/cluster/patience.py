"""How long a run without a usable worker waits for one, and what it says meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from pcmci.errors import ClusterError, UsageError

WAIT_MINUTES = 60.0
"""Of a run that has no usable worker, after which it ends; `--wait-workers` says another number."""

AGAIN_SECONDS = 300
"""What is waited for is said again so often."""


NOBODY = "no worker is there"
NONE_USABLE = "of the workers there none may do the work"
UNDECIDED = "no worker has said yet whether it can do the work"


class Patience:
    """Tell it `over()` when a worker can work and `wait(...)` as long as none can.

    minutes: how long the latter may go on. say: a line for the user.
    Raises UsageError for minutes below 0.
    """

    def __init__(self, minutes: float, say: Callable[[str], None]) -> None:
        if not minutes >= 0:
            raise UsageError(f"--wait-workers {minutes:g} must be at least 0")
        self._seconds, self._say = 60 * minutes, say
        self.over()

    def over(self) -> None:
        """There is one; the clock begins anew at the next `wait`."""
        self._since: float | None = None
        self._said_at, self._nobody, self._ended = 0.0, "", 0

    def wait(self, nobody: str, ended: int) -> None:
        """nobody: why there is none to wait for, or "" where one was asked and has not answered.
        ended: processes that ended before they had work, since one could last work.

        One that was asked may take its time, unless such as it ended meanwhile.
        Raises ClusterError where the time is up.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = self._said_at = now
        left = self._seconds - (now - self._since)
        who = "1 process ended before it" if ended == 1 else f"{ended} processes ended before they"
        died = f"{who} had work (killed, or out of memory?)" if ended else ""
        why = ", and ".join(filter(None, (nobody, died)))
        if left <= 0 and why:
            raise ClusterError(
                f"no worker could be used for {_shown(self._seconds)}: {why}; the same command "
                "goes on from here, and --wait-workers MINUTES lets it wait longer"
            )
        news = ended != self._ended or (nobody and nobody != self._nobody)
        if news or now - self._said_at > AGAIN_SECONDS:
            most = f", {_shown(left)} at most" if why else ""
            self._say(f"{why or UNDECIDED}: waiting for one{most}")
            self._said_at, self._nobody, self._ended = now, nobody or self._nobody, ended


def _shown(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
