"""Drawings of `modalign.report.alignment`: spaces over epochs, gaps, plans, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

from modalign.report._canvas import SOFT, _grid, _legend, _name
from modalign.report._measures import unit_rows
from modalign.report.plots import COLOURS, DASHES, MARKERS

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, float]]
METRIC = "valid/recall@20"


@dataclass(frozen=True)
class Points:
    """Gaps and bounds of one space, a pair for each epoch."""

    name: str
    bounds: Sequence[float]
    gaps: Sequence[float]


def distances(rows: Rows) -> Figure:
    """Over epochs: distances to the ids before and after transport, contrasts of two spaces, and
    the validation recall.
    """
    figure, grid = _grid(1, 3, (10.4, 3.6))
    left, middle, right = grid.flat
    handles, names = [], []
    for place, name in enumerate(_named(rows, "w1_after/")):
        colour = COLOURS[place % len(COLOURS)]
        (line,) = left.plot(*_series(rows, f"w1_after/{name}"), color=colour, linewidth=1.7)
        left.plot(*_series(rows, f"w1_before/{name}"), "--", color=colour, linewidth=1.2)
        handles.append(line)
        names.append(f"{name} (before: dashed)")
    for place, name in enumerate(_named(rows, "nce/")):
        dash, colour = DASHES[place % len(DASHES)], COLOURS[-(place + 1) % len(COLOURS)]
        (line,) = middle.plot(*_series(rows, f"nce/{name}"), dash, color=colour, linewidth=1.7)
        handles.append(line)
        names.append(name)
    right.plot(*_series(rows, METRIC), color=SOFT, linewidth=1.7)
    _name(left, "distance to the ids", "epoch", "1-Wasserstein, in lengths of the ids")
    _name(middle, "contrast of two spaces", "epoch", "InfoNCE, nats")
    _name(right, "ranking", "epoch", "validation Recall@20")
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    left.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    left.yaxis.set_minor_formatter(NullFormatter())
    for axes in grid.flat:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if handles:
        _legend(figure, handles, names, 10.4)
    return figure


def gaps(points: Sequence[Points]) -> Figure:
    """Each epoch's gap against its bound, larger markers later, one colour for each space."""
    figure, grid = _grid(1, 1, (6.2, 4.2))
    axes = grid[0, 0]
    handles = []
    for place, one in enumerate(points):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        sizes = np.linspace(8, 60, len(one.gaps))
        axes.scatter(one.bounds, one.gaps, s=sizes, color=colour, marker=marker, alpha=0.65, lw=0)
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=""))
    axes.axhline(0.0, color=SOFT, linewidth=1)
    _name(axes, "", "bound: distance after transport + T · contrast", "error − error of the fused")
    if handles:
        _legend(figure, handles, [one.name for one in points], 6.2)
    return figure


def weights(rows: Rows) -> Figure:
    """Weights of fusion and the preference's share, over epochs."""
    figure, grid = _grid(1, 1, (6.2, 3.4))
    axes = grid[0, 0]
    names = _named(rows, "weight/")
    keys = [f"weight/{name}" for name in names]
    if any("preference_share" in row for row in rows):
        names, keys = [*names, "preference (of users)"], [*keys, "preference_share"]
    handles = []
    for place, key in enumerate(keys):
        dash = "--" if key == "preference_share" else "-"
        (line,) = axes.plot(*_series(rows, key), dash, color=COLOURS[place % len(COLOURS)], lw=1.7)
        handles.append(line)
    _name(axes, "", "epoch", "weight")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if handles:
        _legend(figure, handles, names, 6.2)
    return figure


def spaces(clouds: Mapping[str, Mapping[str, Floats]]) -> Figure:
    """Items of all spaces on the two principal directions of all shown together, a panel a stage.

    Args:
        clouds: for each stage, as "before", the vectors of every space, (n_items, d); a space is
            drawn in the same colour in all panels.
    """
    # Spaces differ in length by orders; what is ranked after fusion is of length one anyhow.
    lengths = {
        stage: {name: unit_rows(vectors) for name, vectors in one.items()}
        for stage, one in clouds.items()
    }
    stacked = np.concatenate([v for one in lengths.values() for v in one.values()])
    centre = stacked.mean(axis=0)
    _, strength, directions = np.linalg.svd(stacked - centre, full_matrices=False)
    shares = strength**2 / max(float((strength**2).sum()), np.finfo(float).tiny)
    names = list(dict.fromkeys(name for one in lengths.values() for name in one))
    figure, grid = _grid(1, len(lengths), (3.8 * len(lengths), 4.0))
    for axes, (stage, one) in zip(grid.flat, lengths.items(), strict=True):
        if axes is not grid.flat[0]:
            axes.sharex(grid.flat[0])
            axes.sharey(grid.flat[0])
        for name, vectors in one.items():
            x, y = ((vectors - centre) @ directions[:2].T).T
            axes.scatter(
                x, y, s=7, color=COLOURS[names.index(name) % len(COLOURS)], alpha=0.5, lw=0
            )
        _name(axes, stage, f"{shares[0]:.0%} of the spread", f"{shares[1]:.0%} of the spread")
    handles = [
        Line2D([], [], color=COLOURS[place % len(COLOURS)], marker="o", linestyle="")
        for place in range(len(names))
    ]
    _legend(figure, handles, names, 3.8 * len(lengths))
    return figure


def plans(tables: Mapping[str, Floats]) -> Figure:
    """Plans with rows and columns ordered by likeness, above the entropies of their rows."""
    across = len(tables)
    figure, grid = _grid(2, across, (3.0 * across + 0.6, 5.4))
    figure.set_layout_engine("constrained", hspace=0.06)
    top = max(float(np.quantile(plan * len(plan), 0.995)) for plan in tables.values()) or 1.0
    for place, (name, plan) in enumerate(tables.items()):
        above, below = grid[:, place]
        shown = above.imshow(
            _ordered(plan * len(plan)), cmap="cividis", vmin=0.0, vmax=top, interpolation="nearest"
        )
        above.grid(visible=False)
        above.spines[:].set_visible(False)
        _name(above, name, "features of the ids", "" if place else "features of the space")
        below.hist(entropy_bits(plan), bins=16, color=COLOURS[0], alpha=0.85)
        _name(below, "", "entropy of a row, bits", "" if place else "rows")
    bar = figure.colorbar(shown, ax=list(grid[0]), fraction=0.05, pad=0.02, extend="max")
    bar.set_label("d times the plan")
    bar.outline.set_visible(False)
    return figure


def entropy_bits(plan: Floats) -> Floats:
    """Entropy of each row, scaled to sum one, in bits.

    Example:
        >>> entropy_bits(np.array([[0.5, 0.5], [0.0, 2.0]])).tolist()
        [1.0, 0.0]
    """
    share = plan / np.maximum(plan.sum(axis=1, keepdims=True), 1e-300)
    logs = np.log2(share, out=np.zeros_like(share), where=share > 0)
    found: Floats = np.abs((share * logs).sum(axis=1))
    return found


def _ordered(table: Floats) -> Floats:
    """Rows ordered by likeness, columns by the row that they have most of."""
    rows = table[leaves_list(linkage(table, "average"))] if len(table) > 2 else table
    return rows[:, np.argsort(rows.argmax(axis=0), kind="stable")]


def _named(rows: Rows, prefix: str) -> list[str]:
    """What is measured under a prefix, in the order of the first epoch."""
    return [key.removeprefix(prefix) for key in (rows[0] if rows else {}) if key.startswith(prefix)]


def _series(rows: Rows, key: str) -> tuple[list[float], list[float]]:
    have = [row for row in rows if key in row]
    return [row["epoch"] for row in have], [row[key] for row in have]
