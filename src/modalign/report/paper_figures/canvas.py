"""Drawings that several figures share: grids of panels, densities, maps, lines over epochs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from modalign.report import style
from modalign.report.paper_figures.measures import Floats
from modalign.report.style import COLOURS, DASHES

ACROSS = 3
"""Panels side by side where there is one for each run."""
TITLE = 30
"""Characters in a line of a panel's title."""


@dataclass(frozen=True)
class Curves:
    """A panel of densities: places and heights by name, in the order of the legend."""

    title: str
    xlabel: str
    curves: Mapping[str, tuple[Floats, Floats]]


def panels(
    rows: int, columns: int, size: tuple[float, float], shared: bool = False
) -> tuple[Figure, NDArray[Any]]:
    """A figure and its axes, (rows, columns).

    Args:
        rows: number of rows.
        columns: number of columns.
        size: width and height of the figure in inches.
        shared: all panels have the same limits.
    """
    with style.look():
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        return figure, figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)


def grid_of(
    n: int, panel: tuple[float, float], more: tuple[float, float], shared: bool = False
) -> tuple[Figure, list[Any], int]:
    """A figure of n panels, their axes in reading order, and how many stand side by side.

    Args:
        n: number of panels.
        panel: width and height of each in inches.
        more: width and height of the figure besides.
        shared: all panels have the same limits.
    """
    across = across_of(n)
    rows = -(-n // across)
    size = panel[0] * across + more[0], panel[1] * rows + more[1]
    figure, grid = panels(rows, across, size, shared)
    axes = list(grid.flat)
    for empty in axes[n:]:
        empty.remove()
    return figure, axes[:n], across


def across_of(n: int) -> int:
    """Number of panels side by side; 4 make a square."""
    return 2 if n == 4 else min(n, ACROSS)


def label(axes: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Name a panel and its axes.

    Args:
        axes: the panel.
        title: title, on several lines if it is long.
        xlabel: label of the horizontal axis.
        ylabel: label of the vertical axis.
    """
    axes.set_title(textwrap.fill(title, TITLE))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)


def legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    """A legend above the panels."""
    with style.look():
        style.legend(figure, list(handles.values()), list(handles))


def dot(colour: str, marker: str = "o") -> Line2D:
    """The sign of a cloud of points in a legend."""
    return Line2D([], [], color=colour, marker=marker, linestyle="")


def curve(axes: Any, x: Floats, y: Floats, place: int, dash: str | None = None) -> Any:
    """Draw a filled density and return its line.

    Args:
        axes: the panel.
        x: places.
        y: heights.
        place: place in the legend, which decides on colour and dash.
        dash: another dash than that of the place.
    """
    dash = dash or DASHES[(place + place // len(COLOURS)) % len(DASHES)]
    axes.fill_between(x, y, color=style.colour(place), alpha=0.1, linewidth=0)
    (line,) = axes.plot(x, y, dash, color=style.colour(place), linewidth=1.7)
    return line


def from_zero(axes: Any) -> None:
    """Set the limits of a panel of densities, after all curves: later ones do not move them."""
    axes.margins(x=0.0)
    axes.set_ylim(bottom=0.0)


def densities(rows: Sequence[Sequence[Curves]], labels: Mapping[str, str]) -> Figure:
    """Panels of densities; a name has one colour and dash in all panels, and in all figures.

    Args:
        rows: rows of panels.
        labels: the legend's text for each name, in its order; a name that no panel has takes up
            a colour but is not in the legend.
    """
    across = max(map(len, rows))
    drawn = {name for row in rows for one in row for name in one.curves}
    texts = [text for name, text in labels.items() if name in drawn]
    width = 3.1 * across
    lines = -(-len(texts) // style.legend_columns(texts, width))
    figure, grid = panels(len(rows), across, (width, 2.35 * len(rows) + 0.24 * lines))
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid.flat, [one for row in rows for one in row], strict=True):
        for place, name in enumerate(labels):
            if name in panel.curves:
                handles[name] = curve(axes, *panel.curves[name], place)
        from_zero(axes)
        label(axes, panel.title, panel.xlabel, "density")
    with style.look():
        style.legend(figure, [handles[name] for name in labels if name in drawn], texts)
    return figure


def heat_maps(
    figure: Figure, axes: Sequence[Any], maps: Mapping[str, Floats], text: str, top: float
) -> None:
    """Maps side by side with one colour bar.

    Args:
        figure: the figure of the axes.
        axes: one panel for each map.
        maps: values by name, (rows, columns).
        text: label of the colour bar.
        top: value of the brightest colour.
    """
    highest = 0.0
    for one, (name, values) in zip(axes, maps.items(), strict=True):
        shown = one.imshow(
            values, cmap="cividis", vmin=0.0, vmax=top, aspect="auto", interpolation="nearest"
        )
        highest = max(highest, float(values.max()))
        one.grid(visible=False)
        one.spines[:].set_visible(False)
        one.set_title(textwrap.fill(style.short(name), TITLE))
    beyond = "max" if highest > top else "neither"
    bar = figure.colorbar(shown, ax=list(axes), extend=beyond, fraction=0.05, pad=0.02)
    bar.set_label(textwrap.fill(text, TITLE))
    bar.outline.set_visible(False)


def brightest(maps: Mapping[str, Floats], share: float) -> float:
    """The quantile of all values of the maps at which their colours end; never zero."""
    whole = np.concatenate([one.ravel() for one in maps.values()])
    return float(np.quantile(whole, share)) or float(whole.max()) or 1.0


def epochs(
    axes: Any, rows: Sequence[Mapping[str, float]], key: str, colour: str, dash: str = "-"
) -> Any:
    """One quantity of a training log over epochs; returns the line.

    Args:
        axes: the panel.
        rows: the log, a row for each epoch with its number as "epoch".
        key: the quantity; epochs without it are left out.
        colour: colour of the line.
        dash: dash of the line.
    """
    have = [row for row in rows if key in row]
    x, y = [row["epoch"] for row in have], [row[key] for row in have]
    (line,) = axes.plot(x, y, dash, color=colour, linewidth=1.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return line
