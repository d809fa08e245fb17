"""`pcmci runs`: what lies in folders of runs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pcmci.commands.options import AsJson
from pcmci.commands.showing import print_json, size
from pcmci.heads.catalogue import shown_name
from pcmci.heads.training.choosing import chosen, parse_where, sorted_runs
from pcmci.heads.training.folders import DONE, STATES, Listed, list_runs
from pcmci.plain import plain


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of runs, or runs.", metavar="[DIR]...", show_default="runs"),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=VALUE, as order=ich, head=mlp, seed=0, lr=3e-3, state=broken; may be "
            "repeated: of one key any value will do, all keys have to fit.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            help="when, size, time, run, a setting or a score (Acc, mAP, ODD@0.6): times, sizes "
            "and scores with the largest first."
        ),
    ] = "when",
    split: Annotated[str, typer.Option(help="Whose scores are shown and sorted by.")] = "test",
    as_json: AsJson = False,
) -> None:
    """List runs with their settings, scores and sizes, and what is left of runs, with the reason.

    Only settings that are not the default's are shown; --json has all of them, and all scores.

    Example: pcmci runs

    Example: pcmci runs runs other/runs --where order=ich --where labels=activity --sort mAP
    """
    wanted = parse_where(where or [])
    there = list_runs(folders or [Path("runs")])
    found = sorted_runs([run for run in there if chosen(run, wanted)], sort, split)
    if as_json:
        total = sum(run.bytes for run in found)
        print_json({"runs": [_facts(run) for run in found], "bytes": total})
        return
    from pcmci.report.runs import left_table, runs_table
    from pcmci.report.table import show

    whole = [run for run in found if run.state == DONE]
    left = [run for run in found if run.state != DONE]
    if whole:
        show(runs_table(list(map(_row, whole)), split))
    if left:
        show(left_table(list(map(_row, left))))
    stores = list(dict.fromkeys(run.store for run in whole))
    if len(stores) == 1:
        print(f"store: {plain(stores[0])}")
    print(_summary(found, len(there)))


def _facts(run: Listed) -> dict[str, Any]:
    facts = dataclasses.asdict(run)
    return {**facts, "path": str(run.path), "seed": run.seed}


def _row(run: Listed) -> dict[str, Any]:
    """As `pcmci.report.runs` takes it."""
    return {
        **_facts(run),
        "head shown": shown_name(run.head) if run.state == DONE else run.head,
        "settings": " ".join(f"{name}={value}" for name, value in run.changed.items()),
        "size": size(run.bytes),
    }


def _summary(found: Sequence[Listed], of: int) -> str:
    """`12 of 80 runs, 340.1 MB; 1 broken`."""
    counts = Counter(run.state for run in found)
    others = ", ".join(
        f"{counts[state]} {state}" for state in STATES if state != DONE and counts[state]
    )
    share = "" if len(found) == of else f" of {of} folders"
    runs = f"{counts[DONE]} run{'' if counts[DONE] == 1 else 's'}"
    total = size(sum(run.bytes for run in found))
    return f"{runs}{share}, {total}" + (f"; {others}" if others else "")
