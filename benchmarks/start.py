"""How long the command line takes to answer when nothing is to be computed.

    python benchmarks/start.py

A fresh process of `pcmci --help`, the installed script, from its start until it has ended. Files
are in the page cache and bytecode is written, as on every call but the first. Calls take turns, the
first round does not count. That torch is not imported is read off the interpreter's own list of
imports (-X importtime) of the same program, not off the time.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path

import claims
import numpy as np

ROUNDS = 9
HEAVY = ("torch", "torchvision", "open_clip", "transformers", "zarr", "matplotlib", "av", "ot")
"""What takes longest to import; none of it is needed to show help."""


def main() -> None:
    options = claims.parser(__doc__).parse_args()
    script = Path(sys.executable).with_name("pcmci")
    # Without the installed script, the same program by its module.
    program = [str(script)] if script.exists() else ["-m", "pcmci"]
    calls = {
        "pcmci --help": [sys.executable, *program, "--help"],
        "pcmci extract --help": [sys.executable, *program, "extract", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(1 + (3 if options.quick else ROUNDS)):
        for name, call in calls.items():
            seconds = claims.seconds(functools.partial(run, call))
            if number:
                taken[name].append(seconds)
    bare = claims.shown_seconds(float(np.median(taken.pop("python -c pass"))))
    rows = []
    for name, values in taken.items():
        aim = "at most 0.30" if name == "pcmci --help" else ""
        note = f"a fresh process; of it `python -c pass` {bare}"
        rows.append(claims.row("start", name, values, unit="s", aim=aim, note=note))
    for name in taken:
        found = imported(calls[name])
        heavy = ", ".join(package for package in HEAVY if package in found) or "none"
        rows.append(
            claims.row(
                "start", f"{name}: torch is imported", [float("torch" in found)],
                aim="at most 0", note=f"0 is no, 1 yes; of {', '.join(HEAVY)}: {heavy}",
            )
        )  # fmt: skip
    claims.publish(rows, options.json)


def run(call: list[str]) -> str:
    """What it writes to stderr. A call that fails would be quick, and no measurement."""
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(call)} ends with {done.returncode}: {done.stderr[-500:]}")
    return done.stderr


def imported(call: list[str]) -> set[str]:
    """The top-level names that it imports."""
    listed = run([call[0], "-X", "importtime", *call[1:]])
    # import time:       123 |        456 |     package.module
    return set(re.findall(r"^import time:[^|]+\|[^|]+\|\s*(\w+)", listed, re.MULTILINE))


if __name__ == "__main__":
    main()
