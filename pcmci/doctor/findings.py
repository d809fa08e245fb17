"""What was found out about one part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "fails"]


@dataclass(frozen=True)
class Finding:
    """verdict: `ok`; `note`, what somebody may want to know and most need not; `fails`, something
    will not work. says: one line; of what fails also what to do about it."""

    name: str
    verdict: Verdict
    says: str


def gib(size: float) -> str:
    """Bytes in words."""
    return f"{size / 2**30:.1f} GiB"
