"""Frames side by side, and matrices under them whose columns are these frames."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

DARK = 0.75
"""A cell with more of the colour than that has its number in the paper's."""


def picture(frame: np.ndarray) -> str:
    """A frame [H, W, 3] uint8 as a data URI."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True)
class Heat:
    """A matrix as coloured cells. rows: names. values: [rows, columns]. texts: what stands in each
    cell. low, high: the values without colour and with all of it. says: what a cell means, with
    {row}, {column} and {value}. marks: of each row right, wrong or neither (None)."""

    title: str
    rows: Sequence[str]
    values: Sequence[Sequence[float]]
    texts: Sequence[Sequence[str]]
    low: float
    high: float
    says: str = "{row}, {column}: {value}"
    marks: Sequence[bool | None] = ()

    def mark(self, row: int) -> str:
        """The class of a row's name."""
        mark = self.marks[row] if self.marks else None
        return "" if mark is None else "right" if mark else "wrong"

    def share(self, row: int, column: int) -> float:
        """Of the colour, from 0 to 1."""
        span = self.high - self.low
        share = (self.values[row][column] - self.low) / span if span > 0 else 0.0
        return round(min(1.0, max(0.0, share)), 3)

    def is_dark(self, row: int, column: int) -> bool:
        return self.share(row, column) > DARK

    def tip(self, row: int, column: int, name: str) -> str:
        """What a cell says; a label may hold braces of its own."""
        words = {"row": self.rows[row], "column": name, "value": self.texts[row][column]}
        text = self.says
        parts = [f"{{{key}}}" for key in words]
        found = sorted((text.index(part), part) for part in parts if part in text)
        said, at = "", 0
        for place, part in found:
            said += text[at:place] + words[part[1:-1]]
            at = place + len(part)
        return said + text[at:]


@dataclass(frozen=True)
class Film:
    """columns: names, times of frames say. pictures: data URIs (`picture`), one a column, or none.
    corner: what the columns are. notes: each with a mark: right, wrong or neither (None).
    narrow: as wide as its columns need, and not as the page. upright: their names are turned.
    """

    columns: Sequence[str]
    pictures: Sequence[str] = ()
    heats: Sequence[Heat] = ()
    title: str = ""
    corner: str = ""
    notes: Sequence[tuple[str, bool | None]] = ()
    caption: str = ""
    narrow: bool = False
    upright: bool = False
