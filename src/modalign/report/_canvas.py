"""Drawing to files: dark ink on white, sharp at twice the size, told apart by nearly everyone."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from modalign.report import _flow
from modalign.report._flow import LOSSES, Pair
from modalign.report.plots import COLOURS, DASHES, LONGEST

Floats = NDArray[np.float64]

INK, SOFT, FAINT = "#22282d", "#6b747c", "#b9c0c6"
DPI = 200
ACROSS = 3
"""Panels side by side where there is one for each run."""
TITLE = 30
"""Characters in a line of a panel's title."""
USERS = "users, active first"

_STYLE = {
    "svg.hashsalt": "modalign",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7ea",
    "legend.frameon": False,
    "savefig.dpi": DPI,
}
_LOSS_COLOURS = dict(zip(LOSSES, (COLOURS[1], COLOURS[0]), strict=True))


@dataclass(frozen=True)
class Curves:
    """A panel of densities: places and heights by name, in the order of the legend."""

    title: str
    xlabel: str
    curves: Mapping[str, tuple[Floats, Floats]]


def densities(panels: Sequence[Sequence[Curves]], labels: Mapping[str, str]) -> Figure:
    """Panels in rows; a name has one colour and dash in all panels, and in all figures.

    Args:
        panels: rows of panels.
        labels: the legend's text for each name, in its order; names that no panel has count
            for the colours alone.
    """
    width = 3.1 * max(map(len, panels))
    drawn = {name for row in panels for one in row for name in one.curves}
    texts = [label for name, label in labels.items() if name in drawn]
    height = 2.35 * len(panels) + 0.24 * -(-len(texts) // _columns(texts, width))
    figure, grid = _grid(len(panels), max(map(len, panels)), (width, height))
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid.flat, [one for row in panels for one in row], strict=True):
        for place, name in enumerate(labels):
            if name in panel.curves:
                handles[name] = _curve(axes, *panel.curves[name], place)
        _from_zero(axes)
        _name(axes, panel.title, panel.xlabel, "density")
    _legend(figure, [handles[name] for name in labels if name in drawn], texts, width)
    return figure


def observed_and_random(panels: Sequence[Curves]) -> Figure:
    """A panel with axes of its own for each run: observed pairs in its colour, random ones grey."""
    across = _across(len(panels))
    rows = -(-len(panels) // across)
    figure, grid = _grid(rows, across, (3.1 * across + 0.4, 2.5 * rows + 0.3))
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    for place, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
        (x, observed), (_, random) = panel.curves["observed"], panel.curves["random"]
        axes.plot(x, random, "--", color=SOFT, linewidth=1.7)
        _curve(axes, x, observed, place, "-")
        _from_zero(axes)
        _name(axes, panel.title, panel.xlabel, "density")
    handles = [Line2D([], [], color=INK), Line2D([], [], color=SOFT, linestyle="--")]
    _legend(figure, handles, ["observed (test) pairs", "random pairs"], 3.1 * across)
    return figure


def heat_maps(rows: Sequence[tuple[str, Mapping[str, Floats]]]) -> Figure:
    """Maps side by side; one colour scale for each row, shared by its maps.

    Args:
        rows: what the colours tell, and a map (users, items) for each name. A row of many
            maps goes on in the next line.
    """
    across = _across(len(rows[0][1]))
    lines = -(-len(rows[0][1]) // across)
    size = 2.7 * across + 1.3, 2.85 * len(rows) * lines
    figure, grid = _grid(len(rows) * lines, across, size)
    for row, (label, maps) in enumerate(rows):
        whole = np.concatenate([one.ravel() for one in maps.values()])
        top = float(np.quantile(whole, 0.99)) or float(whole.max()) or 1.0
        mine = list(grid[row * lines : (row + 1) * lines].flat)
        for axes in mine[len(maps) :]:
            axes.remove()
        for place, (axes, (name, values)) in enumerate(zip(mine, maps.items(), strict=False)):
            shown = axes.imshow(values, cmap="cividis", vmin=0.0, vmax=top, aspect="auto",
                                interpolation="nearest")  # fmt: skip
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            _name(axes, short(name), "items, popular first", "" if place % across else USERS)
        beyond = "max" if whole.max() > top else "neither"
        bar = figure.colorbar(shown, ax=mine[: len(maps)], extend=beyond, fraction=0.05, pad=0.02)
        bar.set_label(textwrap.fill(label, TITLE))
        bar.outline.set_visible(False)
    return figure


def flow_on_the_line(pair: Pair) -> Figure:
    """Snapshots: the target above, the points and where they are headed below."""
    figure, grid = _grid(2, len(_flow.SHOWN), (2.45 * len(_flow.SHOWN), 4.1), shared=True)
    target = np.sort(pair.target[:, 0])
    ends = [target, *(run.points[..., 0].ravel() for run in pair.runs.values())]
    low, high = min(map(np.min, ends)) - 0.3, max(map(np.max, ends)) + 0.3
    bins = np.linspace(low, high, 29)
    for line, (name, run) in zip(grid, pair.runs.items(), strict=True):
        for axes, step in zip(line, _flow.SHOWN, strict=True):
            x, ahead = run.points[step, :, 0], run.descent[step, :, 0]
            axes.hist(target, bins, density=True, color=FAINT, label="target")
            axes.hist(x, bins, density=True, histtype="step", linewidth=1.6,
                      color=_LOSS_COLOURS[name], label=f"points, {name}")  # fmt: skip
            # Points on a few levels, so that their arrows do not lie on each other.
            level = -0.25 - 0.2 * (np.argsort(np.argsort(x)) % 4)
            axes.quiver(x, level, ahead, np.zeros_like(x), angles="xy", scale_units="xy", scale=1.5,
                        color=_LOSS_COLOURS[name], width=0.006, headwidth=4.5)  # fmt: skip
            _name(axes, f"step {step}", "position" if name == LOSSES[-1] else "", "")
        line[0].set_ylabel(f"{name}\ndensity")
    grid[0, 0].set_yticks(range(int(grid[0, 0].get_ylim()[1]) + 1))
    grid[0, 0].set_xlim(low, high)
    handles = [grid[0, 0].get_legend_handles_labels()[0][i] for i in (0, 1)]
    handles.append(grid[1, 0].get_legend_handles_labels()[0][1])
    _legend(figure, handles, ["target", "points, biased", "points, debiased"], 9.8)
    return figure


def flow_in_the_plane(pair: Pair) -> Figure:
    """Snapshots: target, points, and an arrow from each along its negative gradient."""
    figure, grid = _grid(2, len(_flow.SHOWN), (2.45 * len(_flow.SHOWN), 5.2), shared=True)
    handles: dict[str, Any] = {}
    for line, (name, run) in zip(grid, pair.runs.items(), strict=True):
        for axes, step in zip(line, _flow.SHOWN, strict=True):
            (x, y), (u, v) = run.points[step].T, run.descent[step].T
            handles["target"] = axes.scatter(*pair.target.T, 11, FAINT, linewidths=0)
            axes.quiver(x, y, u, v, angles="xy", scale_units="xy", scale=1.5, alpha=0.6,
                        color=_LOSS_COLOURS[name], width=0.005, headwidth=4.5)  # fmt: skip
            dots = axes.scatter(x, y, 9, _LOSS_COLOURS[name], linewidths=0)
            handles[f"points, {name}"] = dots
            axes.set_aspect("equal")
            _name(axes, f"step {step}", "first coordinate" if name == LOSSES[-1] else "", "")
        line[0].set_ylabel(f"{name}\nsecond coordinate")
    _legend(figure, list(handles.values()), list(handles), 9.8)
    return figure


def flow_losses(pairs: Mapping[int, Pair]) -> Figure:
    """The loss that each flow goes down, and how far it really is from the target."""
    figure, grid = _grid(2, len(pairs), (3.9 * len(pairs), 5.0))
    handles: dict[str, Any] = {}
    for column, (dimension, pair) in zip(grid.T, pairs.items(), strict=True):
        for name, run in pair.runs.items():
            dash = DASHES[LOSSES.index(name)]
            for axes, values in zip(column, (run.losses, run.exact), strict=True):
                (handles[name],) = axes.plot(values, dash, color=_LOSS_COLOURS[name], linewidth=1.8)
        _name(column[0], f"{dimension}-D, regularisation {pair.reg:g}", "", "loss")
        _name(column[1], "", "step", "exact transport cost")
        for axes in column:
            axes.set_ylim(bottom=0.0)
    _legend(figure, list(handles.values()), list(handles), 7.8)
    return figure


def files(figure: Figure) -> dict[str, bytes]:
    """The figure as PNG and as SVG; equal figures give equal bytes."""
    found = {}
    with mpl.style.context(["default", _STYLE]), warnings.catch_warnings():
        # A letter that the font lacks in a run's name is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        # Laid out once for both.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for kind in ("png", "svg"):
            file = io.BytesIO()
            nothing = {"svg": ("Date", "Creator"), "png": ("Software",)}[kind]
            figure.savefig(file, format=kind, metadata=dict.fromkeys(nothing))
            found[kind] = file.getvalue()
    return found


def short(name: str) -> str:
    """A run's name in one line, its middle left out where it is long."""
    name = " ".join(name.split())
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: half - 1]}…{name[-half:]}"


def _across(panels: int) -> int:
    """How many panels stand side by side: 4 make a square."""
    return 2 if panels == 4 else min(panels, ACROSS)


def _grid(
    rows: int, columns: int, size: tuple[float, float], shared: bool = False
) -> tuple[Figure, NDArray[Any]]:
    with mpl.style.context(["default", _STYLE]):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        return figure, figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)


def _curve(axes: Any, x: Floats, y: Floats, place: int, dash: str | None = None) -> Any:
    colour = COLOURS[place % len(COLOURS)]
    dash = dash or DASHES[(place + place // len(COLOURS)) % len(DASHES)]
    axes.fill_between(x, y, color=colour, alpha=0.1, linewidth=0)
    (line,) = axes.plot(x, y, dash, color=colour, linewidth=1.7)
    return line


def _from_zero(axes: Any) -> None:
    """Once all is drawn: limits that are set earlier would not grow with later curves."""
    axes.margins(x=0.0)
    axes.set_ylim(bottom=0.0)


def _name(axes: Any, title: str, xlabel: str, ylabel: str) -> None:
    axes.set_title(textwrap.fill(title, TITLE))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str], width: float) -> None:
    """Above the axes; texts are set afterwards, as a leading underscore would hide a name."""
    columns = _columns(names, width)
    with mpl.style.context(["default", _STYLE]):
        legend = figure.legend(
            handles,
            [str(place) for place in range(len(names))],
            loc="outside upper left",
            ncols=columns,
            markerscale=1.8,
        )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def _columns(names: Sequence[str], width: float) -> int:
    """Of a legend, in a figure so many inches wide."""
    longest = max(len(name) for name in names)
    return max(1, min(len(names), int(72 * width / (44 + 5.4 * longest))))
