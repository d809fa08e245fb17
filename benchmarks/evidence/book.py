"""The rows of the study, looked up by cell and head, and as the page spells them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from evidence.cells import CELLS, SHARES, STRENGTHS
from evidence.measured import Row
from pcmci.heads.scoring.bootstrap import Interval
from pcmci.report.page import Noted
from pcmci.report.table import NOTHING


class Book:
    """rows: of `measured`. Of a run that is missing every lookup gives None."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self._by: dict[tuple[object, ...], Row] = {}
        self._seeds: dict[tuple[object, ...], list[float]] = {}
        for row in rows:
            if row.kind == "run":
                key = (row.cell, row.head, row.measure, row.chosen)
                self._seeds.setdefault(key, []).append(float(row.value or 0.0))
            else:
                key = (row.kind, row.cell, row.head, row.control, row.measure, row.chosen)
                self._by[key] = row

    def difference(
        self, cell: str, head: str, control: str, measure: str = "CDE", chosen: str = "val"
    ) -> Row | None:
        """Of a head against a control."""
        return self._by.get(("difference", cell, head, control, measure, chosen))

    def effect(self, cell: str, head: str, measure: str, chosen: str = "val") -> Row | None:
        """Of all seeds of a head."""
        return self._by.get(("effect", cell, head, None, measure, chosen))

    def gain(self, cell: str, head: str) -> float | None:
        """What of a companion passes S~."""
        found = self._by.get(("gain", cell, head, None, "gain", None))
        return None if found is None else found.value

    def seeds(self, cell: str, head: str, measure: str, chosen: str | None = "val") -> list[float]:
        """Of each seed; none where the run is missing."""
        return self._seeds.get((cell, head, measure, chosen), [])

    def ran(self, cell: str, head: str) -> bool:
        """Whether it was run."""
        return bool(self.seeds(cell, head, "CDE"))

    def differences(self, chosen: str = "val") -> list[Row]:
        """Of CDE, every comparison of every cell."""
        return [
            row
            for row in self.rows
            if row.kind == "difference" and row.chosen == chosen and row.measure == "CDE"
        ]

    def removals(self, heads: Iterable[str], confounder: str) -> list[Row]:
        """Comparisons in which one of these heads removes its confounder."""
        return [
            row
            for row in self.differences()
            if row.removes and row.head in set(heads) and row.confounder == confounder
        ]

    def grid(
        self, confounder: str, pre: float, head: str, control: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """[shares, strengths] the difference of CDE, NaN where there is none, and whether its
        interval excludes 0."""
        values = np.full((len(SHARES), len(STRENGTHS)), np.nan)
        sure = np.zeros(values.shape, bool)
        for cell in CELLS.values():
            k = cell.knobs
            if cell.note or (k.confounder, k.eta_pre) != (confounder, pre):
                continue
            at = SHARES.index(k.share), STRENGTHS.index(k.eta_train)
            if found := self.difference(cell.name, head, control):
                values[at], sure[at] = found.value, interval(found).excludes_zero
        return values, sure


def interval(row: Row) -> Interval:
    """Of a row that has a value."""
    ends = (np.nan if end is None else end for end in (row.low, row.high))
    return Interval(float(row.value or 0.0), *ends)


def logits(row: Row | None) -> str:
    """`-0.48 [-0.63, -0.36]`."""
    if row is None or row.value is None:
        return NOTHING
    if row.low is None or row.high is None:
        return f"{row.value:+.2f}"
    return f"{row.value:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"


def plain(row: Row | None) -> str:
    """`0.61`: an effect's value alone."""
    return NOTHING if row is None or row.value is None else f"{row.value:.2f}"


def mean(values: Sequence[float]) -> str:
    """`81.2` in percent: the mean over seeds."""
    return f"{100 * np.mean(values):.1f}" if values else NOTHING


def noted(row: Row | None) -> Noted | None:
    """A difference in a table, strong where its interval excludes 0."""
    if row is None or row.value is None:
        return None
    text = logits(row)
    value, _, ends = text.partition(" ")
    return Noted(value, ends, strong=interval(row).excludes_zero)
