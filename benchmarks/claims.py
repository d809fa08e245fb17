"""What a benchmark ends with: rows of what was measured, what came out, and what was hoped for."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Row:
    """One line of the table.

    claim: `frames`, `load`. case: what of it. value: the median over the repeats; low, high: the
    quartiles. unit: "" for a ratio of two measurements in one run. aim: "at most 0.35", "at least
    0.5", or "" where the row only informs. note: what a reader of the number has to know.
    """

    claim: str
    case: str
    value: float
    low: float
    high: float
    unit: str = ""
    aim: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached, as far as the table shows digits; None without an aim."""
        if not self.aim:
            return None
        bound = float(self.aim.split()[-1])
        shown = float(f"{self.value:.2f}")
        return shown <= bound if self.aim.startswith("at most") else shown >= bound


def row(
    claim: str,
    case: str,
    values: Sequence[float] | np.ndarray,
    *,
    aim: str = "",
    unit: str = "",
    note: str = "",
) -> Row:
    """A row of the median and the quartiles of `values`, one a repeat."""
    low, median, high = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
    return Row(claim, case, median, low, high, unit, aim, note)


def seconds(call: Callable[[], object]) -> float:
    """Of one call. What it gives back is let go after the clock has stopped."""
    began = time.perf_counter()
    kept = call()
    taken = time.perf_counter() - began
    del kept
    return taken


def paired(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    repeats: int,
    *,
    before: Callable[[], object] = lambda: None,
    warm: bool = True,
) -> np.ndarray:
    """[repeats, 2] seconds of both, in turns, so that a busy moment of the machine hits both.

    before: called before each pair, and not timed. warm: a first pair that does not count.
    """
    pairs = []
    for number in range(repeats + warm):
        before()
        # Every other pair begins with the other one: what the first warms serves the second.
        calls = [ours, theirs] if number % 2 else [theirs, ours]
        taken = [seconds(call) for call in calls]
        pairs.append(taken if number % 2 else taken[::-1])
    return np.array(pairs[int(warm) :])


def ratio_row(claim: str, case: str, pairs: np.ndarray, *, aim: str = "", note: str = "") -> Row:
    """Ours / theirs of `paired`, with both times in the note."""
    ours, theirs = np.median(pairs, axis=0)
    times = f"{shown_seconds(ours)} / {shown_seconds(theirs)}"
    note = f"{times}; {note}" if note else times
    return row(claim, case, pairs[:, 0] / pairs[:, 1], aim=aim, note=note)


def shown_seconds(value: float) -> str:
    """`1.2 ms`, `3.45 s`."""
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """With the options that every benchmark has: --quick and --json."""
    made = argparse.ArgumentParser(
        description=(doc or "").split("\n\n")[0],
        epilog=(doc or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--quick", action="store_true", help="small sizes: runs, and says little")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    return made


def publish(rows: Sequence[Row], path: Path | None) -> None:
    """Print the rows as a Markdown table; write them as JSON where a path is given."""
    print(table(rows))
    if path is not None:
        path.write_text(json.dumps([dataclasses.asdict(one) for one in rows], indent=1))


def table(rows: Sequence[Row]) -> str:
    """Markdown. A value that misses its aim stands there as it is."""
    lines = [
        "| claim | measured | value | quartiles | aim | | remarks |",
        "|---|---|---|---|---|---|---|",
    ]
    marks = {None: "", True: "met", False: "**missed**"}
    for one in rows:
        unit = f" {one.unit}" if one.unit else ""
        lines.append(
            f"| {one.claim} | {one.case} | **{_number(one.value)}**{unit} | "
            f"{_number(one.low)} to {_number(one.high)} | {one.aim} | {marks[one.met]} | "
            f"{one.note} |"
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
