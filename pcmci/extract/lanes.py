"""Passes of small encoders side by side, a core each.

A core that helps with a small pass spends its time waiting for the other: a tiny TimeSformer takes
35 ms of two cores' time a video on two threads, 24 ms on one. And a decoder that needs a core for a
moment stops a pass on two threads altogether.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch


class Lanes:
    """So many passes at a time, each on one of torch's threads: `with Lanes(count) as lanes`.

    Inside, torch has one thread in the whole process; what it had before is given back.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._busy = 0
        self._free_since = time.perf_counter()
        self._counting = threading.Lock()

    def submit(
        self, encode: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor
    ) -> Future[torch.Tensor]:
        """What `encode` gives or raises."""
        with self._counting:
            self._busy += 1
        task = self._threads.submit(encode, batch)
        task.add_done_callback(self._done)
        return task

    def idle(self, began: float) -> float:
        """Seconds since `began` (of time.perf_counter) in which none of them had anything to do;
        to be asked by the thread that submits, which submitted nothing since."""
        with self._counting:
            now = time.perf_counter()
            return 0.0 if self._busy else now - max(began, self._free_since)

    def _done(self, task: Future[torch.Tensor]) -> None:
        with self._counting:
            self._busy -= 1
            self._free_since = time.perf_counter()

    def __enter__(self) -> Lanes:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)
        self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="encode")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(cancel_futures=kind is not None)
        torch.set_num_threads(self._before)
