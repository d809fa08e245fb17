"""The drawings of a report, with Matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from pcmci.report.glyphs import FAMILY, drawn, families
from pcmci.report.page import Hover

STYLE: Any = {  # its keys' type differs between versions of Matplotlib
    "font.family": FAMILY,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#98a2b3",
    "axes.labelcolor": "#475467",
    "xtick.color": "#475467",
    "ytick.color": "#475467",
    "grid.color": "#e4e7ec",
    "figure.facecolor": "white",
    "text.parse_math": False,  # a label may hold a dollar sign
    "svg.hashsalt": "pcmci",  # the same figure gives the same bytes
    "svg.fonttype": "path",
}
"""Ours alone: Matplotlib's own settings stay as the user has them."""

styled = matplotlib.rc_context(STYLE)

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
TRUTH = "#1f2430"
READABLE = 60
"""More labels than these are not written at the axes of a matrix."""


@styled
def svg(figure: Figure) -> str:
    """The figure as an SVG element, without the XML head that HTML has no place for."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


@styled
def scores_by_split(
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]], names: Sequence[str]
) -> Figure:
    """A panel a score, a row an order, a mark a split: how far apart they lie is what a shift
    costs.

    scores: order -> split -> name -> value, as fractions.
    """
    orders = list(scores)
    splits = list(dict.fromkeys(split for by_split in scores.values() for split in by_split))
    figure = Figure(figsize=(9, 1.2 + 0.34 * len(orders)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
    for axes, name in zip(panels, names, strict=True):
        for y, order in enumerate(orders):
            values = [100 * scores[order][split][name] for split in splits]
            axes.plot([min(values), max(values)], [y, y], color="#d0d5dd", zorder=1)
            for k, value in enumerate(values):
                axes.scatter(
                    value, y, s=34, color=COLOURS[k % 8], marker=MARKERS[k % 8], zorder=2,
                    label=splits[k] if y == 0 else None,
                )  # fmt: skip
        axes.set_xlabel(f"{name} (%)")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(orders)), orders)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(splits), frameon=False)
    return figure


@styled
def density_curves(
    curves: Mapping[str, Sequence[float]], truth: Sequence[float], taus: Sequence[float]
) -> Figure:
    """ODD over tau. curves: order -> ODD at each tau; truth: the ground truth's own."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for k, (order, values) in enumerate(curves.items()):
        axes.plot(taus, 100 * np.array(values), color=COLOURS[k % 8], label=order)
    axes.plot(taus, 100 * np.array(truth), color=TRUTH, linestyle="--", label="ground truth")
    axes.axvline(0.6, color="#d0d5dd", linewidth=1, zorder=0)
    axes.set_xlabel("tau")
    axes.set_ylabel("ODD (% of pairs)")
    axes.set_ylim(bottom=0)
    axes.grid()
    axes.legend(frameon=False)
    return figure


@styled
def coprediction_matrices(
    matrices: Mapping[str, np.ndarray], names: Sequence[str]
) -> tuple[Figure, list[Hover]]:
    """Q matrices [N, N] side by side on one scale, and what their cells say."""
    width = 3.4 * len(matrices) + 1.6
    figure = Figure(figsize=(width, 4.6))
    panels = np.atleast_1d(figure.subplots(1, len(matrices), sharey=True))
    for axes, (title, q) in zip(panels, matrices.items(), strict=True):
        shown = np.where(np.eye(len(q), dtype=bool), np.nan, q)
        axes.imshow(shown, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("given this action")
        if len(names) <= READABLE:
            written = {"fontsize": 5, "family": families(names)}
            axes.set_xticks(range(len(names)), drawn(names), rotation=90, **written)
            axes.set_yticks(range(len(names)), drawn(names), **written)
        axes.tick_params(length=0)
    panels[0].set_ylabel("how likely is this one")
    left, right, bottom, top = 0.9 / width, 1 - 0.7 / width, 0.24, 0.92
    figure.subplots_adjust(left, bottom, right, top, wspace=0.04)
    bar = figure.add_axes((right + 0.2 / width, bottom + 0.1, 0.12 / width, top - bottom - 0.2))
    figure.colorbar(panels[0].images[0], cax=bar)
    hovers = []
    for axes, q in zip(panels, matrices.values(), strict=True):
        place = axes.get_position()
        box = (place.x0, 1 - place.y1, place.width, place.height)
        says = "P({row} given {column}) = {value}"
        hovers.append(Hover(box, names, names, q, says))
    return figure, hovers


@styled
def training_curves(losses: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """A panel a label set, a line an order. losses: label set -> order -> loss an epoch."""
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(losses)))
    for axes, (labels, by_order) in zip(panels, losses.items(), strict=True):
        for k, (order, loss) in enumerate(by_order.items()):
            style = ("-", "--", ":")[k // 8 % 3]  # more orders than colours
            axes.plot(
                range(1, len(loss) + 1), loss, color=COLOURS[k % 8], linestyle=style, label=order
            )
        axes.set_title(labels, fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_yscale("log")
        # Matplotlib's own would need mathtext, which is off: a label may hold a dollar sign
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid()
    panels[0].set_ylabel("training loss")
    handles, names = panels[-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=7)
    return figure


@styled
def save(figure: Figure, folder: Path, name: str) -> None:
    """`<name>.svg` and `<name>.png` (200 dots an inch), for a paper."""
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    figure.savefig(folder / f"{name}.png", dpi=200)


@styled
def scores_over_seeds(
    panels: Mapping[str, Mapping[str, tuple[float, float]]],
    paper: Mapping[str, Mapping[str, float]],
) -> Figure:
    """A panel a score, a row a variant: the mean over seeds with its standard deviation, and the
    paper's figure as a hollow diamond.

    panels: score -> variant -> mean and deviation, as fractions. paper: score -> variant -> value.
    """
    variants = list(dict.fromkeys(name for by in panels.values() for name in by))
    figure = Figure(figsize=(9, 1.1 + 0.3 * len(variants)), layout="constrained")
    drawn = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for axes, (score, by_variant) in zip(drawn, panels.items(), strict=True):
        for y, name in enumerate(variants):
            if name in by_variant:
                mean, deviation = by_variant[name]
                axes.errorbar(
                    100 * mean, y, xerr=100 * deviation, fmt="o", color=COLOURS[0], capsize=2,
                    markersize=5, elinewidth=1.2,
                )  # fmt: skip
            if name in paper.get(score, {}):
                axes.scatter(
                    100 * paper[score][name], y, s=34, marker="D", facecolors="none",
                    edgecolors=COLOURS[1],
                )  # fmt: skip
        axes.set_xlabel(f"{score} (%)")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    drawn[0].set_yticks(range(len(variants)), variants)
    drawn[0].invert_yaxis()
    return figure


@styled
def density_bands(
    curves: Mapping[str, np.ndarray],
    truth: Sequence[float],
    taus: Sequence[float],
    reference: str,
) -> Figure:
    """ODD over tau, a panel a variant: its mean over seeds, a band from the lowest seed to the
    highest, the reference in grey and the ground truth's own curve.

    curves: variant -> [S, T] ODD of each seed at each tau.
    """
    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    size = (2.4 * columns + 0.6, 1.9 * rows + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, values) in zip(panels, curves.items(), strict=False):
        percent = 100 * values
        if reference in curves and name != reference:
            axes.plot(taus, 100 * curves[reference].mean(0), color="#98a2b3", label=reference)
        axes.fill_between(taus, percent.min(0), percent.max(0), color=COLOURS[0], alpha=0.25, lw=0)
        axes.plot(taus, percent.mean(0), color=COLOURS[0], label="this order")
        axes.plot(taus, 100 * np.array(truth), color=TRUTH, ls="--", lw=1, label="ground truth")
        axes.axvline(0.6, color="#d0d5dd", linewidth=1, zorder=0)
        axes.set_title(name, fontsize=9)
        axes.set_ylim(bottom=0)
        axes.grid()
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    figure.supxlabel("tau", fontsize=9)
    figure.supylabel("ODD (% of pairs)", fontsize=9)
    handles, labels = panels[min(1, len(curves) - 1)].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


@styled
def class_differences(
    differences: np.ndarray, variants: Sequence[str], classes: Sequence[str], reference: str
) -> tuple[Figure, list[Hover]]:
    """AP of each class against the reference's: a row a variant, a column a class.

    differences: [variants, classes] as fractions, NaN for a class without a positive video.
    """
    width = min(14.0, 3.2 + 0.16 * len(classes))
    figure = Figure(figsize=(width, 1.6 + 0.24 * len(variants)))
    axes = figure.subplots()
    limit = max(0.02, float(np.nanmax(np.abs(differences), initial=0.0)))
    image = axes.imshow(
        differences, vmin=-limit, vmax=limit, cmap="RdBu", aspect="auto", interpolation="nearest"
    )
    axes.set_yticks(range(len(variants)), variants, fontsize=7)
    if len(classes) <= 2 * READABLE:
        axes.set_xticks(
            range(len(classes)), drawn(classes), rotation=90, fontsize=5, family=families(classes)
        )
    else:
        axes.set_xticks([])
    axes.tick_params(length=0)
    bottom, top = 1.1 / figure.get_figheight(), 1 - 0.15 / figure.get_figheight()
    left, right = 1.7 / width, 1 - 0.9 / width
    figure.subplots_adjust(left, bottom, right, top)
    bar = figure.add_axes((right + 0.15 / width, bottom, 0.12 / width, top - bottom))
    figure.colorbar(image, cax=bar)
    box = (left, 1 - top, right - left, top - bottom)
    says = "{row}: AP of {column} {value} above " + reference
    return figure, [Hover(box, variants, classes, differences, says)]


@styled
def reliability_diagram(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], shown: Sequence[str]
) -> Figure:
    """How often what is predicted with some confidence is right; on the diagonal it is honest.

    panels: label set -> variant -> (confidence, share that is right) of each bin. shown: the
    variants that get a colour; the others are grey.
    """
    figure = Figure(figsize=(4.2 * len(panels), 3.8), layout="constrained")
    drawn = np.atleast_1d(figure.subplots(1, len(panels)))
    for axes, (labels, by_variant) in zip(drawn, panels.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=TRUTH, linestyle="--", linewidth=1)
        for name, points in by_variant.items():
            x, y = zip(*points, strict=True)
            if name in shown:
                k = list(shown).index(name)
                axes.plot(x, y, color=COLOURS[k % 8], marker=MARKERS[k % 8], ms=4, label=name)
            else:
                axes.plot(x, y, color="#d0d5dd", linewidth=0.8, zorder=0)
        axes.set_title(labels, fontsize=10)
        axes.set_xlabel("confidence")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.grid()
    drawn[0].set_ylabel("share that is right")
    if drawn[-1].get_legend_handles_labels()[0]:
        drawn[-1].legend(frameon=False, loc="upper left")
    return figure


@styled
def score_by_disagreement(lines: Mapping[str, Sequence[tuple[float, float]]], score: str) -> Figure:
    """A score against how far a head's voices are apart, a line a split.

    lines: split -> (disagreement, score) of each bin, the score as a fraction. score: its name.
    """
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for k, (name, points) in enumerate(lines.items()):
        x, y = zip(*points, strict=True)
        axes.plot(
            x, [100 * value for value in y], color=COLOURS[k % 8], marker=MARKERS[k % 8], ms=4,
            label=name,
        )  # fmt: skip
    axes.set_xlabel("disagreement")
    axes.set_ylabel(f"{score} (%)")
    axes.grid()
    figure.legend(loc="outside right center", frameon=False)
    return figure
