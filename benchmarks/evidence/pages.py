"""The page of the study, from its rows alone: as HTML, and as the part of docs/evidence.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from evidence import findings, predicted
from evidence.book import Book, mean, noted, plain
from evidence.cells import CELLS, SHARES, STRENGTHS
from evidence.expected import read_expectations
from evidence.heads import BOTH, HEADS, NONE, UNIFORM
from evidence.measured import Row
from pcmci.report.figures import svg
from pcmci.report.page import Cell, Figure, Noted, Page, Section, Table
from pcmci.report.phases import Phase, phase_diagrams

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = "python benchmarks/evidence/study.py"
PROOFS = Path(__file__).with_name("proofs.md")
NAMES = {"h": "H, the companion", "i": "I, the illusion", "c": "C, the looks"}

PANELS: dict[str, list[tuple[float, str, str]]] = {
    "h": [
        (pre, head, control)
        for pre in (0.0, 1.0)
        for head, control in (
            ("ich", BOTH), ("ich", UNIFORM), ("ich, contrast", BOTH), ("both, centred", BOTH),
            ("both, swap", BOTH), ("experts", BOTH),
        )
    ],
    "c": [
        (0.0, head, control)
        for head, control in (
            ("ivc", NONE), ("ivc, cross", NONE), ("ivc, cross", "ivc, cross, K = 0"),
            ("none, centred", NONE), ("none, swap", NONE), ("experts", BOTH),
        )
    ],
    "i": [
        (1.0, head, control)
        for head, control in (("ici", NONE), ("ich,ici", BOTH), ("experts", BOTH))
    ],
}  # fmt: skip
"""Confounder -> of each panel eta_pre, the head and its control."""


def diagram(book: Book, confounder: str, *, draw: bool = True) -> Figure:
    """All panels of one confounder. draw: else its words alone."""
    caption = (
        "Colour and number: CDE of the head less that of its control; blue removes. Hatched: the "
        "95 % interval holds 0. Grey: not measured."
    )
    if confounder == "h":
        caption += (
            " Lines: what the proofs predict (P3), the evidence of a custom times what more of it "
            "passes than of a mean over frames."
        )
    if not draw:
        return Figure("", caption)
    panels = []
    for pre, head, control in PANELS[confounder]:
        values, sure = book.grid(confounder, pre, head, control)
        title = f"{head}\nless {control}"
        contours = None
        if confounder == "h":
            title += f", pre = {pre:g}"
            if predicted.difference(head, np.zeros(1), np.ones(1), pre) is not None:
                contours = partial(predicted.difference, head, pre=pre)
        panels.append(Phase(title, values, sure, contours))  # type: ignore[arg-type]
    columns = {"h": 6, "c": 6, "i": 3}[confounder]
    drawing, hovers = phase_diagrams(
        panels, STRENGTHS, SHARES, ("strength in training, eta", "share of the frames, rho"),
        "difference of CDE, logits", columns=columns, limit=3.0,
    )  # fmt: skip
    return Figure(svg(drawing), caption, hovers)


def scores_table(book: Book, confounder: str) -> Table:
    """Acc and effects of every head in every cell of a confounder."""
    body: list[list[Cell]] = []
    for cell in CELLS.values():
        if cell.knobs.confounder != confounder or cell.labels != "activity":
            continue
        for head in cell.heads:
            if not book.ran(cell.name, head):
                continue
            control = HEADS[head].control
            ratio = book.effect(cell.name, head, "shortcut ratio")
            flips = book.effect(cell.name, head, "flips")
            body.append(
                [
                    cell.name, head,
                    *(mean(book.seeds(cell.name, head, f"Acc {s}")) for s in ("test", "shift",
                                                                            "wrong")),
                    mean(book.seeds(cell.name, head, "Acc shift", "oracle")),
                    plain(book.effect(cell.name, head, "CDE")),
                    plain(book.effect(cell.name, head, "cause")),
                    plain(ratio), mean([flips.value]) if flips and flips.value is not None else
                    None,
                    noted(book.difference(cell.name, head, control)),
                ]
            )  # fmt: skip
    head = [
        "cell", "head", "Acc test", "shift", "wrong", "shift, oracle", "CDE", "effect of what is "
        "done", "ratio", "flips (%)", "CDE less its control's",
    ]  # fmt: skip
    return Table(
        head, body,
        "Means over five seeds; Acc in percent, effects in logits. Test: the custom holds as in "
        "training. Shift: no custom. Wrong: the partner's. Oracle: the epoch chosen with shifted "
        "videos. Flips: answers that change when the confounder does.",
    )  # fmt: skip


def verdicts_table(book: Book) -> Table:
    """What was expected beside what was found, by confounder, head and proof."""
    rows = {(r.cell, r.head, r.control): r for r in book.differences() if r.sign}
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for one in read_expectations():
        row = rows.get((one.cell, one.head, one.control))
        key = (one.cell[0], one.head, one.control, one.sign, one.proof)
        said = row.verdict if row is not None and row.verdict else "not run"
        counts.setdefault(key, Counter())[said] += 1
    columns = ("hit", "miss", "undecided", "not run")
    total = Counter[str]()
    body: list[list[Cell]] = []
    for key, found in counts.items():
        total += found
        confounder, head, control, sign, proof = key
        cells = [str(found[name]) for name in columns]
        body.append([f"{confounder.upper()}: {head}", control, sign, proof, *cells])
    body.append(
        [Noted("all", "", strong=True), None, None, None, *(str(total[n]) for n in columns)]
    )
    return Table(
        ["head", "less", "expected", "proof", *columns], body,
        "Cells in which the difference of CDE has the sign that expected.md expects. 0: within "
        "half a logit. Signs are tested with Holm's correction over a confounder's comparisons.",
    )  # fmt: skip


def misses_table(book: Book) -> Table:
    """Every miss."""
    body: list[list[Cell]] = [
        [r.cell, r.head, r.control, r.sign, noted(r), f"{r.adjusted:.2g}", r.proof]
        for r in book.differences()
        if r.verdict == "miss"
    ]
    return Table(
        ["cell", "head", "less", "expected", "CDE difference", "p, Holm", "proof"], body,
        "Every miss.",
    )  # fmt: skip


def removal_counts(book: Book) -> tuple[int, int, int]:
    """Of what expected.md says of removal: right, wrong, not to be told."""
    right = wrong = unknown = 0
    for row in book.differences():
        if row.expects is None:
            continue
        # nothing lowered is nothing removed, whatever becomes of the cause
        removes = False if row.lowers is False else row.removes
        if removes is None:
            unknown += 1
        elif removes == row.expects:
            right += 1
        else:
            wrong += 1
    return right, wrong, unknown


def removals_table(book: Book) -> Table:
    """Every comparison in which the head removes the confounder."""
    body: list[list[Cell]] = [
        [
            r.cell, r.head, r.control, plain(book.effect(r.cell, r.control or "", "CDE")),
            plain(book.effect(r.cell, r.head, "CDE")), noted(r),
            noted(book.difference(r.cell, r.head, r.control or "", "cause")),
            mean(book.seeds(r.cell, r.control or "", "Acc shift")),
            mean(book.seeds(r.cell, r.head, "Acc shift")),
        ]
        for r in book.differences()
        if r.removes and r.labels == "activity" and r.head != BOTH
    ]  # fmt: skip
    return Table(
        ["cell", "head", "less", "CDE of the control", "CDE", "difference", "difference of what is "
         "done", "Acc shift of the control", "Acc shift"],
        body,
        "Every comparison in which the head removes the confounder: CDE below nine tenths of the "
        "control's, and more than nine tenths of the effect of what is done kept, both by all of "
        "their intervals. What is left of it is its CDE.",
    )  # fmt: skip


def gains_table(book: Book) -> Table:
    """What of a companion passes S~, measured and by the formula."""
    body: list[list[Cell]] = []
    for pre in (0.0, 1.0):
        for share in SHARES:
            cell = next(
                c.name
                for c in CELLS.values()
                if not c.note and c.knobs.confounder == "h" and c.knobs.eta_train == 0.9
                and (c.knobs.share, c.knobs.eta_pre) == (share, pre)
            )  # fmt: skip
            formula = float(predicted.weight_gain(share, predicted.cosine_gap(pre)))
            found = [book.gain(cell, head) for head in (UNIFORM, "ich", "ich, contrast")]
            if all(x is not None for x in found):
                body.append(
                    [f"{pre:g}", f"{share:g}", f"{formula:.2f}", *(f"{x:.2f}" for x in found)]
                )
    return Table(
        ["pre", "rho", "ich, by the formula", "uniform weights", "ich", "ich, contrast"], body,
        "The share of a companion that passes the weights of the video's own label, before "
        "anything is trained. The formula leaves out the one weight a frame that transport adds.",
    )  # fmt: skip


def _of_phases(confounder: str) -> str:
    return f"Phase diagrams of {NAMES[confounder]}"


def proofs() -> list[str]:
    """The paragraphs of proofs.md, without its heading."""
    return [" ".join(part.split()) for part in PROOFS.read_text().split("\n\n")[1:]]


def sections(book: Book, *, draw: bool = True) -> list[Section]:
    """Everything that the rows say. draw: its figures too."""
    right, wrong, unknown = removal_counts(book)
    return [
        Section("Which head for which data", findings.advice(book), [findings.advice_table(book)]),
        Section("What was found", findings.found(book), []),
        *(
            Section(
                _of_phases(confounder),
                findings.of_diagram(book, confounder),
                [diagram(book, confounder, draw=draw)],
            )
            for confounder in PANELS
        ),
        Section(
            "What was expected, and what came",
            [
                *findings.expectations(book),
                f"Of what expected.md says of removal, {right} came true, {wrong} did not, and of "
                f"{unknown} the intervals cannot tell.",
            ],
            [verdicts_table(book), misses_table(book)],
        ),
        Section("Proofs", proofs(), [gains_table(book)]),
        Section("The world, and what this does not show", findings.limits(book), []),
        *(
            Section(f"Every cell of {NAMES[confounder]}", [], [scores_table(book, confounder)])
            for confounder in PANELS
        ),
        Section("Every removal", [], [removals_table(book)]),
        Section("Steps instead of activities", findings.steps(book), [steps_table(book)]),
    ]


def steps_table(book: Book) -> Table:
    """mAP and effects where the head learns the steps."""
    body: list[list[Cell]] = [
        [
            cell.name, head,
            *(mean(book.seeds(cell.name, head, f"mAP {s}")) for s in ("test", "shift", "wrong")),
            plain(book.effect(cell.name, head, "CDE")),
            plain(book.effect(cell.name, head, "cause")),
            noted(book.difference(cell.name, head, HEADS[head].control)),
        ]
        for cell in CELLS.values()
        if cell.labels == "steps"
        for head in cell.heads
        if book.ran(cell.name, head)
    ]  # fmt: skip
    return Table(
        ["cell", "head", "mAP test", "shift", "wrong", "CDE", "effect of what is done",
         "CDE less its control's"],
        body, "As above; the margin is of the steps that are there over those that are not.",
    )  # fmt: skip


def page(rows: Sequence[Row], about: dict[str, str], *, draw: bool = True) -> Page:
    """The whole of it. draw: its figures too."""
    book = Book(rows)
    return Page(
        title="Which head removes which confounder?",
        lead=f"Runs: {about.get('runs', '?')}, of the project's own heads on features whose causes "
        "are known. Stages: ICH (co-occurrence hallucination), ICI (codependency illusion), IVC "
        "(visual confounders).",
        sections=[one for one in sections(book, draw=draw) if _holds(one)],
        facts=about,
        commands={
            "The study again, going on where it was stopped:": f"{COMMAND} --out /tmp/study",
            "The page again, from the rows:": f"{COMMAND} --page",
        },
    )


def _holds(section: Section) -> bool:
    """Whether there is anything in it: a table without rows is none."""
    return bool(section.words) or any(
        not isinstance(block, Table) or block.rows for block in section.blocks
    )


def _flat(cell: Cell) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, Noted):
        return str(cell)
    text = f"{cell.value} {cell.note}".strip()
    return f"**{text}**" if cell.strong else text


def markdown(page: Page) -> str:
    """The page's sections as Markdown; figures as files beside it, see `figures_of`."""
    parts = []
    for section in page.sections:
        parts += [f"## {section.title}", *section.words]
        for block in section.blocks:
            if isinstance(block, Table) and block.rows:
                lines = [block.head, ["---"] * len(block.head)]
                lines += [[_flat(cell) for cell in row] for row in block.rows]
                parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
                parts.append(block.caption)
            elif isinstance(block, Figure):
                parts += [f"![{section.title}](evidence/{_file(section)})", block.caption]
    return "\n\n".join(part for part in parts if part)


def figures_of(page: Page) -> dict[str, str]:
    """File name -> SVG, of the figures that `markdown` refers to."""
    return {
        _file(section): block.svg
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Figure)
    }


def _file(section: Section) -> str:
    return next(f"{name}.svg" for name in PANELS if section.title == _of_phases(name))
