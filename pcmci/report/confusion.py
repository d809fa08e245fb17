"""Which activity was taken for which, and for whom: a matrix to click on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pcmci.report.film import DARK


@dataclass(frozen=True)
class Judged:
    """A video in a cell. place: of its true and its said label among the names. about: what else is
    said of it. href: its page, "" where there is none."""

    video: str
    place: tuple[int, int]
    about: str
    href: str = ""


@dataclass(frozen=True)
class Confusion:
    """names: [N] labels. videos: those of all cells. command: makes the page of a video that has
    none, with `ID` where its id goes."""

    names: Sequence[str]
    videos: Sequence[Judged]
    command: str
    caption: str = ""

    @cached_property
    def counts(self) -> Counter[tuple[int, int]]:
        """Videos by cell."""
        return Counter(one.place for one in self.videos)

    @cached_property
    def totals(self) -> Counter[int]:
        """Videos by row."""
        return Counter(one.place[0] for one in self.videos)

    def count(self, row: int, column: int) -> int:
        return self.counts[row, column]

    def share(self, row: int, column: int) -> float:
        """Of the row's videos, from 0 to 1."""
        return round(self.counts[row, column] / max(1, self.totals[row]), 3)

    def is_dark(self, row: int, column: int) -> bool:
        return self.share(row, column) > DARK

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script reads."""
        cells: dict[str, list[list[str]]] = {}
        for one in self.videos:
            cells.setdefault(f"{one.place[0]},{one.place[1]}", []).append(
                [one.video, one.about, one.href]
            )
        return {"cells": cells, "command": self.command}
