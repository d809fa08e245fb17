"""A CSV file as people save it: any usual separator, headers in any case, blank and comment rows.

The benchmarks' own files are read strictly, by `files.read_rows`; here a table was made by hand or
by a spreadsheet program, and what it means is plain in more ways than one.
"""

from __future__ import annotations

import csv
import difflib
import io
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pcmci.errors import AnnotationError
from pcmci.extract.datasets.complaints import Complaints
from pcmci.extract.datasets.files import read_text
from pcmci.remote.url import Place

SEPARATORS = (",", ";", "\t", "|")

MOST_HEADER = 10_000
"""Characters of a first line that are looked at; a file that is no table may be one line."""

NEARLY = 0.75
"""Of `difflib`: `spilt` for `split`, `step` for `steps`."""


@dataclass(frozen=True)
class Sheet:
    """rows: (`FILE:LINE`, {column: its cell without blanks around it}), of columns that are known.
    columns: those that are there. separator: what parts them. notes: what was not read."""

    rows: list[tuple[str, dict[str, str]]]
    columns: frozenset[str]
    separator: str
    notes: tuple[str, ...] = field(default=())


def read_sheet(
    path: Place,
    known: Mapping[str, tuple[str, ...]],
    needed: tuple[str, ...],
    complaints: Complaints,
    is_name: Callable[[str], bool],
) -> Sheet:
    """The rows of a table with a header.

    known: column -> what else people call it, which is an error that says what is right.
    needed: the columns without which nothing can be read; complaints: takes rows that are wrong.
    is_name: whether a cell that begins with `#` names a file; the row is a comment else.
    Raises AnnotationError for a header that will not do.
    """
    text = read_text(path)
    first = 1
    separator = None
    if text[:4].lower() == "sep=":  # a spreadsheet program's own first line
        line, _, text = text.partition("\n")
        separator, first = line[4:5], 2
    if separator not in SEPARATORS:
        separator = _separator(text, known)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    rows: list[tuple[str, dict[str, str]]] = []
    comments = 0
    try:
        for cells in reader:
            place = f"{path}:{reader.line_num + first - 1}"
            if not any(cell.strip() for cell in cells):
                continue
            if cells[0].lstrip().startswith("#") and not any(map(is_name, cells)):
                comments += 1
            elif not header:
                cells = _as_long(cells, 0)
                header = [_plain(cell) for cell in cells]
                _check_header(place, cells, header, known, needed)
            elif (cells := _as_long(cells, len(header))) and len(cells) == len(header):
                pairs = zip(header, cells, strict=True)
                rows.append((place, {name: one.strip() for name, one in pairs if name in known}))
            else:
                quoted = separator == ";" and len(cells) > len(header)
                hint = "; steps that stand apart by ; have to be in quotes" if quoted else ""
                complaints.add(
                    f"{place}: {len(cells)} values, but the header has {len(header)} columns{hint}"
                )
    except csv.Error as error:
        raise AnnotationError(
            f"{path}:{reader.line_num + first - 1}: broken CSV: {error}"
        ) from error
    if not header:
        raise AnnotationError(f"{path}:1: needs one column {needed[0]!r}; the file is empty")
    notes = []
    unknown = [name or "one without a name" for name in header if name not in known]
    if unknown:
        notes.append(f"columns of {path} that are not read: {', '.join(unknown)}")
    if comments:
        notes.append(f"{comments:,} rows of {path} begin with # and are not read")
    return Sheet(rows, frozenset(header) & known.keys(), separator, tuple(notes))


def _separator(text: str, known: Mapping[str, tuple[str, ...]]) -> str:
    """The one by which most columns of the header are known."""
    lines = (line for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#")
    header = next(lines, "")[:MOST_HEADER]

    def count(separator: str) -> int:
        cells = next(csv.reader([header], delimiter=separator), [])
        return len({_plain(cell) for cell in cells} & known.keys())

    return max(SEPARATORS, key=count)  # the first of those that are equal


def _plain(header: str) -> str:
    """As it is compared: no matter its case, blanks and forms of Unicode."""
    return " ".join(unicodedata.normalize("NFKC", header).replace("\ufeff", "").split()).casefold()


def _as_long(cells: list[str], length: int) -> list[str]:
    """Without empty cells that reach beyond the header."""
    while len(cells) > length and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _check_header(
    place: str,
    cells: list[str],
    header: list[str],
    known: Mapping[str, tuple[str, ...]],
    needed: tuple[str, ...],
) -> None:
    there = f"there are {', '.join(cell.strip() for cell in cells)}"
    wrong = [
        f"{place}: needs one column {name!r}; {there}" for name in known if header.count(name) > 1
    ]
    for cell, name in zip(cells, header, strict=True):
        if name not in known and (meant := _meant(name, known, header)):
            wrong.append(
                f"{place}: the column {cell.strip()!r} is not read; should it be called {meant!r}?"
            )
    missing = [name for name in needed if name not in header]
    if not wrong:
        wrong = [f"{place}: needs one column {name!r}; {there}" for name in missing]
    if wrong:
        raise AnnotationError("; ".join(wrong))


def _meant(name: str, known: Mapping[str, tuple[str, ...]], header: list[str]) -> str | None:
    """The known column that is not there and that this one may be."""
    absent = [column for column in known if column not in header]
    by_name = next((column for column in absent if name in known[column]), None)
    return by_name or next(iter(difflib.get_close_matches(name, absent, 1, NEARLY)), None)
