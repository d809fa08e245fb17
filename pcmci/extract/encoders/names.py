"""What somebody may have meant who named a model that is not there; torch-free."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def meant(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`: did you mean A or B?`, or nothing where no known name is near. cutoff: of `difflib`."""
    close = difflib.get_close_matches(name, list(known), cutoff=cutoff)
    return f": did you mean {' or '.join(close)}?" if close else ""
