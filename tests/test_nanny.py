"""A worker's process that ends in the midst of its start is started again, and closes cleanly."""

import asyncio
import os
import signal

import dask
import pytest
from children import forkserver
from distributed import Scheduler
from distributed.nanny import WorkerProcess

from pcmci.cluster.nanny import PatientNanny


async def until(so) -> None:
    while not so():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("close", ["at once", "later"])
def test_a_process_that_ends_before_its_start_was_seen(signed, close, monkeypatch):
    """signed: it dies after its worker's first sign of life, which the nanny reads when the next
    start is asked for; or it dies before, and there is none."""
    starts = []  # those that go on
    most = []  # how many at once
    asked = []  # for the next process

    start, look, instantiate = (
        WorkerProcess.start,
        WorkerProcess._wait_until_connected,
        PatientNanny.instantiate,
    )

    async def counted(process):
        starts.append(process)
        most.append(len(starts))
        try:
            return await start(process)
        finally:
            starts.pop()

    async def late(process, *arguments):
        queue = process.init_result_q
        if len(most) == 2:
            if signed:
                await until(lambda: not queue.empty())
            os.kill(process.pid, signal.SIGKILL)
            await until(lambda: len(asked) == 3)
            await until(lambda: close == "later" or asked[0].status.name != "running")
        return await look(process, *arguments)

    async def noted(nanny):
        asked.append(nanny)
        return await instantiate(nanny)

    async def main():
        options = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
        async with (
            Scheduler(**options) as scheduler,
            PatientNanny(scheduler.address, host="127.0.0.1", memory_limit=0) as nanny,
        ):
            first = nanny.pid
            os.kill(first, signal.SIGKILL)
            await until(lambda: len(asked) == 3)
            if close == "later":
                await until(lambda: nanny.process.status.name == "running" and not starts)
                assert nanny.pid not in (None, first)
                await until(lambda: nanny.worker_address in scheduler.workers)
        assert nanny.status.name == "closed"
        assert not starts

    monkeypatch.setattr(WorkerProcess, "start", counted)
    monkeypatch.setattr(WorkerProcess, "_wait_until_connected", late)
    monkeypatch.setattr(PatientNanny, "instantiate", noted)
    forkserver()
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        asyncio.run(main())
    assert set(most) == {1}
    assert len(most) == {"at once": 2, "later": 3}[close]
