"""Every claim about speed, one after the other, in one table: `make bench`.

    python benchmarks/all.py                        about half an hour on two cores
    python benchmarks/all.py --only store frames    some of them
    python benchmarks/all.py --quick                whether they run at all; the numbers say little

Writes performance.json and performance.md, with the machine's description, to --out. Nothing else
should run meanwhile. A benchmark that fails stands in the table with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import claims
import machine
from written import replace_tables

SCRIPTS = (
    "start", "frames", "encoders", "extraction", "one_decoding", "peers", "store", "transport",
    "steps", "streaming", "growth", "scale_out",
)  # fmt: skip
HERE = Path(__file__).parent
SCRIPT = "benchmarks/all.py"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=SCRIPTS, metavar="NAME", help="/".join(SCRIPTS)
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder (default: bench)")
    parser.add_argument("--page", type=Path, help="whose table is replaced (docs/performance.md)")
    options = parser.parse_args()
    if options.page:
        replace_tables(options.page.read_text(), SCRIPT, "")  # refused now, not after half an hour
    options.out.mkdir(parents=True, exist_ok=True)
    about = machine.describe()
    rows: list[claims.Row] = []
    failed: list[str] = []
    took: dict[str, float] = {}
    for name in options.only or SCRIPTS:
        print(f"\n## {name}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.json"
            code = run(name, path, options.quick)
            if code or not path.exists():
                failed.append(f"{name} ended with exit code {code} and no numbers")
            else:
                rows += [claims.Row(**row) for row in json.loads(path.read_text())]
        took[name] = round(time.monotonic() - began, 1)
    about["load when it ended"] = f"{os.getloadavg()[0]:.1f}"
    report = {
        "date": str(date.today()),
        "quick": options.quick,
        "machine": about,
        "seconds": took,
        "failed": failed,
        "rows": [vars(row) for row in rows],
    }
    (options.out / "performance.json").write_text(json.dumps(report, indent=1))
    tables = page(report, rows)
    (options.out / "performance.md").write_text(tables)
    if options.page:
        options.page.write_text(replace_tables(options.page.read_text(), SCRIPT, tables))
    print(
        f"\n{options.out / 'performance.md'}: {len(rows)} rows in {sum(took.values()) / 60:.1f} min"
    )
    for line in failed:
        print(line, file=sys.stderr)
    raise SystemExit(bool(failed))


def run(name: str, path: Path, quick: bool) -> int:
    """One script, in a process of its own; its exit code."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(path)]
    return subprocess.run([*command, *(["--quick"] if quick else [])]).returncode


def page(report: dict[str, Any], rows: list[claims.Row]) -> str:
    """Markdown: the machine, then the table."""
    head = [f"| {key} | {value} |" for key, value in report["machine"].items()]
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["seconds"].items())
    quick = " with --quick: the numbers say little" if report["quick"] else ""
    parts = [
        f"Measured on {report['date']}{quick}.",
        "\n".join(["| machine | |", "|---|---|", *head]),
        claims.table(rows),
        *report["failed"],
        f"Time taken: {took}.",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
