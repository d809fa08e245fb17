"""Answers that several commands show."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pcmci.plain import plain, plain_json


def print_json(content: Any) -> None:
    """One JSON object; what could not be computed is null in it."""
    text = json.dumps(_defined(content), indent=1, ensure_ascii=False, allow_nan=False)
    print(plain_json(text))


def _defined(content: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(content, dict):
        return {name: _defined(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_defined(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def say_undefined(scores: dict[str, Any]) -> None:
    """Below a table with dashes: why they are there."""
    from pcmci.heads.scoring.scores import undefined
    from pcmci.report.table import headline_scores, undefined_lines

    for line in undefined_lines(undefined(scores, headline_scores(scores))):
        print(plain(line))


@contextlib.contextmanager
def progress_bar(what: str, unit: str, silent: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that reports (done, of how many)."""
    from tqdm import tqdm

    with tqdm(desc=what, unit=unit, disable=True if silent else None, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


def say_coverage(store: Any, named: bool = False) -> None:
    from pcmci.cache.schema import Status

    counts = store.counts
    if lost := len(store) - counts[Status.DONE]:
        without = ", ".join(
            f"{counts[s]} {s.name.lower()}" for s in Status if s is not Status.DONE and counts[s]
        )
        print(
            (f"{store.path}: " if named else "")
            + f"{lost} of {len(store)} videos have no features ({without}); "
            "where they are to be scored they count as wrong",
            file=sys.stderr,
        )
    if planted := store.spec.planted:
        print((f"{store.path}: " if named else "") + planted.words, file=sys.stderr)
    activity = store.spec.activity
    if activity is not None and len(activity) == 1:
        print(
            f"ONE CLASS ONLY, {plain(repr(activity.names[0]))}: whatever is predicted is right, so "
            "Acc is 100 and says nothing",
            file=sys.stderr,
        )
    if damaged := int((store.replaced > 0).sum()):
        print(
            f"{damaged} of {len(store)} videos are damaged: {int(store.replaced.sum())} of their "
            f"frames are not those that were to be taken (pcmci store failures {store.path})",
            file=sys.stderr,
        )


def show_worker(name: str, did: str, summary: Any) -> None:
    """A line of a cluster's worker. summary: with `seconds`, of which `busy`, and a `note`."""
    waited = ""
    if summary.seconds:
        waited = f", waited {max(0.0, 1 - summary.busy / summary.seconds):.0%}"
    note = f", {summary.note}" if summary.note else ""
    print(f"worker {name}: {did}{waited}{note}")


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """Bytes as `812 B`, `4.2 kB`, `590.0 MB` or `1.3 GB`, of 1000 each."""
    if count < 1000:
        return f"{count} B"
    value, units = count / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}"
