"""What a head's voices are worth, as a section of an ablation's page."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from matplotlib.figure import Figure as Drawing

from pcmci.report import figures
from pcmci.report.page import Block, Cell, Figure, Noted, Section, Table
from pcmci.report.rows import Row, Rows
from pcmci.report.table import NOTHING, spread
from pcmci.report.voices import ANSWER


def voices_section(
    rows: Rows, show: Callable[[str, Drawing, str], Figure], notes: str = ""
) -> Section | None:
    """A table for each label set and row whose head has voices, and where there are two or more
    the score against their disagreement. None where no head has any, and of rows that were made
    before this was kept.

    show: puts a drawing on the page, from its name and caption. notes: ends each caption.
    """
    each = rows.tables.get("voices", [])
    if not each:
        return None
    blocks: list[Block] = []
    drawings = 0
    for labels, variant in dict.fromkeys((row["labels"], row["variant"]) for row in each):
        some = [row for row in each if (row["labels"], row["variant"]) == (labels, variant)]
        answers = [row for row in rows.summary if row["variant"] == variant]
        curves = [
            row
            for row in rows.tables.get("disagreements", [])
            if (row["labels"], row["variant"]) == (labels, variant)
        ]
        blocks.append(_page_table(f"{variant}, {labels}", some, answers, notes))
        if drawing := _drawing(curves):
            drawings += 1
            caption = (
                f"{variant}: the score in bins of as many videos, from those about which its "
                "voices agree to those about which they do not, the mean over seeds."
            )
            blocks.append(show(f"voices-{drawings}", drawing, caption))
    words = [
        "A head of several opinions, or with a mediator, says what each is worth alone, in percent "
        "and as the mean ± standard deviation over seeds; the best of a split is bold. "
        "Disagreement goes from 0, where all say the same, to 1; where it is high a custom that "
        "they go by for different reasons may be broken. A mediator's purity goes from 0 to 1."
    ]
    return Section("What each voice says", words, blocks)


def _page_table(title: str, some: Sequence[Row], answers: Iterable[Row], notes: str) -> Table:
    """A row a voice, a column a split."""
    headline = next(row["score"] for row in some if row["voice"])
    splits = list(dict.fromkeys(row["split"] for row in some))
    found: dict[str, dict[str, list[float]]] = {}
    of_all: dict[str, dict[str, list[float]]] = {}
    for row in some:
        by_split = (found if row["voice"] else of_all).setdefault(row["voice"] or row["score"], {})
        by_split.setdefault(row["split"], []).extend([row["value"]] * (row["value"] is not None))
    whole = {row["split"]: row for row in answers if row["score"] == headline}
    means = {
        split: [statistics.fmean(v) for by in found.values() if (v := by.get(split))]
        for split in splits
    }
    body: list[list[Cell]] = []
    for voice, by_split in found.items():
        cells = []
        for split in splits:
            values = by_split.get(split, [])
            best = bool(values) and statistics.fmean(values) == max(means[split])
            cells.append(Noted(_over_seeds(values), strong=best and len(found) > 1))
        body.append([voice, *cells])
    body.append([ANSWER, *(spread(whole[s]) if s in whole else NOTHING for s in splits)])
    for name, by_split in of_all.items():
        shown = (by_split.get(split) for split in splits)
        body.append([name, *(f"{statistics.fmean(v):.3f}" if v else NOTHING for v in shown)])
    return Table(["voice", *splits], body, f"{title}: {headline} in percent.{notes}")


def _over_seeds(values: Sequence[float]) -> str:
    mean = statistics.fmean(values) if values else None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return spread({"mean": mean, "sd": sd})


def _drawing(curves: Sequence[Row]) -> Drawing | None:
    """None where nothing of it could be scored."""
    points: dict[str, dict[int, list[Row]]] = {}
    for row in curves:
        if row["value"] is not None and row["split"] != "val":
            points.setdefault(row["split"], {}).setdefault(row["bin"], []).append(row)
    lines = {
        split: [
            (_mean(some, "disagreement"), _mean(some, "value")) for _, some in sorted(of.items())
        ]
        for split, of in points.items()
    }
    return figures.score_by_disagreement(lines, curves[0]["score"]) if lines else None


def _mean(rows: Sequence[Row], name: str) -> float:
    return statistics.fmean(row[name] for row in rows)
