"""Workers of a cluster that are killed at any moment: nothing lost, nothing false, nobody waits."""

from __future__ import annotations

import contextlib
import time

import numpy as np
from clusters import kill, local_client

from faults.conftest import content, harm, short_and_long
from pcmci.cluster.dispatch import Dispatcher
from pcmci.cluster.exits import Exits
from pcmci.extract.distributed import ClusterExtraction


@short_and_long("kills", 4, 40)
def test_workers(dataset, config, whole, tmp_path, kills, tally, monkeypatch):
    """Two workers. One that has announced itself (and loads), or was given a task, or had one of
    its videos taken, may die just then or some moments later; a nanny starts it again. A video may
    be in at three deaths by chance, and fails with that reason, as is promised: trying again does
    it."""
    expected, done, turn = content(whole), 0, 0
    config = config.resolved("folder")
    with local_client(2) as client:
        killer = _Killer(client, np.random.default_rng(0))
        while done < kills:
            out = tmp_path / f"{turn}.zarr"
            with killer.at_work(monkeypatch):
                ClusterExtraction(client, dataset, out, config, False).run(
                    overwrite=False, retry_failed=False, repair=False
                )
            for name, video in content(out).items():
                unlucky = "workers were killed" in video[1]
                assert video == expected[name] or unlucky
            assert harm(out) == []
            ClusterExtraction(client, dataset, out, config, False).run(
                overwrite=False, retry_failed=True, repair=False
            )
            assert content(out) == expected
            tally("SIGKILL of a worker", survived=killer.killed - done, videos_lost=0)
            done, turn = killer.killed, turn + 1


class _Killer:
    """killed: how many workers were hit."""

    def __init__(self, client, rng) -> None:
        self._client, self._rng = client, rng
        self.killed = 0

    @contextlib.contextmanager
    def at_work(self, monkeypatch):
        """Whatever the workers do, they may die of it; as often as not, and six times at most."""
        left = self.killed + 6

        def may_die(worker: str) -> None:
            if self.killed < left and self._rng.random() < 0.4:
                if self._rng.random() < 0.5:
                    time.sleep(float(self._rng.uniform(0, 0.1)))  # in the middle of it
                with contextlib.suppress(OSError):  # it is going
                    self.killed += kill(self._client, worker)

        watch, submit, take = Exits.watch, Dispatcher._submit, ClusterExtraction._take

        def watch_and_kill(exits, address):
            watch(exits, address)
            may_die(address)

        def submit_and_kill(dispatcher, address, function, items):
            submit(dispatcher, address, function, items)
            if items:
                may_die(address)

        def take_and_kill(extraction, finished, intake):
            take(extraction, finished, intake)
            may_die(finished.worker.name)

        with monkeypatch.context() as patch:
            patch.setattr(Exits, "watch", watch_and_kill)
            patch.setattr(Dispatcher, "_submit", submit_and_kill)
            patch.setattr(ClusterExtraction, "_take", take_and_kill)
            yield
