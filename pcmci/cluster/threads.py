"""How many threads torch has in a worker: Dask tells it one, whatever the worker was given."""

from __future__ import annotations

import os

from distributed import get_worker

THREADS = "PCMCI_THREADS"
"""Set in a worker's environment, it says how many."""


def torch_threads() -> int:
    """In a task: as many as the environment says, else as many as the worker has of Dask's."""
    told = os.environ.get(THREADS, "")
    if told.isdecimal() and int(told):
        return int(told)
    return max(1, int(get_worker().state.nthreads))
