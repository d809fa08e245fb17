"""One self-contained HTML file that opens from disk without a network.

A page is a title, a lead and sections; a section is words and blocks: tables that can be sorted,
figures, strips of film, matrices under a film, a matrix of confusions. Every text is escaped: a
label may be called `<script>`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from pcmci.report.confusion import Confusion
from pcmci.report.film import Film


@dataclass(frozen=True)
class Noted:
    """A table's cell with a smaller line under it. strong: the best of its column."""

    value: str
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Link:
    """A table's cell that leads to another page. href: relative to this one."""

    text: str
    href: str


Cell = str | int | float | Noted | Link | None


@dataclass(frozen=True)
class Table:
    """Rows under a head; a column sorts by its numbers, where it has some."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True)
class Hover:
    """A matrix inside a figure whose cells tell their names.

    box: left, top, width, height of its axes as fractions of the figure.
    rows, columns: names. values: [rows, columns], NaN for nothing. says: what a cell means, with
    {row}, {column} and {value}.
    """

    box: tuple[float, float, float, float]
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray
    says: str

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script reads; values in thousandths, null for nothing."""
        thousandths = [
            [None if np.isnan(value) else round(1000 * float(value)) for value in row]
            for row in self.values
        ]
        return {
            "box": self.box,
            "rows": list(self.rows),
            "columns": list(self.columns),
            "values": thousandths,
            "says": self.says,
        }


@dataclass(frozen=True)
class Figure:
    """A drawing as SVG (our own, trusted), with what its matrices say under the mouse."""

    svg: str
    caption: str
    hovers: Sequence[Hover] = ()


@dataclass(frozen=True)
class Strip:
    """Frames of one video side by side. frames: [F, H, W, 3] uint8. notes: under it, each with a
    mark: right, wrong or neither (None)."""

    frames: np.ndarray
    title: str
    notes: Sequence[tuple[str, bool | None]] = ()

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        picture = Image.fromarray(np.concatenate(list(self.frames), axis=1))
        file = io.BytesIO()
        picture.save(file, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


Block = Table | Figure | Strip | Film | Confusion


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, and what there is to look at."""

    title: str
    words: Sequence[str] = ()
    blocks: Sequence[Block] = ()


@dataclass(frozen=True)
class Page:
    """facts: name -> value, where everything came from. commands: what made it, what to do next."""

    title: str
    lead: str
    sections: Sequence[Section]
    facts: dict[str, str] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)

    def html(self) -> str:
        """The whole file."""
        loader = jinja2.FileSystemLoader(Path(__file__).parent)
        environment = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        environment.tests |= {
            "table": lambda block: isinstance(block, Table),
            "figure": lambda block: isinstance(block, Figure),
            "film": lambda block: isinstance(block, Film),
            "confusion": lambda block: isinstance(block, Confusion),
            "noted": lambda cell: isinstance(cell, Noted),
            "link": lambda cell: isinstance(cell, Link),
        }
        return environment.get_template("page.html.j2").render(page=self)

    def write(self, path: Path) -> Path:
        """Write the file, whole or not at all."""
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(self.html(), encoding="utf-8", errors="backslashreplace")
        return partial.replace(path)
