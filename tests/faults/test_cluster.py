"""Workers of a cluster that are killed at any moment: nothing lost, nothing false, nobody waits."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
from clusters import Slow, kill, local_client

from faults.conftest import content, harm, short_and_long
from pcmci.extract.distributed import ClusterExtraction


@short_and_long("kills", 4, 40)
def test_workers(dataset, config, whole, tmp_path, kills, tally):
    """Two workers, of which a random one dies after a random time, over and over; a nanny starts
    it again. A video may then be in at three deaths by chance, and fails with that reason, as is
    promised: trying again does it."""
    rng = np.random.default_rng(0)
    expected, done, turn = content(whole), 0, 0
    config = config.resolved("folder")
    with local_client(2, Slow(0.1)) as client:
        while done < kills:
            out = tmp_path / f"{turn}.zarr"
            over = threading.Event()
            killer = threading.Thread(target=_kill_now_and_then, args=(client, rng, over))
            killer.start()
            try:
                found = ClusterExtraction(client, dataset, out, config, False).run(
                    overwrite=False, retry_failed=False, repair=False
                )
            finally:
                over.set()
                killer.join()
            for name, video in content(out).items():
                unlucky = "workers were killed" in video[1]
                assert video == expected[name] or unlucky
            assert harm(out) == []
            ClusterExtraction(client, dataset, out, config, False).run(
                overwrite=False, retry_failed=True, repair=False
            )
            assert content(out) == expected
            died = sum(one.deaths for one in found.workers.values())
            tally("SIGKILL of a worker", survived=died, videos_lost=0)
            done, turn = done + died, turn + 1
            assert turn < 3 * kills, "next to no worker was hit"


def _kill_now_and_then(client, rng, over: threading.Event) -> None:
    while not over.wait(float(rng.uniform(0.05, 0.6))):
        with contextlib.suppress(ValueError, OSError, KeyError):  # it is just starting, or going
            kill(client, str(rng.integers(2)))
