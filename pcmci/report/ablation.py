"""The page of an ablation, and its figures, from its rows alone: no store, no run, no model."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure as Drawing

from pcmci.report import figures, glyphs
from pcmci.report.effects import REMOVES, effects_section, of_rows
from pcmci.report.encoders import planted_note, row_notes
from pcmci.report.few_parameters import few_parameters
from pcmci.report.literature import LITERATURE
from pcmci.report.page import Cell, Figure, Hover, Link, Noted, Page, Section, Table
from pcmci.report.paper import FEW_PARAMETERS
from pcmci.report.provenance import lost_section, provenance
from pcmci.report.rows import Row, Rows, read_rows
from pcmci.report.table import (
    STAGES,
    best_row,
    count,
    difference,
    named,
    no_interval_line,
    paper_figure,
    percent,
    several,
    spread,
    ticks,
    undefined_line,
)
from pcmci.report.voices_section import voices_section

EXPLAINED = Path("explain", "index.html")
"""Where `pcmci explain` puts its pages, in a run's folder."""
SHOWN_PAIRS = 15
"""Implausible pairs on the page; the table of rows has more."""
NAMED_ORDERS = 3
FEWEST = 10
"""A bin of the reliability diagram with fewer predictions is not drawn."""
SHOWN_CLASSES = 12
"""Classes with the largest differences that are named."""


def write_report(folder: str | Path) -> Path:
    """Write `index.html` and `figures/` beside the rows of an ablation; returns the page."""
    folder = Path(folder)
    rows = read_rows(folder)
    shutil.rmtree(folder / "figures", ignore_errors=True)
    (folder / "figures").mkdir()
    return ablation_page(rows, folder / "figures").write(folder / "index.html")


def ablation_page(rows: Rows, figures_folder: Path | None = None) -> Page:
    """The page; its figures are also written into a folder where one is given."""
    gallery = _Gallery(figures_folder)
    facts = rows.facts
    seeds = facts["seeds"]
    planted = [one["planted"] for one in rows.stores.values() if one.get("planted")]
    return Page(
        title=f"Ablation of stages on {facts['dataset']}",
        lead="".join(f"{planted_note(one)}. " for one in planted)
        + f"{len(rows.variants)} models, {len(seeds)} seed{'s' * (len(seeds) > 1)}, "
        f"{facts['done']} of {facts['runs']} runs. Stages: ICH (co-occurrence hallucination), ICI "
        "(codependency illusion), IVC (visual confounders); an order says which come, and when.",
        sections=[
            section
            for section in (
                _scores(rows, gallery),
                _encoders(rows),
                _literature(rows),
                *_splits(rows),
                voices_section(rows, gallery.show, _seen(rows.summary)),
                _effects(rows),
                few_parameters(rows.tables["results"], rows.summary, rows.facts, _main_split(rows)),
                _densities(rows, gallery),
                _coprediction(rows, gallery),
                _classes(rows, gallery),
                _reliability(rows, gallery),
                _training(rows, gallery),
                _runs(rows, gallery),
                lost_section(rows),
            )
            if section
        ],
        facts=provenance(rows),
        commands={
            "This ablation was made by": facts["command"],
            "The page again, from the rows:": "pcmci report " + shlex.quote(str(_home(gallery))),
        }
        if facts["command"]
        else {},
    )


def _home(gallery: _Gallery) -> Path:
    return gallery.folder.parent if gallery.folder else Path("DIR")


@dataclass(frozen=True)
class _Gallery:
    """Where figures are kept as files of their own."""

    folder: Path | None

    def show(
        self, name: str, drawing: Drawing, caption: str, hovers: Sequence[Hover] = ()
    ) -> Figure:
        if self.folder:
            figures.save(drawing, self.folder, name)
        return Figure(figures.svg(drawing), caption, hovers)


def _of(rows: Sequence[Row], **fixed: Any) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in fixed.items())]


def _main_split(rows: Rows) -> str:
    splits = list(dict.fromkeys(row["split"] for row in rows.summary))
    scored = [split for split in splits if split != "val"]
    return "test" if "test" in scored or not scored else scored[0]


def _scores(rows: Rows, gallery: _Gallery) -> Section:
    split = _main_split(rows)
    drawn = [score for score in rows.scores() if not score.startswith("ODD")]
    missing = [line for s in rows.scores() if (line := undefined_line(rows.summary, s, split))]
    drawn = [score for score in drawn if not undefined_line(rows.summary, score, split)]
    panels = {
        score: {
            row["variant"]: (row["mean"], row["sd"] or 0.0)
            for row in _of(rows.summary, score=score, split=split)
            if row["mean"] is not None
        }
        for score in drawn
    }
    paper = {
        score: {row["variant"]: value for row in _of(rows.summary, score=score, split=split)
                if (value := paper_figure(row)) is not None}
        for score in drawn
    }  # fmt: skip
    words = [
        "Mean ± standard deviation over seeds. Under it the difference to "
        f"{rows.reference} with its 95 % interval (paired bootstrap over sessions and seeds); a "
        "star where it excludes 0. Videos without features count as wrong."
    ]
    words += [f"{line}." for line in missing]
    if line := no_interval_line(rows.summary, split):
        words.append(f"{line}.")
    if not any(row["seeds"] for row in rows.summary if row["reference"]):
        words.append(f"Every run of the reference {rows.reference} failed: nothing is compared.")
    several = max(row["settings tried"] for row in rows.summary)
    if several > 1:
        words.append(
            f"Of every row the same {several} settings of training were tried; the one with the "
            "best mean on validation is shown. The test split chose nothing."
        )
    few = [
        f"{name}: {percent(value)}"
        for score in drawn
        for name, value in FEW_PARAMETERS.get((rows.facts["dataset"], score), {}).items()
    ]
    if any(paper.values()):
        words.append(
            "The paper trains its video encoder, here it is frozen: its figures are a landmark, "
            "not a target."
            + (f" Its own with few parameters tuned, Acc: {'; '.join(few)}." if few else "")
        )
    drawing = figures.scores_over_seeds(panels, paper) if any(panels.values()) else None
    caption = "Points: mean over seeds, with the standard deviation." + (
        " Hollow diamonds: the paper." if any(paper.values()) else ""
    )
    return Section(
        f"Scores on {split}",
        words,
        [
            *([gallery.show("scores", drawing, caption)] if drawing else []),
            _score_table(rows, split),
        ],
    )


def _score_table(rows: Rows, split: str) -> Table:
    """A row a variant, a column a score, the paper's figure beside it where there is one."""
    by_score = {
        score: {row["variant"]: row for row in _of(rows.summary, score=score, split=split)}
        for score in rows.scores()
    }
    any_row = {name: row for by_variant in by_score.values() for name, row in by_variant.items()}
    with_settings = any(row["settings"] for row in any_row.values())
    with_choice = any(row["chosen setting"] for row in any_row.values())
    columns: dict[str, dict[str, Cell]] = {}
    for score, by_variant in by_score.items():
        if undefined_line(rows.summary, score, split):
            continue
        best = best_row(by_variant.values(), score)
        columns[f"{score} (%)"] = {
            name: Noted(spread(row), difference(row), strong=row is best)
            for name, row in by_variant.items()
        }
        papers = {name: paper_figure(row) for name, row in by_variant.items()}
        if any(value is not None for value in papers.values()):
            columns[f"{score}, the paper"] = {n: percent(value) for n, value in papers.items()}
    names = named(list(any_row.values()))
    several_heads = several(list(any_row.values()))
    head = [*names, *(stage.upper() for stage in STAGES)]
    head += ["settings"] * with_settings + ["seeds", *columns]
    head += ["trained", "seconds"] * several_heads
    choosing = [score for score in by_score if not score.startswith("ODD")]
    head += ["tried", f"chosen by {', '.join(choosing)}"] * with_choice
    body: list[list[Cell]] = []
    for place, (name, row) in enumerate(any_row.items()):
        failed = f"{row['failed']} failed" if row["failed"] else ""
        cells: list[Cell] = [*(column[place] for column in names.values()), *ticks(row["order"])]
        cells += [row["settings"]] * with_settings + [Noted(str(row["seeds"]), failed)]
        cells += [column.get(name) for column in columns.values()]
        if several_heads:
            seconds = row.get("seconds")
            cells += [count(row.get("trained parameters"))]
            cells += [None if seconds is None else round(seconds, 1)]
        chosen = [by_score[score][name]["chosen setting"] for score in choosing]
        cells += [row["settings tried"], ", ".join(chosen)] * with_choice
        body.append(cells)
    covered = {row.get("at") or "": percent(row["coverage"]) for row in any_row.values()}
    if len(set(covered.values())) > 1:
        each = "; ".join(f"{at} {share} %" for at, share in covered.items())
    else:
        each = f"{next(iter(covered.values()))} %"
    damaged = {at: one.get("replaced", {}).get(split, 0) for at, one in rows.stores.items()}
    counts = " and ".join(f"{n} ({at})" if at else str(n) for at, n in damaged.items() if n)
    replaced = f", {counts} of them with replaced frames" if counts else ""
    truths = {percent(row["truth"]) for row in any_row.values() if row["truth"] is not None}
    truth = f" ODD of the ground truth: {', '.join(sorted(truths))}." if truths else ""
    caption = f"In percent, on {split}; {each} of its videos have features{replaced}.{truth}"
    caption += _seen(any_row.values())
    return Table(head, body, caption)


def _seen(rows: Iterable[Row]) -> str:
    """A sentence for each encoder that saw a benchmark's labels, to end a caption with."""
    return "".join(f" {note[0].upper()}{note[1:]}." for note in row_notes(rows))


def _literature(rows: Rows) -> Section | None:
    """Beside other heads, what the literature reports on the same benchmark."""
    dataset = str(rows.facts["dataset"])
    found = [(one, acc) for one in LITERATURE if (acc := one.on(dataset)) is not None]
    if not found or not several(rows.summary):
        return None
    body: list[list[Cell]] = [
        [one.method, one.backbone or None, percent(acc), one.source, one.note or None]
        for one, acc in found
    ]
    return Section(
        "What the literature reports",
        [
            "Acc in percent. None of it is comparable with another, or with the rows above: their "
            "encoders are trained or others, and where it is known that the test set chose the "
            "epoch, it is said. Here the encoders are frozen, and the test set chooses nothing."
        ],
        [Table(["method", "backbone", "Acc", "read in", "mind"], body, "")],
    )


def _encoders(rows: Rows) -> Section | None:
    """What the encoders cost, where stores are compared."""
    stores = {name: one for name, one in rows.stores.items() if name}
    if not stores:
        return None
    body: list[list[Cell]] = []
    for name, one in stores.items():
        cost = one.get("cost", {})
        flops, speed = cost.get("gflops"), cost.get("videos a second")
        body.append(
            [
                name, one["video encoder"]["name"], one["vlm"]["name"], one["frames"],
                count(one["video encoder"]["parameters"]),
                None if flops is None else f"{flops:,.0f}",
                None if speed is None else f"{speed:.2f} ({cost['measured on']})",
            ]
        )  # fmt: skip
    head = [
        "store", "video encoder", "VLM", "frames", "parameters", "GFLOPs a video", "videos/s",
    ]  # fmt: skip
    caption = (
        "GFLOPs: of the video encoder for all frames of a view, a multiplication and an addition "
        "being two, where its card has them. Videos/s: of extraction with both encoders, as it was "
        "measured when this store was made by itself; a dash where it was not."
    )
    return Section("What the encoders cost", [], [Table(head, body, caption)])


def _splits(rows: Rows) -> list[Section]:
    """Where there are more splits than one (the kitchen's shifts): a column each."""
    splits = [s for s in dict.fromkeys(row["split"] for row in rows.summary) if s != "val"]
    if len(splits) < 2:
        return []
    tables = []
    seen = _seen(rows.summary)
    for score in rows.scores():
        by_variant: dict[str, dict[str, Row]] = {}
        for row in _of(rows.summary, score=score):
            by_variant.setdefault(row["variant"], {})[row["split"]] = row
        best = [best_row(_of(rows.summary, score=score, split=split), score) for split in splits]
        body: list[list[Cell]] = []
        for variant, by_split in by_variant.items():
            found = [by_split.get(split) for split in splits]
            cells: list[Cell] = [
                Noted(spread(row), difference(row), strong=row is first) if row else None
                for row, first in zip(found, best, strict=True)
            ]
            body.append([variant, *cells])
        tables.append(Table(["row", *splits], body, f"{score} in percent.{seen}"))
    return [Section("Every split", [], tables)]


def _effects(rows: Rows) -> Section | None:
    """Where stores have twins."""
    by_labels = of_rows(rows.tables.get("effects", []))
    return effects_section(by_labels, REMOVES) if by_labels else None


def _densities(rows: Rows, gallery: _Gallery) -> Section | None:
    found = _of(rows.tables.get("densities", []), split=_main_split(rows))
    taus = sorted({row["tau"] for row in found})
    if len(taus) < 2:
        return None
    curves = {}
    for variant in dict.fromkeys(row["variant"] for row in found):
        odd = {(r["seed"], r["tau"]): r["odd"] for r in _of(found, variant=variant)}
        seeds = dict.fromkeys(seed for seed, _ in odd)
        curves[variant] = np.array([[odd[seed, tau] for tau in taus] for seed in seeds])
    truth = [next(row["truth"] for row in found if row["tau"] == tau) for tau in taus]
    drawing = figures.density_bands(curves, truth, taus, rows.reference)
    return Section(
        "ODD over tau",
        [
            "ODD is the share of pairs of steps of which one is predicted wherever the other is. "
            "Real procedures do co-occur: lower is better only above the dashed curve of the "
            "ground truth."
        ],
        [gallery.show("odd", drawing, "Line: mean over seeds; band: from the lowest to the "
                      "highest.")],
    )  # fmt: skip


def _coprediction(rows: Rows, gallery: _Gallery) -> Section | None:
    if "truth" not in rows.matrices:
        return None
    names = [str(name) for name in rows.matrices["names"]]
    shown = {
        name: rows.matrices[f"q/{name}"] for name in rows.shown if f"q/{name}" in rows.matrices
    }
    drawing, hovers = figures.coprediction_matrices(
        {**shown, "ground truth": rows.matrices["truth"]}, names
    )
    of_pair: dict[tuple[str, str], list[Row]] = {}
    for row in rows.tables.get("pairs", []):
        of_pair.setdefault((row["predicted"], row["given"]), []).append(row)
    common = sorted(
        of_pair.items(), key=lambda item: (-len(item[1]), -max(r["q"] for r in item[1]))
    )
    pairs: list[list[Cell]] = [
        [
            predicted, given, _two(found[0]["q_train"]), _two(found[0]["q_truth"]),
            f"{max(row['q'] for row in found):.2f}",
            Noted(f"{found[0]['variants with it']} of {len(rows.variants)}", _orders(found)),
        ]
        for (predicted, given), found in common[:SHOWN_PAIRS]
    ]  # fmt: skip
    counts = {row["variant"]: row["pairs"] for row in rows.tables.get("pairs", [])}
    counted = ", ".join(f"{variant} {counts.get(variant, 0)}" for variant in rows.variants)
    return Section(
        "Which steps are predicted together",
        [],
        [
            gallery.show(
                "coprediction", drawing,
                "Co-prediction Q on the test videos, the mean over seeds. Point at a cell for its "
                "names." + _key(names, figures.READABLE),
                hovers,
            ),
            Table(
                ["predicted", "given", "Q of training labels", "Q of the truth", "highest Q",
                 "orders"],
                pairs,
                "Implausible pairs: Q above 0.6 in the prediction and not in the training labels; "
                f"the {SHOWN_PAIRS} that most orders share. How many each order has: {counted}.",
            ),
        ],
    )  # fmt: skip


def _key(names: Sequence[str], most: int) -> str:
    """Of the numbers at an axis that names up to so many labels."""
    return glyphs.key(names) if len(names) <= most else ""


def _orders(pairs: Sequence[Row]) -> str:
    """Which orders have a pair, the first few by name."""
    names = [row["variant"] for row in pairs]
    more = f" and {len(names) - NAMED_ORDERS} more" if len(names) > NAMED_ORDERS else ""
    return "; ".join(names[:NAMED_ORDERS]) + more


def _two(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _classes(rows: Rows, gallery: _Gallery) -> Section | None:
    found = rows.tables.get("classes", [])
    base = {row["class"]: row for row in _of(found, variant=rows.reference)}
    others = [name for name in rows.variants if name != rows.reference]
    ap = {(row["variant"], row["class"]): row["AP"] for row in found}
    others = [name for name in others if any((name, c) in ap for c in base)]
    if not any(row["AP"] is not None for row in base.values()) or not others:
        return None
    classes = sorted(
        (name for name, row in base.items() if row["AP"] is not None),
        key=lambda name: -base[name]["AP"],
    )
    differences = np.array(
        [[_minus(ap.get((name, c)), base[c]["AP"]) for c in classes] for name in others]
    )
    drawing, hovers = figures.class_differences(differences, others, classes, rows.reference)
    named = rows.shown[-1] if rows.shown[-1] in others else others[-1]
    gains = differences[others.index(named)]
    largest = sorted(range(len(classes)), key=lambda k: -abs(np.nan_to_num(gains[k])))
    table = Table(
        ["step", "positive test videos", f"AP of {rows.reference}", f"AP of {named}", "difference"],
        [
            [classes[k], base[classes[k]]["positive videos"], percent(base[classes[k]]["AP"]),
             percent(ap[named, classes[k]]), f"{100 * gains[k]:+.2f}"]
            for k in largest[:SHOWN_CLASSES]
        ],
        f"The {SHOWN_CLASSES} steps with the largest differences, in percent. A step with few "
        "positive videos moves easily." + _seen(rows.summary),
    )  # fmt: skip
    return Section(
        "Which steps gain, which lose",
        [],
        [
            gallery.show(
                "classes", drawing,
                f"AP of each step minus that of {rows.reference}, the mean over seeds; steps by "
                f"their AP of {rows.reference}, the best on the left."
                + _key(classes, 2 * figures.READABLE),
                hovers,
            ),
            table,
        ],
    )  # fmt: skip


def _minus(value: float | None, base: float) -> float:
    return float("nan") if value is None else value - base


def _reliability(rows: Rows, gallery: _Gallery) -> Section | None:
    found = rows.tables.get("reliability", [])
    if not found:
        return None
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    errors: dict[str, dict[str, float]] = {}
    for row in found:
        by_variant = panels.setdefault(row["labels"], {})
        if row["count"] >= FEWEST:
            by_variant.setdefault(row["variant"], []).append((row["confidence"], row["correct"]))
        errors.setdefault(row["variant"], {})[row["labels"]] = row["calibration error"]
    table = Table(
        ["order", *(f"{labels}: calibration error (%)" for labels in panels)],
        [
            [variant, *(percent(of.get(labels)) for labels in panels)]
            for variant, of in errors.items()
        ],
        "Expected calibration error in ten bins, of all seeds together.",
    )
    return Section(
        "Is its confidence honest?",
        [],
        [
            gallery.show(
                "reliability", figures.reliability_diagram(panels, rows.shown),
                "For activities the likeliest one's probability and how often it is right; for "
                "steps each probability and how often the step is there. Grey: the other orders. "
                f"Bins with fewer than {FEWEST} predictions are left out.",
            ),
            table,
        ],
    )  # fmt: skip


def _training(rows: Rows, gallery: _Gallery) -> Section | None:
    found = rows.tables.get("epochs", [])
    if not found:
        return None
    losses: dict[str, dict[str, list[float]]] = {}
    for labels, variant in dict.fromkeys((row["labels"], row["variant"]) for row in found):
        by_epoch: dict[int, list[float]] = {}
        for row in _of(found, labels=labels, variant=variant):
            by_epoch.setdefault(row["epoch"], []).append(row["loss"])
        losses.setdefault(labels, {})[variant] = [
            float(np.mean(values)) for _, values in sorted(by_epoch.items())
        ]
    drawing = figures.training_curves(losses)
    return Section(
        "Training", [], [gallery.show("training", drawing, "Loss an epoch, the mean over seeds.")]
    )


def _runs(rows: Rows, gallery: _Gallery) -> Section:
    results = rows.tables["results"]
    split = _main_split(rows)
    scores = [name for name in rows.scores() if f"{split}/{name}" in results[0]]
    validation = [name for name in scores if f"val/{name}" in results[0]]
    tried = any(row["tried"] for row in results)
    body: list[list[Cell]] = []
    for row in results:
        seconds = row.get("seconds")
        body.append(
            [
                row["variant"], row["seed"], *([row["tried"]] * tried), row["status"],
                *(percent(row[f"val/{name}"]) for name in validation),
                *(percent(row[f"{split}/{name}"]) for name in scores),
                None if seconds is None else round(seconds, 1),
                row["reason"] or _explained(row, gallery),
            ]
        )  # fmt: skip
    head = ["order", "seed", *(["tried"] * tried), "status"]
    head += [f"val {name}" for name in validation] + scores + ["seconds", "run"]
    failed = sum(row["status"] != "done" for row in results)
    words = [f"{failed} of {len(results)} runs failed; they are in no mean."] if failed else []
    if (done := next((row for row in results if row["run"]), None)) is not None:
        run = shlex.quote(done["run"])
        words.append(
            "What a run made of its videos, its mistakes first, as pages (a run's name leads to "
            f"those that were there when this page was made): pcmci explain {run} --split {split} "
            "--wrong"
        )
    caption = f"Every run, on {split} in percent; a score of validation where it chose."
    caption += _seen(results)
    return Section("Every run", words, [Table(head, body, caption)])


def _explained(row: Row, gallery: _Gallery) -> Cell:
    """A run's name, which leads to the pages of `pcmci explain` where they lie in its folder."""
    run = Path(row["run"])
    page = run / EXPLAINED
    if gallery.folder is None or not page.is_file():
        return run.name
    href = os.path.relpath(page.resolve(), gallery.folder.parent.resolve())
    return Link(run.name, quote(href))
