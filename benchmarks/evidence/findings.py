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


def advice(book: Book) -> list[str]:
    """Before the table."""
    return [
        "Ask two things of your data. Does what misleads stand in the whole video, or does it come "
        "and go? And does your VLM speak of it: would its texts of the labels be nearer to a frame "
        "with it? The first decides what can take it out (P1, P6), the second whether ICH's weights "
        "run away from it or towards it (P3). No head here is best everywhere.",
    ]


def advice_table(book: Book) -> Table:
    """A few lines a kind of data: what the heads do there, the control first."""
    offered: list[tuple[str, str, str, list[tuple[str, str]], str]] = [
        (
            "comes and goes, half of the frames; not in the texts", _cell("h", "1/2"), BOTH,
            [("ich", "take"), ("ich, contrast", "take"), ("both, swap", "")], "P3",
        ),
        (
            "comes and goes, a fourth; not in the texts", _cell("h", "1/4"), BOTH,
            [(BOTH, "take, for Acc"), ("ich", "take, for the least effect"), ("both, swap", "")],
            "P3",
        ),
        (
            "comes and goes, a fourth; the texts hold it", _cell("h", "1/4", 1), BOTH,
            [(BOTH, "take"), ("ich", "avoid"), ("both, swap", "take")], "P3",
        ),
        (
            "stays, only the VLM sees it", _cell("h", "1"), BOTH,
            [("ich", ""), ("ich, contrast", "take"), ("both, centred", ""),
             ("both, swap", "take, for the test too"), ("experts", "take, for the test too")],
            "P1, P6, P8",
        ),
        (
            "stays, the VLM does not see it (a look)", _cell("c", "1"), NONE,
            [("ivc", "avoid"), ("none, swap", ""), (BOTH, "better"), ("experts", "take")],
            "P5, P6, P8",
        ),
        (
            "stays, both see it: a step on show", _cell("i", "1", 1), NONE,
            [("ici", ""), ("ich,ici", ""), ("experts", ""), ("experts, swap", "best of a bad lot")], "P4",
        ),
        (
            "nothing misleads (eta = 0)", _cell("h", "1/4", 0, "0"), BOTH,
            [(BOTH, "take"), ("ich", ""), ("both, swap", "")], "P7",
        ),
    ]  # fmt: skip
    body: list[list[Cell]] = []
    for data, cell, first, heads, proof in offered:
        says = dict(heads)
        said = False
        for head in dict.fromkeys([first, *says]):
            if not book.ran(cell, head):
                continue
            body.append(
                [
                    "" if said else data, head, says.get(head) or None,
                    *(mean(book.seeds(cell, head, f"Acc {s}")) for s in ("shift", "test")),
                    plain(book.effect(cell, head, "CDE")),
                    plain(book.effect(cell, head, "cause")), "" if said else proof,
                ]
            )  # fmt: skip
            said = True
    return Table(
        [
            "what misleads",
            "head",
            "advice",
            "Acc shift",
            "Acc test",
            "CDE",
            "what is done",
            "proof",
        ],
        body,
        "Custom of 0.9 in training (0 in the last lines), 200 training videos. Shift: the custom "
        "does not hold. What is done: the effect of another performance.",
    )


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
        f"hold it: in {_removed(free)} cells with a custom there (at rho = 1/16 and at eta 0.5 there is too little to remove, or too much of what is done is lost). At {go} its CDE is "
        f"{plain(book.effect(go, 'ich', 'CDE'))} where a decoder that sees the same frames has "
        f"{plain(book.effect(go, BOTH, 'CDE'))}: {logits(book.difference(go, 'ich', BOTH))}. The "
        "weights pass over frames with a companion, because these are further from every text (P3; "
        "the table of gains under Proofs).",
        f"2. ICH brings the confounder in where the texts do hold it: CDE is above the control's by "
        f"all of its interval in {len(worse)} of {len(held)} such cells, at {tie} by "
        f"{logits(book.difference(tie, 'ich', BOTH))}, and Acc without the custom falls from "
        f"{mean(book.seeds(tie, BOTH, 'Acc shift'))} to {mean(book.seeds(tie, 'ich', 'Acc shift'))}. "
        "The weights go to the frames with the companion (P3).",
        f"3. Where it stands in every frame all of it passes (P1), and 0 was expected. Yet ICH's CDE is lower than the control's in {sum(interval(r).high < 0 for r in stay)} of {len(stay)} cells, at {persist} {plain(book.effect(persist, 'ich', 'CDE'))} of {plain(book.effect(persist, BOTH, 'CDE'))}: a miss. P1 bounds what passes, not how much a head goes by it: the effect of what is done is {plain(book.effect(persist, 'ich', 'cause'))} with ICH and {plain(book.effect(persist, BOTH, 'cause'))} without, and a head that reads the steps better has less use for a custom (measured, not proved). What is left is no small thing: Acc without the custom is {mean(book.seeds(persist, 'ich', 'Acc shift'))}.",
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
        "sees are two things, and where little misleads the second is the larger one.",
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
    untied = _cell("h", "1/4", 1, "0")
    return [
        "Signs, rule and correction were committed before the study was run (expected.md); pilots "
        "that had been seen by then are named there. A miss stays a miss: most are cells in which "
        "P1 and P2 were taken to decide what a trained head does, and they do not, or in which "
        "there was less than half a logit to remove. One is of P7: where nothing is tied but the "
        f"texts hold the companion ({untied}), ICH's answers still change with it, against the custom: "
        f"{logits(book.difference(untied, 'ich', BOTH))}.",
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
