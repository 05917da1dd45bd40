"""Figures of RecGOAT's claim that the fused space errs less than each alone, by no more than
distance and contrast allow: for runs that `space_errors.watch` made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.special import entr

from modalign.core.interfaces import Aligned
from modalign.report.paper_figures import canvas
from modalign.report.paper_figures.figure import Drawn, Material, figure
from modalign.report.paper_figures.measures import Floats, unit_rows
from modalign.report.paper_figures.space_errors import (
    LOG,
    gaps_and_bounds,
    item_modalities,
)
from modalign.report.style import COLOURS, DASHES, INK, MARKERS, SOFT, colour

Rows = Sequence[Mapping[str, float]]
WATCHED = "a run of RecGOAT that `space_errors.watch` trained"
DRAWN = 500
"""Items in the picture of spaces; more would hide each other."""


def _logs(material: Material) -> dict[str, dict[str, Any]]:
    """What `watch` wrote, for each run that it made."""
    paths = {run.name: run.fitted.folder / LOG for run in material.runs if run.fitted.folder}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}


def _first(material: Material) -> tuple[str, dict[str, Any], Aligned] | None:
    """Name, log and model of the first watched run."""
    for name, log in _logs(material).items():
        (model,) = (run.fitted.model for run in material.runs if run.name == name)
        if isinstance(model, Aligned):
            return name, log, model
    return None


def _named(rows: Rows, prefix: str) -> list[str]:
    """What is measured under a prefix, in the order of the first epoch."""
    return [key.removeprefix(prefix) for key in (rows[0] if rows else {}) if key.startswith(prefix)]


@figure("spaces-epochs", needs=WATCHED)
def over_epochs(material: Material) -> Drawn | None:
    """Distances, contrasts, ranking and weights of a watched run over its epochs."""
    first = _first(material)
    if first is None:
        return None
    name, log, _ = first
    return Drawn(
        f"Spaces of {name} over epochs",
        "The 1-Wasserstein distance of each space to the ids before (dashed) and after transport, "
        "in lengths of the ids; the contrast of each pair of spaces; the validation recall; and "
        "the share of each space in an item's fused vector (and of the preference in a user's). "
        "Look for distances that fall while the recall rises, and for weights above zero.",
        _over_epochs(log["epochs"]),
        pl.DataFrame(log["epochs"]),
    )


def _over_epochs(rows: Rows) -> Figure:
    drawing, grid = canvas.panels(2, 2, (8.0, 6.4))
    distances, contrasts, ranking, weights = grid.flat
    handles = {"id": canvas.epochs(weights, rows, "alive/weight/id", INK)}
    for place, name in enumerate(_named(rows, "w1_after/")):
        handles[name] = canvas.epochs(distances, rows, f"w1_after/{name}", colour(place))
        canvas.epochs(distances, rows, f"w1_before/{name}", colour(place), "--")
        canvas.epochs(weights, rows, f"alive/weight/{name}", colour(place))
    if "preference_share" in rows[-1]:
        handles["share of preference"] = canvas.epochs(
            weights, rows, "preference_share", SOFT, "--"
        )
    for place, name in enumerate(_named(rows, "nce/")):
        dash = DASHES[place % len(DASHES)]
        handles[name] = canvas.epochs(contrasts, rows, f"nce/{name}", colour(-place - 1), dash)
    canvas.epochs(ranking, rows, "valid/recall@20", INK)
    canvas.label(distances, "distance to the ids", "epoch", "1-Wasserstein, in lengths of the ids")
    canvas.label(contrasts, "contrast of two spaces", "epoch", "InfoNCE, nats")
    canvas.label(ranking, "ranking", "epoch", "validation Recall@20")
    canvas.label(weights, "fusion", "epoch", "weight")
    distances.set_yscale("log")
    distances.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    distances.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    distances.yaxis.set_minor_formatter(NullFormatter())
    canvas.legend(drawing, handles)
    return drawing


@figure("spaces-gaps", needs=WATCHED)
def gaps(material: Material) -> Drawn | None:
    """Each epoch's gap against its bound, for all watched runs."""
    logs = _logs(material)
    points = {
        f"{run}: {space}" if len(logs) > 1 else space: (bound, gap)
        for run, log in logs.items()
        for space, (gap, bound) in gaps_and_bounds(log["epochs"], log["temperature"]).items()
    }
    if not points:
        return None
    drawing, grid = canvas.panels(1, 1, (6.2, 4.2))
    axes = grid[0, 0]
    handles = {}
    for place, (name, (bound, gap)) in enumerate(points.items()):
        marker, sizes = MARKERS[place % len(MARKERS)], np.linspace(8, 60, len(gap))
        axes.scatter(bound, gap, s=sizes, color=colour(place), marker=marker, alpha=0.65, lw=0)
        handles[name] = canvas.dot(colour(place), marker)
    axes.axhline(0.0, color=SOFT, linewidth=1)
    bound_name = "bound: distance after transport + T · contrast"
    canvas.label(axes, "", bound_name, "error − error of the fused")
    canvas.legend(drawing, handles)
    return Drawn(
        "Spaces: gap to the fused space against its bound",
        "A point for each epoch, larger for later epochs: how much more a space errs than the "
        "fused one, against distance after transport plus temperature times contrast. Look for "
        "points above the line (the fused space is better) that rise to the right. Numbers: the "
        "share of epochs above the line, the gap of the last epoch, Spearman's correlation of gap "
        "and bound, and the smallest factor of the bound that no gap exceeds.",
        drawing,
        pl.concat(
            pl.DataFrame({"space": name, "epoch": range(1, len(gap) + 1), "bound": bound,
                          "gap": gap})
            for name, (bound, gap) in points.items()
        ),
        [
            {"space": f"{run}: {space}"}
            | {key: one.get(key) for key in ("above", "last", "correlation", "constant")}
            for run, log in logs.items()
            for space, one in log["claim"].items()
        ],
    )  # fmt: skip


@figure("spaces-plans", needs=WATCHED)
def plans(material: Material) -> Drawn | None:
    """The transport plans of a watched run."""
    first = _first(material)
    tables = {} if first is None else {
        name: plan.detach().double().cpu().numpy() for name, plan in first[2].plans().items()
    }  # fmt: skip
    if first is None or not tables:
        return None
    return Drawn(
        f"Spaces of {first[0]}: transport plans",
        "Each plan times its number of rows, rows ordered by similarity and columns by the row "
        "that has most of them; below, the entropy of the rows in bits. Look for structure: a plan "
        "without any has the maximum entropy and maps all features onto the same point.",
        _plans(tables),
        {name: plan.tolist() for name, plan in tables.items()},
    )


def _plans(tables: Mapping[str, Floats]) -> Figure:
    across = len(tables)
    drawing, grid = canvas.panels(2, across, (3.0 * across + 0.6, 5.4))
    drawing.set_layout_engine("constrained", hspace=0.06)
    scaled = {name: ordered(plan * len(plan)) for name, plan in tables.items()}
    top = max(canvas.brightest({name: plan}, 0.995) for name, plan in scaled.items())
    canvas.heat_maps(drawing, list(grid[0]), scaled, "d times the plan", top)
    for place, plan in enumerate(tables.values()):
        above, below = grid[:, place]
        above.set_aspect("equal")
        above.set_xlabel("features of the ids")
        above.set_ylabel("" if place else "features of the space")
        below.hist(entropy_bits(plan), bins=16, color=COLOURS[0], alpha=0.85)
        canvas.label(below, "", "entropy of a row, bits", "" if place else "rows")
    return drawing


def entropy_bits(plan: Floats) -> Floats:
    """Entropy of each row, scaled to sum to one, in bits.

    Example:
        >>> entropy_bits(np.array([[0.5, 0.5], [0.0, 2.0]])).tolist()
        [1.0, 0.0]
    """
    share = plan / np.maximum(plan.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    found: Floats = entr(share).sum(axis=1) / np.log(2)
    return found


def ordered(table: Floats) -> Floats:
    """Rows ordered by similarity, columns by the row that has most of them."""
    rows = table[leaves_list(linkage(table, "average"))] if len(table) > 2 else table
    return rows[:, np.argsort(rows.argmax(axis=0), kind="stable")]


@figure("spaces-items", needs=WATCHED)
def items(material: Material) -> Drawn | None:
    """Items of a watched run in all its spaces."""
    first = _first(material)
    if first is None:
        return None
    name, _, model = first
    drawing, places = scatter(_clouds(model))
    rows = [
        {"stage": stage, "space": space, "x": x, "y": y}
        for stage, one in places.items()
        for space, points in one.items()
        for x, y in points.tolist()
    ]
    return Drawn(
        f"Spaces of {name}: items before and after transport",
        f"Up to {DRAWN} items in every space, scaled to length one, on the two principal "
        "directions of all of them together. Look for spaces that overlap after transport.",
        drawing,
        pl.DataFrame(rows),
    )


@torch.no_grad()
def _clouds(model: Aligned) -> dict[str, dict[str, Floats]]:
    """Vectors of some items in the spaces of items, before and after transport."""
    vectors = model.representations()
    modalities = sorted(item_modalities(vectors))
    n_items = len(vectors["id"])
    rows = torch.linspace(0, n_items - 1, min(DRAWN, n_items)).long()

    def cloud(names: Mapping[str, str]) -> dict[str, Floats]:
        return {
            name: vectors[key][rows.to(vectors[key].device)].double().cpu().numpy()
            for name, key in names.items()
        }

    mapped = {name: f"mapped/{name}" for name in modalities}
    return {
        "before": cloud({"id": "id", **{name: f"raw/{name}" for name in modalities}}),
        "after": cloud({"id": "id", **mapped, "unified": "unified"}),
    }


def scatter(
    clouds: Mapping[str, Mapping[str, Floats]],
) -> tuple[Figure, dict[str, dict[str, Floats]]]:
    """Clouds on the two principal directions of all together, a panel for each stage.

    Args:
        clouds: for each stage, such as "before", the vectors of every space, (n_items, d); a
            space has the same colour in all panels.

    Returns:
        The drawing, and the places of the points, (n_items, 2), by stage and space.
    """
    # The spaces' lengths differ by orders of magnitude; ranking uses rows of length one anyway.
    unit = {
        stage: {name: unit_rows(vectors) for name, vectors in one.items()}
        for stage, one in clouds.items()
    }
    stacked = np.concatenate([v for one in unit.values() for v in one.values()])
    centre = stacked.mean(axis=0)
    _, strength, directions = np.linalg.svd(stacked - centre, full_matrices=False)
    shares = strength**2 / max(float((strength**2).sum()), np.finfo(float).tiny)
    names = list(dict.fromkeys(name for one in unit.values() for name in one))
    places = {
        stage: {name: (vectors - centre) @ directions[:2].T for name, vectors in one.items()}
        for stage, one in unit.items()
    }
    drawing, grid = canvas.panels(1, len(unit), (3.8 * len(unit), 4.0), shared=True)
    for axes, (stage, one) in zip(grid.flat, places.items(), strict=True):
        for name, points in one.items():
            axes.scatter(*points.T, s=7, color=colour(names.index(name)), alpha=0.5, lw=0)
        spread = [f"{share:.0%} of the variance" for share in shares[:2]]
        canvas.label(axes, stage, *spread)
    dots = {name: canvas.dot(colour(place)) for place, name in enumerate(names)}
    canvas.legend(drawing, dots)
    return drawing, places
