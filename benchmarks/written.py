"""Tables that a benchmark writes into a page of `docs/`, between two markers."""

from __future__ import annotations

from pcmci.errors import PcmciError

END = "<!-- end -->"


def begin(script: str) -> str:
    """The first marker, which names who writes: `benchmarks/all.py`."""
    return f"<!-- begin: written by {script} -->"


def replace_tables(page: str, script: str, tables: str) -> str:
    """The page with new tables between its markers. Raises PcmciError where they are not there."""
    marker = begin(script)
    before, first, rest = page.partition(marker)
    _, last, after = rest.partition(END)
    if not first or not last:
        raise PcmciError(f"the page has no {marker} … {END} to put tables between")
    return f"{before}{marker}\n\n{tables}\n{END}{after}"
