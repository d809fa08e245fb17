"""Tables of what a feature store holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from pcmci.report.table import NOTHING

HINTS = ("zero", "still", "unusual")


def features_table(rows: Iterable[Mapping[str, Any]], title: str) -> Table:
    """A row an encoder and split: its numbers, and how many videos are odd in which way."""
    table = Table(title=title, title_justify="left")
    for name in ("encoder", "split", "videos", "done", "mean", "sd", "norm", "from", "to", *HINTS):
        table.add_column(name, justify="left" if name in ("encoder", "split") else "right")
    for row in rows:
        numbers = (row[name] for name in ("mean", "sd", "norm", "norm_min", "norm_max"))
        counts = (row["videos"], row["done"])
        odd = (len(row[name]) for name in HINTS)
        table.add_row(
            row["encoder"], row["split"], *map(str, counts), *map(_number, numbers), *map(str, odd)
        )
    return table


def hints(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for what a row has of odd videos: `vlm, test, still: v7, v9 and 3 more`."""
    lines = []
    for row in rows:
        for name in HINTS:
            ids = row[name]
            more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
            if ids:
                where = f"{row['encoder']}, {row['split']}, {name}"
                lines.append(f"{where}: {', '.join(ids[:3])}{more}")
    return lines


def compared_table(rows: Iterable[Mapping[str, Any]], above: float) -> Table:
    """A row a split: how alike its videos are to their nearest in train."""
    title = "likeness to the nearest video of train"
    table = Table(title=title, title_justify="left")
    for name in ("split", "videos", "median", "highest", f"{above:g} or more"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for row in rows:
        likeness = (f"{row[name]:.4f}" for name in ("median", "highest"))
        table.add_row(row["split"], str(row["videos"]), *likeness, str(row["copies"]))
    return table


def pairs_table(rows: Iterable[Mapping[str, Any]], above: float) -> Table:
    """A row a video that has one of train's so like it that they may be the same film."""
    table = Table(title=f"alike by {above:g} or more: the same film?", title_justify="left")
    for name in ("video", "split", "in train", "alike", "vlm", "video encoder", "of train"):
        left = name in ("video", "split", "in train")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in rows:
        likeness = (f"{row[name]:.4f}" for name in ("alike", "vlm", "video"))
        table.add_row(row["id"], row["split"], row["train"], *likeness, str(row["among"]))
    return table


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"
