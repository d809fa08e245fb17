"""Scores as tables for a terminal. Numbers come in as fractions and are shown in percent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pcmci.plain import plain
from pcmci.report.encoders import row_notes
from pcmci.report.paper import reported, reported_encoder

NOTHING = "–"
NO_INTERVAL = "no interval"
WHY_NO_INTERVAL = "some draws of the bootstrap hold nothing that could be scored"
"""As no positive video of any step."""

MOST_WIDE = 10_000

FEWEST_LETTERS = 8
"""Of a name in a line of a table: with fewer a list is easier to read."""


def percent(value: float | None) -> str:
    """`0.9746` as `97.46`; a dash for an undefined score."""
    return NOTHING if value is None else f"{100 * value:.2f}"


class Bounds(Protocol):
    """An estimate with its interval, as fractions."""

    @property
    def value(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def signed(interval: Bounds) -> str:
    """`+1.20, -0.31 to 2.70` in percent; `+1.20, no interval` where a draw had nothing to score."""
    value, low, high = (100 * x for x in (interval.value, interval.low, interval.high))
    return f"{value:+.2f}, " + (NO_INTERVAL if math.isnan(low) else f"{low:.2f} to {high:.2f}")


def score_table(
    scores: Mapping[str, Mapping[str, Any]], title: str, notes: Sequence[str] = ()
) -> Table:
    """A row a split: Acc, mAP by every rule it was scored with, ODD beside the truth's own.

    scores: split -> name -> value, as in a run's metrics.json. notes: lines under the table.
    """
    names = _score_names(scores)
    table = _noted(Table(title=title, title_justify="left"), notes)
    for name in ["split", "videos", *names, "coverage"]:
        table.add_column(name, justify="left" if name == "split" else "right")
    for split, values in scores.items():
        cells = [percent(values.get(name)) for name in names]
        damaged = values.get("with replaced frames")
        coverage = percent(values["coverage"]) + (f", {damaged} damaged" if damaged else "")
        table.add_row(split, str(values["videos"]), *cells, coverage)
    return table


def heads_table(heads: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row a label set: what was trained, and which epoch was scored and why. The best-on-test
    score is the best of the epochs that were looked at."""
    table = Table(title="heads", title_justify="left")
    for name in ("labels", "trained", "share %", "epoch", "chosen by", "best-on-test", "seconds"):
        table.add_column(name, justify="left" if name in ("labels", "chosen by") else "right")
    for labels, facts in heads.items():
        best = facts["best-on-test"]
        shown = (
            f"{best['score']} {percent(best['value'])}, epoch {best['epoch']}" if best else NOTHING
        )
        table.add_row(
            labels, f"{facts['trained parameters']:,}", percent(facts["trained share"]),
            str(facts["chosen epoch"]), facts["chosen by"], shown, f"{facts['seconds']:.0f}",
        )  # fmt: skip
    return table


def orders_table(
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]],
    name: str,
    against: Mapping[str, Mapping[str, Bounds]] | None = None,
) -> Table:
    """A row an order of stages, a column a split: one score, and how it differs from a reference.

    scores: order -> split -> name -> value. against: order -> split -> the difference; an order
    that is not in it is the reference. Splits that chose (`val`) are left out.
    """
    splits = [s for s in dict.fromkeys(x for by in scores.values() for x in by) if s != "val"]
    table = Table(title=f"{name} (percent)", title_justify="left")
    table.add_column("order")
    for split in splits:
        table.add_column(split, justify="right")
    for order, by_split in scores.items():
        cells = []
        for split in splits:
            cell = percent(by_split[split].get(name))
            if against and split in against.get(order, {}):
                cell += f"\n{signed(against[order][split])}"
            cells.append(cell)
        table.add_row(order, *cells)
    return table


def ablation_table(summary: Iterable[Mapping[str, Any]], score: str, split: str) -> Table | None:
    """The paper's form: a tick a stage, the order, and a score over seeds; the best in bold.

    summary: rows of an ablation. None where the score was not taken on this split, or is undefined
    there, see `undefined_line`.
    """
    rows = [row for row in summary if (row["score"], row["split"]) == (score, split)]
    if not rows or undefined_line(rows, score, split):
        return None
    some = rows[0]
    title = f"{score} on {split} (percent), mean ± standard deviation over seeds"
    table = _noted(Table(title=title, title_justify="left"), row_notes(rows))
    for name in STAGES:
        table.add_column(name.upper(), justify="center")
    truth = [percent(row["truth"]) if score.startswith("ODD") else "" for row in rows]
    paper = [paper_figure(row) for row in rows]
    extra = {
        **named(rows),
        "settings": [row["settings"] for row in rows],
        "chosen of " + str(some["settings tried"]): [row["chosen setting"] for row in rows],
        "seeds": [_seeds(row) for row in rows],
        score: [spread(row) for row in rows],
        f"difference to {_reference(rows)}": [difference(row) for row in rows],
        "trained": [count(row.get("trained parameters")) for row in rows] if several(rows) else [],
        "the truth": truth,
        "the paper": [percent(value) for value in paper],
    }
    empty = {"the paper": NOTHING}
    shown = {
        name: cells
        for name, cells in extra.items()
        if any(cell != empty.get(name, "") for cell in cells)
    }
    for name in shown:
        left = name in ("head", "order", "store", "settings") or name.startswith("chosen")
        table.add_column(name, justify="left" if left else "right")
    best = best_row(rows, score)
    for place, row in enumerate(rows):
        cells = [cells[place] for cells in shown.values()]
        table.add_row(*ticks(row["order"]), *cells, style="bold" if row is best else None)
    return table


def undefined_line(summary: Iterable[Mapping[str, Any]], score: str, split: str) -> str:
    """`mAP on test: not computed, no step has a positive video`, or "" where any row has it.

    summary: rows of an ablation, of those before this was recorded too.
    """
    rows = [row for row in summary if (row["score"], row["split"]) == (score, split)]
    why = next((row["undefined"] for row in rows if row.get("undefined")), "")
    if not why or any(row["mean"] is not None for row in rows):
        return ""
    return f"{score} on {split}: not computed, {why}"


def undefined_lines(reasons: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line each. reasons: split -> score -> why it is not there."""
    return [
        f"{name} on {split}: not computed, {why}"
        for split, of_split in reasons.items()
        for name, why in of_split.items()
    ]


def no_interval_line(summary: Iterable[Mapping[str, Any]], split: str) -> str:
    """`no interval: some draws …`, or "" where every difference has one."""
    rows = [row for row in summary if row["split"] == split]
    lacking = any(difference(row).endswith(NO_INTERVAL) for row in rows)
    return f"{NO_INTERVAL}: {WHY_NO_INTERVAL}" if lacking else ""


STAGES = ("ich", "ici", "ivc")


def several(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there are other heads than the paper's among them."""
    return any(row.get("head", "pcmci") != "pcmci" for row in rows)


def named(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What the rows of a table are called, as columns: the head where there are several, the order,
    the store where there are several. Rows that were made before there were heads have neither."""
    columns = {"order": [row["order"] or NOTHING for row in rows]}
    if several(rows):
        columns = {"head": [row.get("head shown") or row["head"] for row in rows], **columns}
    if any(row.get("at") for row in rows):
        columns["store"] = [row["at"] for row in rows]
    return columns


def count(number: float | None) -> str:
    """`4,340,000` as `4.34 M`."""
    if number is None:
        return NOTHING
    return f"{number / 1e6:.2f} M" if number >= 1e4 else f"{number:,.0f}"


def paper_figure(row: Mapping[str, Any]) -> float | None:
    """What the paper reports for a row's order, or for its encoder where stores are compared;
    nothing for a row with settings of ours."""
    if row["settings"] or row.get("ours") or row.get("head", "pcmci") != "pcmci":
        return None
    if row.get("at"):
        return reported_encoder(row["dataset"], row["score"], row["order"], row["at"])
    return reported(row["dataset"], row["score"], row["order"])


def ticks(order: str) -> list[str]:
    """A tick a stage that is there, as in the paper's table."""
    there = order.split(",")
    return ["✓" if stage in there else "" for stage in STAGES]


def spread(row: Mapping[str, Any]) -> str:
    """`91.20 ± 0.45`; without the deviation where there is one seed."""
    sd = row["sd"]
    return percent(row["mean"]) + (f" ± {100 * sd:.2f}" if sd is not None else "")


def difference(row: Mapping[str, Any]) -> str:
    """`+1.20, -0.31 to 2.70 *`, the star where the interval excludes 0; nothing without one."""
    if row["reference"] and row["seeds"]:
        return "reference"
    # Tables of earlier versions have NaN where nothing could be computed.
    value, low, high = (_in_percent(row[name]) for name in ("difference", "low", "high"))
    if value is None:
        return ""
    if low is None or high is None:
        return f"{value:+.2f}, {NO_INTERVAL}"
    return f"{value:+.2f}, {low:.2f} to {high:.2f}" + (" *" if row["excludes zero"] else "")


def _in_percent(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(100 * value, 2) + 0.0  # no "-0.00"


def best_row(rows: Iterable[Mapping[str, Any]], score: str) -> Mapping[str, Any] | None:
    """The row with the highest mean. Of ODD none: lower is only better above the truth's own."""
    scored = [row for row in rows if row["mean"] is not None]
    if score.startswith("ODD") or len(scored) < 2:
        return None
    return max(scored, key=lambda row: row["mean"])


def _seeds(row: Mapping[str, Any]) -> str:
    return str(row["seeds"]) + (f" ({row['failed']} failed)" if row["failed"] else "")


def _reference(rows: Iterable[Mapping[str, Any]]) -> str:
    return next((row["variant"] for row in rows if row["reference"]), "the reference")


def tau_table(scores: Mapping[str, Any], taus: Iterable[str], split: str) -> Table:
    """A row a tau: ODD of the predictions, of the truth, and the share of implausible pairs."""
    table = Table(title=f"ODD over tau, {split}", title_justify="left")
    for name in ("tau", "ODD", "truth", "implausible"):
        table.add_column(name, justify="right")
    for tau in taus:
        name = f"ODD@{tau}"
        values = (scores.get(name), scores.get(f"{name} truth"), scores.get(f"{name} implausible"))
        table.add_row(tau, *map(percent, values))
    return table


class _Verbatim(Console):
    """What stands in a cell is a text that somebody chose: `[id]` is no markup, `:tea:` no emoji,
    and nothing in it is a command to the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text, keep="\n"), **options)


def show(*tables: Table) -> None:
    """Print tables as wide as they need to be where nobody looks at a terminal; as a list of
    rows, a line a column, where a terminal is too narrow for their numbers."""
    console = _Verbatim()
    if not console.is_terminal:
        console = _Verbatim(width=160)
    for table in tables:
        for column in table.columns:
            if column.justify == "right":
                column.no_wrap = True  # a number is whole or not there
            else:
                longest = max(map(len, [str(column.header), *map(str, column.cells)]))
                column.overflow, column.min_width = "fold", min(longest, FEWEST_LETTERS)
        wide = console.options.update(max_width=MOST_WIDE)  # or it is cut to the terminal's width
        if console.measure(table, options=wide).minimum <= console.width:
            console.print(table)
        else:
            _show_as_list(console, table)


def _show_as_list(console: Console, table: Table) -> None:
    names = [str(column.header) for column in table.columns]
    if table.title:
        console.print(table.title)
    for row in zip(*(column.cells for column in table.columns), strict=True):
        console.print(Rule(style="dim"))
        for name, cell in zip(names, row, strict=True):
            if cell != "":
                console.print(Text(f"{plain(name)}: {plain(str(cell).replace(chr(10), ', '))}"))
    console.print(Rule(style="dim"))


def headline_scores(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those of a run that any split has, or would have: without the truth's own."""
    return [
        name
        for name in _score_names(scores)
        if not name.endswith((" truth", " implausible")) and not name.startswith("mAP/")
    ]


def _noted(table: Table, notes: Sequence[str]) -> Table:
    """With lines under it that must be read with its scores."""
    if notes:
        table.caption, table.caption_justify = "\n".join(notes), "left"
        table.min_width = max(map(len, notes))  # a note is one line
    return table


def _score_names(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Acc, the mAPs and the ODDs that any split has; not the counts behind them."""
    behind = ("Acc correct", "Acc videos", "mAP classes", "ODD undefined pairs")
    seen = dict.fromkeys(name for values in scores.values() for name in values)
    return [n for n in seen if n.startswith(("Acc", "mAP", "ODD")) and n not in behind]
