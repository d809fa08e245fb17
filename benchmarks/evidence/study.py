"""Under which conditions does each stage help? Level 0: a world of features, hundreds of runs.

    python benchmarks/evidence/study.py --out /tmp/study            all of it
    python benchmarks/evidence/study.py --out /tmp/study --quick    minutes, to see it run
    python benchmarks/evidence/study.py --page                      the page again, from the rows

Runs are kept under --out: the same command goes on where it was stopped. What is expected stands in
expected.md, which was committed before anything was run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a run a core: they are many, and small
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

from written import replace_tables

from evidence.cells import CELLS, QUICK, QUICK_HEADS
from evidence.runs import codes, commit, jobs, path_of, run_all
from pcmci.errors import PcmciError

if TYPE_CHECKING:
    from evidence.measured import Row

SCRIPT = "benchmarks/evidence/study.py"


def main() -> None:
    """Parse, run what is missing, and write rows and page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("evidence-study"), help="where runs are kept")
    add("--quick", action="store_true", help="three cells, six heads, two seeds; its page in --out")
    add("--processes", type=int, default=os.cpu_count(), help="runs at a time, a thread each")
    add("--no-run", action="store_true", help="rows and page of the runs that are there")
    add("--page", action="store_true", help="the page again, from the committed rows")
    add("--json", action="store_true", help="print what was compared, a line of JSON each")
    asked = parser.parse_args()
    try:
        study(asked)
    except PcmciError as error:
        sys.exit(f"study.py: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on here")


def study(asked: argparse.Namespace) -> None:
    """What the command line asks for. Raises PcmciError where there is nothing to show."""
    from evidence.measured import ROWS, measure, read_rows, write_rows
    from evidence.training import Budget

    budget = Budget(seeds=2) if asked.quick else Budget()
    wanted = jobs(QUICK, QUICK_HEADS) if asked.quick else jobs(tuple(CELLS))
    rows_at = asked.out / "rows.parquet" if asked.quick else ROWS
    if not asked.page:
        if not asked.no_run:
            run_all(asked.out, wanted, budget, asked.processes)
        ran = sum(path_of(asked.out, job, budget).exists() for job in wanted)
        if not ran:
            raise PcmciError(
                f"{asked.out} holds no run of this study; without --no-run it makes them"
            )
        about = {
            "runs": f"{ran} of {len(wanted)} (a head in a cell, {budget.seeds} seeds)",
            "budget": ", ".join(f"{name} {value}" for name, value in vars(budget).items()),
            "code of the runs": codes(asked.out, wanted, budget),
            "code of the measures": commit(),
            "command": f"python {SCRIPT} --out {asked.out}" + " --quick" * asked.quick,
        }
        write_rows(measure(asked.out, wanted, budget), rows_at, about)
    rows, about = read_rows(rows_at)
    print(f"rows: {rows_at}", file=sys.stderr)
    print(f"page: {write_page(rows, about, asked.out if asked.quick else None)}", file=sys.stderr)
    if asked.json:
        for row in rows:
            if row.kind == "difference":
                print(json.dumps(vars(row), allow_nan=False))


def write_page(rows: list[Row], about: dict[str, str], out: Path | None) -> Path:
    """docs/evidence/index.html, and the part of docs/evidence.md with its figures; of a quick one
    only the HTML, in its folder."""
    from evidence.pages import DOCS, figures_of, markdown, page

    made = page(rows, about)
    if out is not None:
        return made.write(out / "evidence.html")
    figures = DOCS / "evidence"
    figures.mkdir(exist_ok=True)
    for name, drawing in figures_of(made).items():
        (figures / name).write_text(drawing)
    text = DOCS / "evidence.md"
    text.write_text(replace_tables(text.read_text(), SCRIPT, markdown(made)))
    return made.write(figures / "index.html")


if __name__ == "__main__":
    main()
