"""Dask workers as jobs of SLURM, for `pcmci extract --scheduler FILE`.

    python docs/cluster/slurm.py --partition gpu --jobs 16 --walltime 04:00:00
    python docs/cluster/slurm.py --partition cpu --jobs 40 --gpus 0 --cores 16 --memory 32GB
    python docs/cluster/slurm.py --partition gpu --job-script    # what would be submitted, no more

Runs on the login node, as long as you let it: Ctrl-C gives all jobs back. The scheduler is in this
process. A job is one worker, and has one GPU or none; it starts when SLURM finds a place for it,
and an extraction that is running takes it in. Where a worker has nothing to do, its job ends.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from pathlib import Path

from dask_jobqueue import SLURMCluster
from distributed.deploy.adaptive import Adaptive

TASKS_AT_A_TIME = 2
"""Of a worker with a GPU: while the frames of one are encoded, the other's are decoded."""


class AsLongAsAllAreBusy(Adaptive):
    """Asks for all the jobs there may be, until a worker has nothing to do.

    Dask's own rule looks at the tasks that wait. pcmci keeps its work to itself and gives each
    worker three small tasks at a time, so they never are many, whatever is left.
    """

    async def target(self) -> int:
        wanted: int = await super().target()
        # Less than there are: the scheduler has found idle ones. None there: it knows of a task.
        all_are_busy = 0 < len(self.observed) <= wanted
        return int(self.maximum) if all_are_busy else wanted


def main() -> None:
    options = parser().parse_args()
    with make_cluster(options) as cluster:
        if options.job_script:
            print(cluster.job_script())
            return
        cluster.adapt(Adaptive=AsLongAsAllAreBusy, minimum=1, maximum=options.jobs)
        print(f"scheduler: {cluster.scheduler_address}, dashboard: {cluster.dashboard_link}")
        print(f"now: pcmci extract --scheduler {options.scheduler_file} --dataset …", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    print("jobs are given back", file=sys.stderr)


def make_cluster(options: argparse.Namespace) -> SLURMCluster:
    """A scheduler here, and no job yet."""
    gpu = options.gpus > 0
    return SLURMCluster(
        queue=options.partition,
        account=options.account,
        walltime=options.walltime,
        memory=options.memory,
        job_cpu=options.cores,  # what SLURM sets aside
        cores=TASKS_AT_A_TIME if gpu else options.cores,  # --nthreads
        processes=1,
        job_extra_directives=["--gpus=1"] if gpu else [],
        # SLURM ends what takes more memory than its job has; Dask would do so earlier, at a guess.
        worker_extra_args=["--memory-limit", "0"],
        interface=options.interface,
        log_directory=str(options.logs),
        job_script_prologue=options.before,
        scheduler_options={
            "interface": options.interface,
            "dashboard_address": options.dashboard,
            "scheduler_file": str(options.scheduler_file),
        },
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = made.add_argument
    option("--partition", help="SLURM's -p")
    option("--account", help="SLURM's -A")
    option("--jobs", type=int, default=8, help="at most so many at a time (8)")
    option("--gpus", type=int, choices=(0, 1), default=1, help="of a job (1)")
    option("--cores", type=int, default=10, help="of a job: 8 decode for a GPU (10)")
    option("--memory", default="32GB", help="of a job (32GB)")
    option("--walltime", default="04:00:00", help="of a job; another one follows it (04:00:00)")
    option("--interface", help="the network that nodes and this machine share, as ib0")
    option("--dashboard", default=":8787", help="its address (:8787)")
    option("--scheduler-file", type=Path, default=Path("scheduler.json"), help="(scheduler.json)")
    option("--logs", type=Path, default=Path("logs"), help="folder of the jobs' logs (logs)")
    option(
        "--before", action="append", default=[], metavar="LINE",
        help="shell, before the worker starts: 'module load cuda', 'export HF_HUB_OFFLINE=1'",
    )  # fmt: skip
    option("--job-script", action="store_true", help="print what a job would run, and end")
    return made


if __name__ == "__main__":
    main()
