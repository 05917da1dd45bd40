"""Figures as SVG text that reads on light and on dark pages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK = "#808890"
# Okabe and Ito's colours: told apart by everyone, on white and on black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#B8A800")
MARKERS = "os^DvPX*"

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "modalign",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    *,
    stars: Mapping[str, tuple[float, float]] | None = None,
    ticks: Sequence[float] | None = None,
    points: bool = False,
) -> str:
    """One line per name; `stars` marks one point on a line (the best epoch, say)."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(xlabel, ylabel)
        for index, (name, (x, y)) in enumerate(series.items()):
            colour = COLOURS[index % len(COLOURS)]
            marker = MARKERS[index % len(MARKERS)] if points else None
            axes.plot(x, y, color=colour, label=name, linewidth=1.8, marker=marker, markersize=5)
            if stars and name in stars:
                axes.plot(*stars[name], "*", color=colour, markersize=12)
        if ticks is not None:
            axes.set_xticks(list(ticks))
        if len(series) > 1:
            axes.legend(fontsize=9)
        return _svg(figure)


def bars(groups: Sequence[str], series: Mapping[str, Sequence[float]], ylabel: str) -> str:
    """Bars side by side: one cluster per group, one bar per name."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("", ylabel)
        width = 0.8 / max(len(series), 1)
        for index, (name, values) in enumerate(series.items()):
            places = [g + index * width - 0.4 + width / 2 for g in range(len(groups))]
            axes.bar(places, values, width * 0.92, color=COLOURS[index % len(COLOURS)], label=name)
        axes.set_xticks(range(len(groups)), groups)
        if len(series) > 1:
            axes.legend(fontsize=9)
        return _svg(figure)


def _axes(xlabel: str, ylabel: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.6, 3.3), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.25, color=INK)
    return figure, axes


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
