"""Phase diagrams: where, over two knobs of a world, one thing is better than another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pcmci.report.figures import TRUTH, styled
from pcmci.report.page import Hover

LEVELS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
"""Of what is predicted, in the unit of the colour."""
MISSING = "#f2f4f7"


@dataclass(frozen=True)
class Phase:
    """One panel.

    values: [Y, X] the colour, NaN where nothing was measured. sure: [Y, X] bool, whether the
    interval excludes 0; elsewhere the cell is hatched. predicted: of grids of x and y what is
    expected there, drawn as contours over it; none where nothing predicts a size.
    """

    title: str
    values: np.ndarray
    sure: np.ndarray
    predicted: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


@styled
def phase_diagrams(
    panels: Sequence[Phase],
    x: Sequence[float],
    y: Sequence[float],
    names: tuple[str, str],
    says: str,
    columns: int = 4,
    limit: float = 4.0,
) -> tuple[Figure, list[Hover]]:
    """Panels on one scale of colour, and what their cells say.

    x, y: the knobs' levels, ascending and y above 0. names: of the knobs. says: of a value, for the
    bar. limit: where the colour ends, both ways.
    """
    rows = -(-len(panels) // columns)
    width, height = 2.35 * columns + 1.3, 2.5 * rows + 0.75
    figure = Figure(figsize=(width, height))
    drawn = figure.subplots(rows, columns, squeeze=False).ravel()
    left, right = 0.75 / width, 1 - 0.95 / width
    bottom, top = 0.55 / height, 1 - 0.35 / height
    figure.subplots_adjust(left, bottom, right, top, wspace=0.12, hspace=0.32)
    hovers = []
    for k, (axes, phase) in enumerate(zip(drawn, panels, strict=False)):
        image = axes.imshow(
            phase.values, vmin=-limit, vmax=limit, cmap="RdBu_r", origin="lower", aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
        axes.set_facecolor(MISSING)
        _cells(axes, phase, limit)
        if phase.predicted is not None:
            _contours(axes, phase.predicted, x, y)
        axes.set_title(phase.title, fontsize=8)
        last = k + columns >= len(panels)
        axes.set_xticks(range(len(x)), [f"{value:g}" for value in x] if last else [])
        axes.set_yticks(range(len(y)), [_share(v) for v in y] if k % columns == 0 else [])
        axes.tick_params(length=0)
        place = axes.get_position()
        box = (place.x0, 1 - place.y1, place.width, place.height)
        hover_rows = [f"{names[1]} {_share(value)}" for value in reversed(y)]
        hover_columns = [f"{names[0]} {value:g}" for value in x]
        shown = f"{phase.title}; {{column}}, {{row}}: {{value}}"
        hovers.append(Hover(box, hover_rows, hover_columns, phase.values[::-1], shown))
    for axes in drawn[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel(names[0], fontsize=9)
    figure.supylabel(names[1], fontsize=9)
    bar = figure.add_axes((right + 0.15 / width, bottom, 0.12 / width, top - bottom))
    figure.colorbar(image, cax=bar).set_label(says, fontsize=8)
    return figure, hovers


def _cells(axes: Axes, phase: Phase, limit: float) -> None:
    """A number in every cell, and lines across those whose interval holds 0."""
    for (row, column), value in np.ndenumerate(phase.values):
        if np.isnan(value):
            continue
        if not phase.sure[row, column]:
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(
                Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="#98a2b3", linewidth=0)
            )
        ink = "white" if abs(value) > 0.65 * limit else TRUTH
        written = "0.0" if abs(value) < 0.05 else f"{value:+.1f}"
        axes.text(column, row, written, ha="center", va="center", fontsize=7, color=ink)


def _contours(
    axes: Axes,
    predicted: Callable[[np.ndarray, np.ndarray], np.ndarray],
    x: Sequence[float],
    y: Sequence[float],
) -> None:
    """Cells are as wide as each other, whatever lies between their levels: between two of them x
    runs evenly, and y by its logarithm."""
    across, up = np.linspace(0, len(x) - 1, 81), np.linspace(0, len(y) - 1, 81)
    at_x = np.interp(across, range(len(x)), x)
    at_y = np.exp(np.interp(up, range(len(y)), np.log(y)))
    heights = predicted(at_x[None, :], at_y[:, None])
    levels = [level for level in LEVELS if heights.min() < level < heights.max()]
    if levels:
        lines = axes.contour(across, up, heights, levels, colors="black", linewidths=0.8)
        axes.clabel(lines, fmt=lambda level: f"{level:+g}", fontsize=6)


def _share(value: float) -> str:
    return f"{value:g}" if value == 1 else f"1/{1 / value:g}"
