"""What the study found, in words; every number in them is looked up in the rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from evidence.book import Book, interval, logits, mean, plain
from evidence.cells import ALL_ORDERS, CELLS
from evidence.heads import BOTH, NONE
from evidence.measured import Row
from pcmci.report.page import Cell, Table


def _cell(confounder: str, rho: str, pre: int = 0, eta: str = "0.9") -> str:
    return f"{confounder} pre={pre} eta={eta} rho={rho}"


def _acc(book: Book, cell: str, head: str) -> str:
    """`shift 92.7, test 92.5`."""
    shift, test = (mean(book.seeds(cell, head, f"Acc {split}")) for split in ("shift", "test"))
    return f"{head}: {shift} / {test}"


def _cde(book: Book, cell: str, head: str, control: str) -> str:
    """`ich 0.13 of 0.61`: the CDE of a head and of what it is held against."""
    mine, its = (plain(book.effect(cell, name, "CDE")) for name in (head, control))
    return f"{head}: {mine} of {its}"


def advice(book: Book) -> list[str]:
    """Before the table."""
    return [
        "Ask two things of your data. Does what misleads stand in the whole video, or does it come "
        "and go? And does your VLM speak of it: would its texts of the labels be nearer to a frame "
        "with it? The first decides what can take it out (P1, P6), the second whether ICH's weights "
        "run away from it or towards it (P3). No head here is best everywhere.",
    ]


def advice_table(book: Book) -> Table:
    """A row a kind of data."""
    at = {
        "go": _cell("h", "1/4"), "half": _cell("h", "1/2"), "tied": _cell("h", "1/4", 1),
        "stay": _cell("h", "1"), "look": _cell("c", "1"), "shown": _cell("i", "1", 1),
        "none": _cell("h", "1/4", 0, "0"),
    }  # fmt: skip
    offered: list[tuple[str, str, str, list[tuple[str, str]], str]] = [
        (
            "comes and goes, the VLM's texts do not hold it (half of the frames)", at["half"],
            "ich, or ich with contrast weights", [("ich", BOTH), ("ich, contrast", BOTH)], "P3",
        ),
        (
            "the same, in a fourth of the frames", at["go"],
            "the decoder on both encoders recognises most; ich depends on it least",
            [("ich", BOTH), ("both, swap", BOTH)], "P3",
        ),
        (
            "comes and goes, the texts hold it", at["tied"],
            "not ich: the decoder on both, with or without swap",
            [("ich", BOTH), ("both, swap", BOTH)], "P3",
        ),
        (
            "a thing that only the VLM sees stands in every frame", at["stay"],
            "contrast or centring against it, swap or experts to keep the test as well",
            [("ich", BOTH), ("ich, contrast", BOTH), ("both, centred", BOTH),
             ("both, swap", BOTH), ("experts", BOTH)], "P1, P6, P8",
        ),
        (
            "a look of the place stands in every frame, the VLM does not see it", at["look"],
            "let the VLM in: the decoder on both, better experts; not ivc",
            [("ivc", NONE), ("none, swap", NONE), ("experts", BOTH)], "P5, P6, P8",
        ),
        (
            "the partner's things on show in every frame", at["shown"],
            "not ici; see the numbers of experts", [("ici", NONE), ("experts", BOTH)], "P4",
        ),
        (
            "nothing is tied to the label", at["none"], "the decoder on both",
            [("ich", BOTH), ("both, swap", BOTH)], "P7",
        ),
    ]  # fmt: skip
    body: list[list[Cell]] = []
    for data, cell, take, pairs, proof in offered:
        there = [(h, c) for h, c in pairs if book.ran(cell, h) and book.ran(cell, c)]
        shown = list(dict.fromkeys([*(c for _, c in there), *(h for h, _ in there)]))
        if there:
            body.append(
                [
                    data, take, "; ".join(_acc(book, cell, head) for head in shown),
                    "; ".join(_cde(book, cell, *pair) for pair in there), proof, cell,
                ]
            )  # fmt: skip
    return Table(
        ["what misleads", "take", "Acc shift / test (%)", "CDE, of its control's", "proof", "cell"],
        body, "At a custom of 0.9 in training (0 in the last row), 200 training videos.",
    )  # fmt: skip


def _span(rows: Sequence[Row]) -> str:
    """`from -1.53 [-2.87, -0.28] to +0.05 [...]` of differences."""
    known = sorted((r for r in rows if r.value is not None), key=lambda r: r.value or 0.0)
    if not known:
        return "not run"
    return f"from {logits(known[0])} ({known[0].cell}) to {logits(known[-1])} ({known[-1].cell})"


def _of(book: Book, head: str, control: str, **at: object) -> list[Row]:
    """The comparisons of two heads in the grid."""
    return [
        row
        for row in book.differences()
        if (row.head, row.control) == (head, control)
        and not CELLS[row.cell].note
        and all(getattr(row, name) == value for name, value in at.items())
    ]


def _removed(rows: Iterable[Row]) -> str:
    """`5 of 6`."""
    rows = list(rows)
    return f"{sum(bool(row.removes) for row in rows)} of {len(rows)}"


def found(book: Book) -> list[str]:
    """The findings, most telling first."""
    tied = [r for r in _of(book, "ich", BOTH, confounder="h") if r.eta and r.rho < 1]
    free = [r for r in tied if r.pre == 0]
    held = [r for r in tied if r.pre == 1]
    worse = [r for r in held if interval(r).low > 0]
    stay = [r for r in _of(book, "ich", BOTH, confounder="h", rho=1.0) if r.eta]
    go, persist, tie = _cell("h", "1/2"), _cell("h", "1"), _cell("h", "1/4", 1)
    quarter = _cell("h", "1/4")
    ici = _of(book, "ici", NONE, confounder="i")
    ivc = _of(book, "ivc", NONE, confounder="c")
    cross = _of(book, "ivc, cross", NONE, confounder="c")
    against = {
        head: [r for r in _of(book, head, BOTH, confounder="h", rho=1.0) if r.eta]
        for head in ("ich, contrast", "both, centred", "both, swap", "experts")
    }
    ours = ", ".join(f"{head} in {_removed(rows)}" for head, rows in against.items() if rows)
    words = [
        f"1. ICH removes its confounder where a companion comes and goes and the VLM's texts do not "
        f"hold it: in {_removed(free)} cells with a custom there. At {go} its CDE is "
        f"{plain(book.effect(go, 'ich', 'CDE'))} where a decoder that sees the same frames has "
        f"{plain(book.effect(go, BOTH, 'CDE'))}: {logits(book.difference(go, 'ich', BOTH))}. The "
        "weights pass over frames with a companion, because these are further from every text (P3; "
        "the table of gains under Proofs).",
        f"2. ICH brings the confounder in where the texts do hold it: CDE is above the control's by "
        f"all of its interval in {len(worse)} of {len(held)} such cells, at {tie} by "
        f"{logits(book.difference(tie, 'ich', BOTH))}, and Acc without the custom falls from "
        f"{mean(book.seeds(tie, BOTH, 'Acc shift'))} to {mean(book.seeds(tie, 'ich', 'Acc shift'))}. "
        "The weights go to the frames with the companion (P3).",
        f"3. Where it stands in every frame all of it passes (P1), and 0 was expected. Yet ICH's CDE "
        f"is lower than the control's in {sum(interval(r).high < 0 for r in stay)} of {len(stay)} "
        f"cells, at {persist} {plain(book.effect(persist, 'ich', 'CDE'))} of "
        f"{plain(book.effect(persist, BOTH, 'CDE'))}: a miss. P1 bounds what passes, not how much a "
        f"head goes by it; the effect of what is done is "
        f"{plain(book.effect(persist, 'ich', 'cause'))} with ICH and "
        f"{plain(book.effect(persist, BOTH, 'cause'))} without. What is left is no small thing: Acc "
        f"without the custom is {mean(book.seeds(persist, 'ich', 'Acc shift'))}.",
        f"4. No cell was found in which ICI removes its confounder: {_removed(ici)} cells. The "
        f"difference of CDE to a decoder without it goes {_span(ici)}. It changes constants (P4).",
        f"5. No cell was found in which IVC removes its confounder: {_removed(ivc)} cells; the "
        f"difference goes {_span(ivc)}. Where it is lower, what is done is lost with it. By the "
        f"formula (cross) it removes in {_removed(cross)}: its CDE is lower and so is everything "
        f"else, Acc at {_cell('c', '1/4')} {mean(book.seeds(_cell('c', '1/4'), 'ivc, cross', 'Acc test'))}"
        f" where the decoder has {mean(book.seeds(_cell('c', '1/4'), NONE, 'Acc test'))}: 200 videos "
        "and a dozen epochs do not teach it its mediator.",
        f"6. Against a companion that persists, what is no stage of the paper removes it: {ours} "
        "cells with a custom. Centring and contrast by construction (P6), swap by training, experts "
        "by views that do not see it (P8).",
        f"7. A lower CDE is not a better score. At {quarter} ICH lowers CDE and recognises "
        f"{mean(book.seeds(quarter, 'ich', 'Acc shift'))} without the custom, the decoder on both "
        f"{mean(book.seeds(quarter, BOTH, 'Acc shift'))}; what a confounder does and how much a head "
        "sees are two things, and the second is the larger one where the first is small.",
    ]
    words += _orders(book)
    words += _others(book)
    return words


def _orders(book: Book) -> list[str]:
    at = next(c.name for c in CELLS.values() if c.note == "all orders")
    rows = [
        row
        for name in ALL_ORDERS
        if "ich" in name.split(",") and (row := book.difference(at, name, BOTH))
    ]
    if not rows:
        return []
    lower = sum(interval(r).high < 0 for r in rows)
    known = sorted(rows, key=lambda r: r.value or 0.0)
    text = (
        f"8. Of the orders with ICH that were run where ICH is expected to help ({at}), {lower} of "
        f"{len(rows)} have a CDE below the control's and {_removed(rows)} remove it; from "
        f"{known[0].head} ({logits(known[0])}) to {known[-1].head} ({logits(known[-1])}). Orders "
        "without ICH do not see the VLM and have a CDE of 0."
    )
    return [text]


def _others(book: Book) -> list[str]:
    """The cells beside the grid: one run of frames, the other arrow, fewer and more videos."""
    said = []
    for cell in CELLS.values():
        if cell.note in ("", "all orders", "steps"):
            continue
        if row := book.difference(cell.name, "ich", BOTH):
            none = mean(book.seeds(cell.name, NONE, "Acc test"))
            removes = "removes" if row.removes else "does not remove"
            said.append(f"{cell.note}: {logits(row)}, {removes} (none recognises {none})")
    if not said:
        return []
    return ["9. ICH against the same control, in a fourth of the frames, " + "; ".join(said) + "."]


def of_diagram(book: Book, confounder: str) -> list[str]:
    """What to look for."""
    return {
        "h": [
            "Upper row: the label texts hold nothing of a companion; lower row: as much as of the "
            "steps. ICH is blue above and red below wherever a companion comes and goes (P3); what "
            "works on means over time is blue at the top edge, where it persists (P6).",
        ],
        "c": [
            "IVC is held against a decoder that sees the same; its formula against its own mediator "
            "too. Numbers at rho = 1/16 are small because there is little to remove.",
        ],
        "i": [
            "The partner's own step on show in both encoders. A step on show is evidence of the "
            "partner, who does it: where the custom is weak, CDE is below 0.",
        ],
    }[confounder]


def expectations(book: Book) -> list[str]:
    """Before the counts."""
    return [
        "Signs, rule and correction were committed before the study was run (expected.md); pilots "
        "that had been seen by then are named there. A miss stays a miss: most are cells in which "
        "P1 and P2 were taken to decide what a trained head does, and they do not, or in which "
        "there was less than half a logit to remove.",
    ]


def limits(book: Book) -> list[str]:
    """The world in short, and what it cannot tell."""
    return [
        "Ten activities in pairs of partners that share four of five steps, 16 frames of 64 numbers, "
        "200 training and 200 scored videos, one confounder at a time, added as a vector. Heads are "
        "the project's own, trained by its own code: 12 epochs, AdamW at 3e-3, batches of 40, five "
        "seeds, the epoch chosen by 100 videos that have the custom. Every cell is a world of its "
        "own; intervals are over its videos and the seeds, not over worlds.",
        "Confounders are additive by construction, which favours centring, contrast and swap; on "
        "pixels the mean over time holds what is done as well. Heads that need more videos or epochs "
        "(the front door by its formula, centring on the noisier encoder) are at a disadvantage. "
        "The custom is one to one, so that which way the arrow points cannot be told in training "
        "(P9). A CDE is a property of one head in one world; none of this is a claim about a "
        "benchmark.",
    ]


def steps(book: Book) -> list[str]:
    """Before the table of steps."""
    ran = [c for c in CELLS.values() if c.labels == "steps" and book.ran(c.name, c.heads[0])]
    if not ran:
        return ["Not run."]
    return [
        "The same worlds, the head learns which steps are there. Texts are those of steps, which "
        "hold nothing of a confounder."
    ]
