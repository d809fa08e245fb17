"""The drawings of a report, with Matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from pcmci.report.page import Hover

STYLE: Any = {  # its keys' type differs between versions of Matplotlib
    "font.family": "DejaVu Sans",
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
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=5)
            axes.set_yticks(range(len(names)), names, fontsize=5)
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
            axes.plot(range(1, len(loss) + 1), loss, color=COLOURS[k % 8], label=order)
        axes.set_title(labels, fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_yscale("log")
        axes.grid()
    panels[0].set_ylabel("training loss")
    panels[-1].legend(frameon=False)
    return figure
