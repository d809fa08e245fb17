"""What a head's voices are worth, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from pcmci.report.table import NOTHING, percent

ANSWER = "the answer"


def voices_table(labels: str, facts: Mapping[str, Any], scores: Mapping[str, Any]) -> Table:
    """A row a voice, a column a split: its score alone; under them the answer's, and how far the
    voices disagree, or how pure a mediator is.

    facts: of a label set, as a run's metrics.json has them. scores: split -> name -> value.
    """
    report = facts["voices"]
    headline = next(iter(report.values()))["score"]
    table = Table(title=f"{labels}, {headline} of each voice (percent)", title_justify="left")
    table.add_column("voice")
    for split in report:
        table.add_column(split, justify="right")
    for voice in next(iter(report.values()))["voices"]:
        table.add_row(voice, *(percent(found["voices"][voice]) for found in report.values()))
    table.add_row(ANSWER, *(percent(scores[split].get(headline)) for split in report))
    for name, values in (
        ("disagreement", [found.get("disagreement") for found in report.values()]),
        ("purity", [facts.get("purity", {}).get(split) for split in report]),
    ):
        if any(value is not None for value in values):
            table.add_row(name, *(NOTHING if v is None else f"{v:.3f}" for v in values))
    return table
