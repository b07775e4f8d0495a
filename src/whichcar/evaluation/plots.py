"""The confusion matrix as an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from whichcar.figures import lettering, save_figure
from whichcar.taxonomy import taxonomy_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#1f2933"
FAINT = "#e4e7eb"
CORRECT = "#1b7f5c"
ERROR = "#c8452b"
FEW, NAMED = 30, 250


def plot_confusion(path: Path, matrix: npt.NDArray[np.int64], names: Sequence[str]) -> None:
    """Write the confusion matrix as PNG: rows are true classes, columns predictions, colour the share of the row.

    Every filled cell shows its count, and every row and column its name; the image grows with the number of classes up
    to 250. Beyond that, names and counts would be too many, so only colours are drawn. Correct predictions are green
    and errors red, on a square-root scale, so that one error in forty is visible. Classes are ordered by make and
    model; above 30 classes, darker lines separate the makes.
    """
    from matplotlib.figure import Figure

    taxonomy = taxonomy_of(names)
    matrix, names = matrix[np.ix_(taxonomy.order, taxonomy.order)], [names[number] for number in taxonomy.order]
    count = len(names)
    cell, font = _cell_and_font(count)
    letters = lettering(names)
    margin = 0.4 + letters.width(names, font) if count <= NAMED else 0.5
    far = margin if count > FEW else 0.4
    side = count * cell
    width, height = max(margin + side + far, 3.6), 0.5 + margin + side + far  # the heading needs this width
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((margin / width, far / height, side / width, side / height))
    _cells(axes, matrix, font)
    if count <= NAMED:
        makes = taxonomy.levels[-1].index[taxonomy.order] if len(taxonomy.levels) > 1 else np.arange(count) // 10
        _named_sides(axes, letters.labels(names), letters.families, font, np.flatnonzero(np.diff(makes)) + 1)
    else:
        axes.set_axis_off()
    figure.text(
        0.2 / width, 1 - 0.2 / height, "rows: true class, columns: predicted class", va="top", color=INK, fontsize=11
    )
    save_figure(figure, path, dpi=110)


def _cell_and_font(count: int) -> tuple[float, float]:
    # Inches per cell and font size in points, chosen by eye at 12, 50 and 196 classes.
    if count <= FEW:
        return 0.42, 9.0
    if count <= 100:
        return 0.2, 7.5
    return (0.15, 6.5) if count <= NAMED else (24 / count, 0.0)


def _cells(axes: Axes, matrix: npt.NDArray[np.int64], font: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(len(matrix), dtype=bool)
    for colour, hidden in ((CORRECT, ~diagonal), (ERROR, diagonal)):
        shades = LinearSegmentedColormap.from_list("shares", ["#ffffff", colour])
        axes.imshow(np.ma.array(shares, mask=hidden), cmap=shades, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    for row, column in zip(*np.nonzero(matrix), strict=True) if font else ():
        axes.text(
            column,
            row,
            str(matrix[row, column]),
            ha="center",
            va="center",
            fontsize=font * 0.85,
            color="white" if shares[row, column] > 0.35 else INK,
        )


def _named_sides(
    axes: Axes, labels: Sequence[str], families: Sequence[str], font: float, dividing: npt.NDArray[np.int64]
) -> None:
    places = np.arange(len(labels))
    far = len(labels) > FEW  # names on all four sides: long rows are hard to follow
    axes.set_xticks(places, labels, rotation=90, fontsize=font, fontfamily=families, color=INK)
    axes.set_yticks(places, labels, fontsize=font, fontfamily=families, color=INK)
    axes.tick_params(length=0, labeltop=True, labelbottom=far, labelright=far, pad=3)
    for place in places[1:]:
        colour = "#9aa5b1" if far and place in dividing else FAINT
        axes.axhline(place - 0.5, color=colour, linewidth=0.4)
        axes.axvline(place - 0.5, color=colour, linewidth=0.4)
    axes.spines[:].set_color(FAINT)
