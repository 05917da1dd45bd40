"""Accuracy and vital signs over one option: figure 4 of the BANDVAE paper, for any model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.ticker import NullLocator

from modalign.report.paper_figures import canvas
from modalign.report.paper_figures.figure import Drawn, Material, Subject, figure
from modalign.report.style import INK, MARKERS, SOFT, colour

AT_LEAST = 2
"""Values of the option."""
TICKS = 6
Table = dict[str, dict[float, list[float]]]


@figure(
    "option-signs",
    runs=AT_LEAST,
    needs="runs with vital signs of one model that differ in one numeric option, as in a sweep",
)
def over_option(material: Material) -> Drawn | None:
    """Validation accuracy and each vital sign over the one option in which runs differ."""
    chosen = _sweep(material.runs)
    if chosen is None:
        return None
    option, runs = chosen
    model = runs[0].fitted.spec.name
    accuracy, signs = _measured(option, runs)
    bounds = {sign.name: sign.at_least for sign in runs[0].fitted.signs}
    tables = {metric: {metric: one} for metric, one in accuracy.items()} | signs
    drawing, grid, _ = canvas.grid_of(len(tables), (3.0, 2.7), (0.0, 0.3))
    values = sorted(
        {value for one in tables.values() for points in one.values() for value in points}
    )
    parts = list(dict.fromkeys(part for one in tables.values() if len(one) > 1 for part in one))
    handles: dict[str, Any] = {}
    for axes, (name, table) in zip(grid, tables.items(), strict=True):
        for part, points in table.items():
            x = sorted(points)
            means = [float(np.mean(points[one])) for one in x]
            place = parts.index(part) if len(table) > 1 else -1
            paint = INK if place < 0 else colour(place)
            (line,) = axes.plot(x, means, f"-{MARKERS[place]}", color=paint, linewidth=1.7)
            if place >= 0:
                handles[part] = line
        if name in bounds:
            axes.axhline(bounds[name], color=SOFT, linestyle="--", linewidth=1)
            axes.set_ylim(bottom=0)
        if values[0] > 0 and values[-1] >= 10 * values[0]:
            axes.set_xscale("log")
        step = -(-len(values) // TICKS)
        axes.set_xticks(values[::step], [f"{one:g}" for one in values[::step]])
        axes.xaxis.set_minor_locator(NullLocator())
        title = f"validation {name}" if name in accuracy else name.replace("_", " ")
        canvas.label(axes, title, option, "")
    canvas.legend(drawing, handles)
    rows_of = [
        {"run": f"{option}={value:g}"}
        | {
            name if part == name else f"{name} of {part}": float(np.mean(points[value]))
            for name, table in tables.items()
            for part, points in table.items()
            if value in points
        }
        for value in values
    ]
    return Drawn(
        f"Accuracy and vital signs of {model} over {option}",
        f"{model} with {len(values)} values of {option}, all other options equal, means over "
        "seeds: validation accuracy and every vital sign at the best epoch, with its bound "
        "(dashed). For BANDVAE and transport_reg this is figure 4 of its paper: below the bound a "
        "plan is a plain mean. Look for values with high accuracy where the signs are above "
        "their bounds; where accuracy does not change, the mechanism brings nothing here.",
        drawing,
        pl.DataFrame(rows_of),
        rows_of,
    )


def _sweep(runs: Sequence[Subject]) -> tuple[str, list[Subject]] | None:
    """The option in which runs of the first suitable model differ, and these runs."""
    by_model: dict[str, list[Subject]] = defaultdict(list)
    for run in runs:
        if run.fitted.vital_signs:
            by_model[run.fitted.spec.name].append(run)
    for same in by_model.values():
        options = [_options(run) for run in same]
        differing = [
            key for key in options[0] if len({str(one.get(key)) for one in options}) >= AT_LEAST
        ]
        if len(differing) == 1 and all(_number(one.get(differing[0])) for one in options):
            return differing[0], same
    return None


def _options(run: Subject) -> dict[str, Any]:
    """The options of the model and of the losses that distilled it."""
    losses = run.fitted.results.get("distillation", {}).get("losses", {})
    return {**run.fitted.config.model_dump(mode="json"), **losses}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _measured(
    option: str, runs: Sequence[Subject]
) -> tuple[dict[str, dict[float, list[float]]], dict[str, Table]]:
    """Values over the option, one for each seed: accuracy by metric, signs by name and part."""
    accuracy: dict[str, dict[float, list[float]]] = {}
    signs: dict[str, Table] = {}
    for run in runs:
        value, fitted = float(_options(run)[option]), run.fitted
        metric = getattr(fitted.config, "select_by", "recall@20")
        if metric in fitted.results["valid"]:
            at = accuracy.setdefault(metric, {}).setdefault(value, [])
            at.append(fitted.results["valid"][metric])
        for one in fitted.vital_signs:
            table = signs.setdefault(one.sign.name, {})
            table.setdefault(one.part or one.sign.name, {}).setdefault(value, []).append(one.value)
    return accuracy, signs
