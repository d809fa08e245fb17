"""What one variable does to answers, measured on twins, as tables for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table as Printed

from pcmci.report.page import Cell, Noted, Section, Table
from pcmci.report.table import NO_INTERVAL, NOTHING

Report = Mapping[str, Mapping[str, Any]]
"""Split of twins -> what is known of its effect, see `pcmci.heads.scoring.effects.effects_report`;
in a table of several rows with `difference`, to the reference, and `removes`."""

CAUSE = "cause"

HOW_TO_READ = (
    "CDE: by how many logits the truth's lead changes when that variable alone does, with its "
    "95 % interval; above 0 a head goes by its custom, at 0 it speaks on the whole neither for nor "
    "against the truth. flips: answers that change, in whichever direction. What is done: the same "
    "with another performance and all else as "
    "it was, the larger the better. ratio: the one over the other; compare heads by it, for logits "
    "have no unit."
)

REMOVES = (
    "Δ: the difference to the reference. lowers it: the CDE is below nine tenths of the "
    "reference's, and more than nine tenths of the effect of what is done is kept, both by all of "
    "their intervals; what is left of the confounder is the CDE. It says something of a stage "
    "where the reference has the same information (--reference)."
)


def effects_table(rows: Mapping[str, Report], labels: str) -> Printed:
    """A row a head or order, a column a variable. rows: name -> what was measured."""
    title = f"effects on {labels}, measured on twins (CDE in logits, flips in percent)"
    table = Printed(title=title, title_justify="left")
    table.add_column("row")
    splits = _splits(rows.values())
    for name in (heading(rows, split) for split in splits):
        table.add_column(name, justify="right")
    for name, report in rows.items():
        table.add_row(name, *("\n".join(_lines(report.get(split))) for split in splits))
    if lacking := no_ratio_lines(rows):
        table.caption, table.caption_justify = "\n".join(lacking), "left"
    return table


def effects_section(by_labels: Mapping[str, Mapping[str, Report]], more: str = "") -> Section:
    """The same for a page. by_labels: label set -> row -> report. more: a sentence of it."""
    tables = []
    for labels, rows in by_labels.items():
        splits = _splits(rows.values())
        body: list[list[Cell]] = []
        for name, report in rows.items():
            cells: list[Cell] = []
            for split in splits:
                first, *others = _lines(report.get(split))
                cells.append(Noted(first, "\n".join(others)))
            body.append([name, *cells])
        head = ["row", *(heading(rows, split) for split in splits)]
        lacking = "".join(f" {line[0].upper()}{line[1:]}." for line in no_ratio_lines(rows))
        tables.append(Table(head, body, f"{labels}: CDE in logits, flips in percent.{lacking}"))
    words = [
        "Twins are videos that differ in one variable alone, so that what it does to an answer is "
        "measured video by video, without the ceiling that accuracy has.",
        HOW_TO_READ,
        *([more] if more else []),
    ]
    return Section("What each variable does to the answers", words, tables)


def of_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Report]]:
    """Label set -> variant -> report, of the rows of an ablation's table `effects`."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        report = {
            **row,
            **{name: _interval(row, name) for name in ("cde", "flips", "ratio", "difference")},
        }
        found.setdefault(row["labels"], {}).setdefault(row["variant"], {})[row["split"]] = report
    return {labels: dict(by_variant) for labels, by_variant in found.items()}


def heading(rows: Mapping[str, Report], split: str) -> str:
    """`CDE h (102 of 120 twins)`; `what is done` of causal twins."""
    some = next(report[split] for report in rows.values() if split in report)
    what = "what is done" if some["differs"] == CAUSE else f"CDE {some['differs']}"
    count = f"{some['videos']}"
    if some["videos"] != some["pairs"]:
        count += f" of {some['pairs']}"
    return f"{what}\n({count} twins)"


def no_ratio_lines(rows: Mapping[str, Report]) -> list[str]:
    """Why there are ratios that are not there, a line a reason."""
    where: dict[str, list[str]] = {}
    for name, report in rows.items():
        for found in report.values():
            if found.get("no ratio"):
                where.setdefault(found["no ratio"], []).append(f"{name} {found['differs']}")
    everywhere = sum(len(report) for report in rows.values())
    return [
        f"no ratio: {why}" + ("" if len(cells) == everywhere else f" ({', '.join(cells)})")
        for why, cells in where.items()
    ]


def _splits(reports: Iterable[Report]) -> Sequence[str]:
    """Confounders first."""
    differs = {split: found["differs"] for one in reports for split, found in one.items()}
    return sorted(differs, key=lambda split: differs[split] == CAUSE)


def _lines(found: Mapping[str, Any] | None) -> list[str]:
    """The CDE, and under it what else there is to say."""
    if not found:
        return [NOTHING]
    if found["cde"] is None:
        return [NOTHING, str(found["why"])]
    lines = [_shown(found["cde"])]
    if found.get("flips"):
        lines.append(f"flips {100 * found['flips']['value']:.1f}")
    if found.get("ratio"):
        lines.append(f"ratio {_shown(found['ratio'])}")
    if found.get("reference"):
        lines.append("reference")
    elif found.get("difference"):
        lines.append(f"Δ {_shown(found['difference'], '+')}")
        lines += ["lowers it"] if found.get("removes") else []
    return lines


def _shown(interval: Mapping[str, float | None], sign: str = "") -> str:
    value, low, high = (interval[name] for name in ("value", "low", "high"))
    if low is None or high is None:
        return f"{value:{sign}.2f}, {NO_INTERVAL}"
    return f"{value:{sign}.2f}, {low:.2f} to {high:.2f}"


def _interval(row: Mapping[str, Any], name: str) -> dict[str, float | None] | None:
    if row.get(name) is None:
        return None
    return {"value": row[name], "low": row.get(f"{name} low"), "high": row.get(f"{name} high")}
