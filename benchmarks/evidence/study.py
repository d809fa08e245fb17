"""Under which conditions does each stage help? Level 0: a world of features, hundreds of runs.

    python benchmarks/evidence/study.py --out /tmp/study            all of it
    python benchmarks/evidence/study.py --out /tmp/study --quick    minutes, to see it run
    python benchmarks/evidence/study.py --page                      the page again, from the rows

Runs are kept under --out: the same command goes on where it was stopped. What is expected stands in
expected.md, which was committed before anything was run.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a run a core: they are many, and small
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

from evidence.cells import CELLS, QUICK, QUICK_HEADS
from evidence.runs import jobs, run_all


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("evidence-study"), help="where runs are kept"
    )
    parser.add_argument("--quick", action="store_true", help="three cells, six heads, two seeds")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time")
    asked = parser.parse_args()
    from evidence.training import Budget

    budget = Budget(seeds=2) if asked.quick else Budget()
    wanted = jobs(QUICK, QUICK_HEADS) if asked.quick else jobs(tuple(CELLS))
    run_all(asked.out, wanted, budget, asked.processes)


if __name__ == "__main__":
    main()
