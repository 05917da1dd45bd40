"""Figures of sweeps and ablations as PNG.

Curves and heat maps show validation only, since options are chosen on it; ablations show test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modalign.core.files import write_aside
from modalign.evaluate.compare import MetricDifference
from modalign.report import style
from modalign.report.style import COLOURS, DASHES, INK, MARKERS
from modalign.sweeps.plan import text
from modalign.sweeps.table import Stat, Sweep, SweepRow

DECADES = 50  # the largest over the smallest value from which an axis is logarithmic
MOST_LINES = 16
CHARACTERS = 32  # of labels that stand side by side below a panel
INTERVALS = 5  # between the ticks below a panel of names, at most: more labels than that touch


def draw(found: Sweep) -> list[Path]:
    """Draw the figures of a sweep into its folder: one for every option that was varied, with a
    heat map where there are two, or one over the named sets.

    A curve has the mean over seeds with its deviation. Of two options there is a line for every
    value of the other one; of more, the points are all sets and the line joins the best ones.
    The sibling of the metric stands beside it (NDCG with Recall).

    Returns:
        The files.
    """
    metrics = siblings(found.metric, found.rows)
    rows = [row for row in found.rows if found.metric in row.valid]
    if not rows:  # data without a validation part, as an ablation may have
        return []
    varied = {key: values for key, values in found.plan.grid.items() if len(values) > 1}
    made = []
    with style.look():
        if not found.plan.grid:
            order = [row for name in found.plan.settings for row in rows if row.name == name]
            made.append(_save(_bars(order, metrics), found.folder / "settings.png"))
        for key in varied:
            others = [other for other in varied if other != key]
            figure = _curves(rows, key, others, varied, metrics)
            made.append(_save(figure, found.folder / f"curve-{key}.png"))
        if len(varied) == 2:
            figure = _heat_map(rows, varied, found.metric)
            made.append(_save(figure, found.folder / f"heatmap-{'-'.join(varied)}.png"))
    return made


def draw_differences(found: Sweep, tests: Sequence[MetricDifference]) -> list[Path]:
    """What an ablation tells, into its folder: how far each variant is from the full model on
    test, with the 95% interval over users (uncorrected, as the tests have it); filled where the
    difference is beyond chance after correction.

    Args:
        found: the runs.
        tests: the full model (first) against each variant (second).

    Returns:
        The file, or nothing where no test is of the metric.
    """
    known = {test.metric for test in tests}
    metrics = [metric for metric in siblings(found.metric, found.rows) if metric in known]
    if not metrics:
        return []
    with style.look():
        return [_save(_forest(tests, metrics), found.folder / "differences.png")]


def siblings(metric: str, rows: Sequence[SweepRow]) -> list[str]:
    """The metric, and NDCG beside Recall (or the other way) where both are known.

    Example:
        >>> siblings("map@10", [])
        ['map@10']
    """
    name, _, k = metric.partition("@")
    other = {"recall": "ndcg", "ndcg": "recall"}.get(name, "")
    known = any(f"{other}@{k}" in row.valid for row in rows)
    return [metric, f"{other}@{k}"] if known else [metric]


def scale(values: Sequence[Any]) -> tuple[str, float]:
    """How an axis of these values goes: "log" where they span decades, "symlog" where zero is
    among such, "linear", or "named" for what is no number; and the smallest value above zero.

    Example:
        >>> scale([0.001, 0.1])[0], scale([0, 0.001, 0.1])[0], scale([16, 128])[0], scale(["a"])[0]
        ('log', 'symlog', 'linear', 'named')
    """
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return "named", 0.0
    above = [float(v) for v in values if v > 0]
    if not above or max(above) / min(above) < DECADES or min(values) < 0:
        return "linear", 0.0
    return ("symlog" if 0 in values else "log"), min(above)


def _curves(
    rows: Sequence[SweepRow],
    key: str,
    others: Sequence[str],
    varied: Mapping[str, Sequence[Any]],
    metrics: Sequence[str],
) -> Figure:
    figure, panels = _panels(metrics)
    values = varied[key]
    named = scale(values)[0] == "named"  # such a value stands in its turn, a number at itself
    places = {text(v): float(i if named else v) for i, v in enumerate(values)}
    for axes, metric in zip(panels, metrics, strict=True):
        points = [(places[text(row.options[key])], row.valid[metric], row) for row in rows]
        if len(others) == 1 and len(varied[others[0]]) <= MOST_LINES:
            for index, value in enumerate(varied[others[0]]):
                mine = [p for p in points if text(p[2].options[others[0]]) == text(value)]
                _line(axes, mine, index, f"{others[0]}={text(value)}")
        elif others:
            axes.plot([p[0] for p in points], [p[1].mean for p in points], "o", color="#99999988")
            best = {x: max((p for p in points if p[0] == x), key=lambda p: p[1].mean)
                    for x in {p[0] for p in points}}  # fmt: skip
            _line(axes, list(best.values()), 0, "best of all sets")
        else:
            _line(axes, points, 0, "")
        _scaled(axes, key, values, places)
    style.legend(figure, *panels[0].get_legend_handles_labels())
    return figure


def _line(
    axes: Any, points: Sequence[tuple[float, Stat, SweepRow]], index: int, label: str
) -> None:
    points = sorted(points, key=lambda point: point[0])
    if not points:
        return
    axes.errorbar(
        [x for x, _, _ in points],
        [stat.mean for _, stat, _ in points],
        [stat.std or 0.0 for _, stat, _ in points],
        label=label,
        color=COLOURS[index % len(COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
        linestyle=DASHES[index // len(COLOURS) % len(DASHES)],
        linewidth=1.8,
        capsize=3,
    )


def _heat_map(rows: Sequence[SweepRow], varied: Mapping[str, Sequence[Any]], metric: str) -> Figure:
    across, down = sorted(varied, key=lambda key: -len(varied[key]))  # the wider one across
    xs, ys = _sorted(varied[across]), _sorted(varied[down])
    table = np.full((len(ys), len(xs)), np.nan)
    for row in rows:
        place = _index(ys, row.options[down]), _index(xs, row.options[across])
        table[place] = row.valid[metric].mean
    figure = Figure((2.6 + 0.75 * len(xs), 1.6 + 0.45 * len(ys)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(table, cmap="viridis", aspect="auto", origin="lower")
    axes.grid(visible=False)
    figure.colorbar(image, label=f"validation {metric}")
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (y, x), value in np.ndenumerate(table):
        if not math.isnan(value):
            ink = "black" if value > middle else "white"
            axes.text(x, y, f"{value:.4f}", ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(len(xs)), [text(v) for v in xs])
    axes.set_yticks(range(len(ys)), [text(v) for v in ys])
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    return figure


def _bars(rows: Sequence[SweepRow], metrics: Sequence[str]) -> Figure:
    """Points, not bars: a bar has to begin at zero, where differences are not seen."""
    figure, panels = _listed([row.name for row in rows], metrics)
    for axes, metric in zip(panels, metrics, strict=True):
        for place, row in enumerate(rows):
            stat = row.valid[metric]
            axes.errorbar(stat.mean, place, xerr=stat.std or 0.0, fmt="o", color=COLOURS[0],
                          capsize=3)  # fmt: skip
        axes.set_xlabel(f"validation {metric}")
    return figure


def _forest(tests: Sequence[MetricDifference], metrics: Sequence[str]) -> Figure:
    names = list(dict.fromkeys(test.second for test in tests))
    figure, panels = _listed(names, metrics)
    for axes, metric in zip(panels, metrics, strict=True):
        axes.axvline(0.0, color=INK, linewidth=0.8)
        for test in tests:
            if test.metric != metric:
                continue
            middle = -test.difference
            axes.errorbar(
                middle,
                names.index(test.second),
                xerr=[[middle + test.high], [-test.low - middle]],
                fmt="o",
                color=COLOURS[0],
                markerfacecolor=COLOURS[0] if test.significant else "white",
                capsize=3,
            )
        axes.set_xlabel(f"test {metric}, less that of the full model")
        axes.grid(visible=False, axis="y")
    return figure


def _listed(names: Sequence[str], metrics: Sequence[str]) -> tuple[Figure, Any]:
    """A panel for each metric, the names one below the other."""
    figure = Figure((2.0 + 3.2 * len(metrics), 1.4 + 0.35 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(INTERVALS, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="x", labelsize=9)
    return figure, panels


def _panels(metrics: Sequence[str]) -> tuple[Figure, Any]:
    figure = Figure((1.0 + 4.2 * len(metrics), 3.4), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        axes.set_ylabel(f"validation {metric}")
    return figure, panels


def _scaled(axes: Any, key: str, values: Sequence[Any], places: Mapping[str, float]) -> None:
    kind, smallest = scale(values)
    if kind == "log":
        axes.set_xscale("log")
    elif kind == "symlog":
        axes.set_xscale("symlog", linthresh=smallest)
    many = sum(map(len, places)) > CHARACTERS
    axes.set_xticks(list(places.values()), list(places), rotation=45 if many else 0)
    axes.minorticks_off()
    axes.set_xlabel(key)


def _sorted(values: Sequence[Any]) -> list[Any]:
    return list(values) if scale(values)[0] == "named" else sorted(values)


def _index(values: Sequence[Any], value: Any) -> int:
    return [text(one) for one in values].index(text(value))


def _save(figure: Figure, path: Path) -> Path:
    with write_aside(path) as aside:
        figure.savefig(aside, format="png", metadata={"Software": None})
    return path
