"""Run folders as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from pcmci.report.table import NOTHING, percent

SCORES = ("Acc", "mAP", "ODD@0.6")
"""The others stand in a run's metrics.json."""


def runs_table(rows: Sequence[Mapping[str, Any]], split: str) -> Table:
    """A row a run. What is nowhere, or the same everywhere, has no column: settings, head, store.

    rows: `path`, `head`, `head shown`, `order`, `settings`, `seed`, `scores` by split, `size`,
    `created`, `store`.
    """
    scores = [name for name in SCORES if any(name in _scores(row, split) for row in rows)]
    columns = {"run": [str(row["path"]) for row in rows]}
    if len({row["head"] for row in rows}) > 1 or rows[0]["head"] != "pcmci":
        columns["head"] = [row["head shown"] for row in rows]
    columns |= {
        "order": [row["order"] for row in rows],
        "settings": [row["settings"] for row in rows],
        "seed": [str(row["seed"]) for row in rows],
        **{name: [percent(_scores(row, split).get(name)) for row in rows] for name in scores},
        "size": [row["size"] for row in rows],
        "when (UTC)": [row["created"].removesuffix("Z").replace("T", " ")[:16] for row in rows],
    }
    if len({row["store"] for row in rows}) > 1:
        columns["store"] = [row["store"] for row in rows]
    title = f"runs, scores on {split} in percent"
    return _table(title, columns, right=("seed", *scores, "size", "when (UTC)"))


def left_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What is no run, and why. rows: `path`, `state`, `reason`, `size`."""
    columns = {
        "folder or record": [str(row["path"]) for row in rows],
        "state": [row["state"] for row in rows],
        "reason": [row["reason"] for row in rows],
        "size": [row["size"] for row in rows],
    }
    return _table("no runs", columns, right=("size",))


def _table(title: str, columns: Mapping[str, Sequence[str]], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    for name in shown:
        table.add_column(name, justify="right" if name in right else "left")
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*(cell or NOTHING for cell in cells))
    return table


def _scores(row: Mapping[str, Any], split: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = row["scores"].get(split, {})
    return found
