"""Scores as tables for a terminal. Numbers come in as fractions and are shown in percent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pcmci.plain import plain
from pcmci.report.paper import reported

NOTHING = "–"


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
    """`+1.20, -0.31 to 2.70` in percent."""
    value, low, high = (100 * x for x in (interval.value, interval.low, interval.high))
    return f"{value:+.2f}, {low:.2f} to {high:.2f}"


def score_table(scores: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """A row a split: Acc, mAP by every rule it was scored with, ODD beside the truth's own.

    scores: split -> name -> value, as in a run's metrics.json.
    """
    names = _score_names(scores)
    table = Table(title=title, title_justify="left")
    for name in ["split", "videos", *names, "coverage"]:
        table.add_column(name, justify="left" if name == "split" else "right")
    for split, values in scores.items():
        cells = [percent(values.get(name)) for name in names]
        table.add_row(split, str(values["videos"]), *cells, percent(values["coverage"]))
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
            if against and order in against:
                cell += f"\n{signed(against[order][split])}"
            cells.append(cell)
        table.add_row(order, *cells)
    return table


def ablation_table(summary: Iterable[Mapping[str, Any]], score: str, split: str) -> Table | None:
    """The paper's form: a tick a stage, the order, and a score over seeds; the best in bold.

    summary: rows of an ablation. None where the score was not taken on this split.
    """
    rows = [row for row in summary if (row["score"], row["split"]) == (score, split)]
    if not rows:
        return None
    some = rows[0]
    title = f"{score} on {split} (percent), mean ± standard deviation over seeds"
    table = Table(title=title, title_justify="left")
    for name in STAGES:
        table.add_column(name.upper(), justify="center")
    truth = [percent(row["truth"]) if score.startswith("ODD") else "" for row in rows]
    paper = [paper_figure(row) for row in rows]
    extra = {
        "order": [row["order"] for row in rows],
        "settings": [row["settings"] for row in rows],
        "chosen of " + str(some["settings tried"]): [row["chosen setting"] for row in rows],
        "seeds": [_seeds(row) for row in rows],
        score: [spread(row) for row in rows],
        f"difference to {_reference(rows)}": [difference(row) for row in rows],
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
        left = name in ("order", "settings") or name.startswith("chosen")
        table.add_column(name, justify="left" if left else "right")
    best = best_row(rows, score)
    for place, row in enumerate(rows):
        cells = [cells[place] for cells in shown.values()]
        table.add_row(*ticks(row["order"]), *cells, style="bold" if row is best else None)
    return table


STAGES = ("ich", "ici", "ivc")


def paper_figure(row: Mapping[str, Any]) -> float | None:
    """What the paper reports for a row's order; nothing for a row with settings of ours."""
    return None if row["settings"] else reported(row["dataset"], row["score"], row["order"])


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
    if row["difference"] is None:
        return ""
    # + 0.0: no "-0.00"
    value, low, high = (round(100 * row[name], 2) + 0.0 for name in ("difference", "low", "high"))
    return f"{value:+.2f}, {low:.2f} to {high:.2f}" + (" *" if row["excludes zero"] else "")


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
    """Print tables as wide as they need to be where nobody looks at a terminal."""
    console = _Verbatim()
    if not console.is_terminal:
        console = _Verbatim(width=160)
    for table in tables:
        console.print(table)


def _score_names(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Acc, the mAPs and the ODDs that any split has; not the counts behind them."""
    behind = ("Acc correct", "Acc videos", "mAP classes", "ODD undefined pairs")
    seen = dict.fromkeys(name for values in scores.values() for name in values)
    return [n for n in seen if n.startswith(("Acc", "mAP", "ODD")) and n not in behind]
