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
        self._said, self._said_at = "", 0.0

    def wait(self, why: str, *, may_end: bool = True, at_once: bool = True) -> None:
        """why: there is none, in words. at_once: say so now, and not only when it takes long.

        Raises ClusterError where the time is up and it `may_end`.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = self._said_at = now
        left = self._seconds - (now - self._since)
        if left <= 0 and may_end:
            raise ClusterError(
                f"no worker could be used for {_shown(self._seconds)}: {why}; the same command "
                "goes on from here, and --wait-workers MINUTES lets it wait longer"
            )
        if (at_once and why != self._said) or now - self._said_at > AGAIN_SECONDS:
            most = f", {_shown(left)} at most" if may_end else ""
            self._say(f"{why}: waiting for one{most}")
            self._said, self._said_at = why, now


def before_work(died: int) -> str:
    """Of so many processes, for `Patience.wait`; "" for none."""
    return f"{died} ended before they had work (killed, or out of memory?)" if died else ""


def _shown(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
