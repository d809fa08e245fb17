"""`expected.md` as the code reads it, and what a measured difference makes of an expectation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evidence.cells import CELLS
from pcmci.errors import PcmciError
from pcmci.heads.scoring.bootstrap import Interval

TABLE = Path(__file__).with_name("expected.md")
HEAD = ["confounder", "pre", "eta", "rho", "head", "control", "sign", "removes", "proof"]
SIGNS = ("-", "+", "0")
NEAR = 0.5
"""Logits within which a difference counts as none."""
LEVEL = 0.05


@dataclass(frozen=True)
class Expectation:
    """Of one comparison in one cell. removes: None where nothing is said of it."""

    cell: str
    head: str
    control: str
    sign: str
    removes: bool | None
    proof: str


def read_expectations(text: str | None = None) -> list[Expectation]:
    """Every comparison that the table names. Raises PcmciError for a row that is none, and for a
    cell or a head that the study does not have."""
    lines = (TABLE.read_text() if text is None else text).splitlines()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    if not rows or rows[0] != HEAD:
        raise PcmciError(f"expected.md has no table with the columns {', '.join(HEAD)}")
    found = []
    for row in rows[2:]:
        if len(row) != len(HEAD):
            raise PcmciError(f"expected.md: {row} has {len(row)} columns, not {len(HEAD)}")
        confounder, pre, eta, rho, head, control, sign, removes, proof = row
        if sign not in SIGNS or removes not in ("yes", "no", ""):
            raise PcmciError(f"expected.md: sign {sign!r} or removes {removes!r} is none")
        for p, e, r in itertools.product(pre.split(), eta.split(), rho.split()):
            cell = f"{confounder} pre={p} eta={e} rho={r}"
            trained = CELLS[cell].heads if cell in CELLS else ()
            missing = [name for name in (head, control) if name not in trained]
            if missing:
                raise PcmciError(f"expected.md: the study has no {', '.join(missing)} in {cell}")
            removed = {"yes": True, "no": False, "": None}[removes]
            found.append(Expectation(cell, head, control, sign, removed, proof))
    return found


def p_value(difference: Interval) -> float:
    """Two-sided, of a normal whose deviation is that of the bootstrap; 1 where nothing differs."""
    deviation = (difference.high - difference.low) / (2 * 1.959964)
    if not deviation > 0:
        return 1.0 if abs(difference.value) < 1e-12 else 0.0
    return math.erfc(abs(difference.value) / deviation / math.sqrt(2))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """[m] p adjusted for m tests (Holm 1979): times m for the least, m - 1 for the next, ..., never
    below one before."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def verdict(sign: str, difference: Interval, adjusted: float) -> str:
    """`hit`, `miss` or `undecided`, by the rule of expected.md. adjusted: p after Holm."""
    inside = difference.low > -NEAR and difference.high < NEAR
    if sign == "0":
        outside = difference.low > NEAR or difference.high < -NEAR
        return "hit" if inside else "miss" if outside else "undecided"
    towards = difference.value if sign == "+" else -difference.value
    if adjusted < LEVEL:
        return "hit" if towards > 0 else "miss"
    return "miss" if inside else "undecided"
