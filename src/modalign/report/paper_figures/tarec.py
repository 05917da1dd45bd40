"""Figures 1 and 4 of the TARec paper: vectors and scores of a student and its teacher."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from modalign.report.paper_figures import canvas, measures
from modalign.report.paper_figures.canvas import Curves
from modalign.report.paper_figures.figure import Drawn, Material, Subject, figure
from modalign.report.paper_figures.measures import Floats
from modalign.report.style import INK, SOFT, short

ALIGNED = {"raw": "raw", "rotated": "rotated", "scaled": "rotated and scaled"}
PAIRS = {"observed": "observed (test) pairs", "random": "random pairs"}
USERS = "users, active first"

Nodes = dict[str, dict[str, Floats]]
"""By kind of node ("users", "items"): quantities of the trained ones, by name."""


@figure("fig1ab-distances", runs=2, needs="two runs with vectors of one width")
def distances(material: Material) -> Drawn | None:
    """Figures 1(a) and (b)."""
    found = {run.name: _distances(material, run) for run in _comparable(material)}
    if not found:
        return None
    reference = material.runs[0].name
    panels = [
        [
            _panel(
                f"{kind}, {title}",
                "distance to the reference's vector",
                {name: by[kind][way] for name, by in found.items()},
            )
            for way, title in ALIGNED.items()
        ]
        for kind in material.trained
    ]
    return Drawn(
        f"TARec, figure 1(a), (b): distances to the vectors of {reference}",
        f"The length of the difference between a node's vector in {reference} and in a later "
        "run: raw, after the rotation of all vectors together that fits best (orthogonal "
        "Procrustes; it changes no score), and after scaling by one factor as well. Look for "
        "curves further to the left: such a run keeps the reference's geometry. Raw distances "
        "between runs that were trained separately say little, as their axes are arbitrary. Nodes "
        "without training interactions are left out. Numbers: medians.",
        canvas.densities(panels, material.labels),
        _table(material, found),
        [
            {"run": name}
            | {
                f"{kind}, {title}": float(np.median(by[kind][way]))
                for kind in by
                for way, title in ALIGNED.items()
            }
            for name, by in found.items()
        ],
    )


def _comparable(material: Material) -> list[Subject]:
    """The later runs whose vectors have a distance to the reference's; notes name the others."""
    reference, *later = material.runs
    later = [run for run in later if run.vectors is not None]
    if reference.vectors is None:
        if later:
            material.notes.append(
                f"No figures 1(a) and (b): the first run, {reference.name}, has no vectors to "
                "measure a distance from."
            )
        return []
    width = reference.vectors[0].shape[1]
    for run in later:
        if run.vectors and run.vectors[0].shape[1] != width:
            material.notes.append(
                f"Left out of figures 1(a) and (b): {run.name}, whose vectors have "
                f"{run.vectors[0].shape[1]} dimensions; those of {reference.name} have {width}."
            )
    return [run for run in later if run.vectors and run.vectors[0].shape[1] == width]


def _distances(material: Material, run: Subject) -> Nodes:
    """Distances to the reference: raw, after rotation, after rotation and scaling."""
    reference, masks = material.runs[0], material.trained
    target, source = (
        {kind: table[masks[kind]] for kind, table in zip(masks, one.vectors or (), strict=True)}
        for one in (reference, run)
    )
    turn, factor = measures.procrustes(*(np.concatenate(list(one.values()))
                                         for one in (source, target)))  # fmt: skip
    return {
        kind: {
            "raw": np.linalg.norm(target[kind] - source[kind], axis=1),
            "rotated": np.linalg.norm(target[kind] - source[kind] @ turn, axis=1),
            "scaled": np.linalg.norm(target[kind] - factor * (source[kind] @ turn), axis=1),
        }
        for kind in masks
    }


@figure("fig1c-neighbours", needs="a run with vectors of users and items")
def neighbours(material: Material) -> Drawn | None:
    """Figure 1(c)."""
    without = [run.name for run in material.runs if run.vectors is None]
    if without:
        material.notes.append(
            "Left out of figures 1(a) to (c), having no vectors of users and items: "
            f"{', '.join(without)}."
        )
    train = material.dataset.history.train
    found = {}
    for run in material.runs:
        if run.vectors is not None:
            cosines = measures.neighbour_cosines(*run.vectors, train)
            found[run.name] = {
                kind: {"cosine": values[rows]}
                for (kind, rows), values in zip(material.trained.items(), cosines, strict=True)
            }
    if not found:
        return None
    panels = [
        _panel(
            kind,
            "mean cosine with training neighbours",
            {name: by[kind]["cosine"] for name, by in found.items()},
            high=1.0,
        )
        for kind in material.trained
    ]
    return Drawn(
        "TARec, figure 1(c): similarity of neighbours",
        "The mean cosine between a node's vector and those of its neighbours in the training "
        "graph: a user's items, an item's users. Look for a student's curve that lies on its "
        "teacher's: the student has learnt the graph's signal without seeing the graph. "
        "Numbers: medians.",
        canvas.densities([panels], material.labels),
        _table(material, found),
        [
            {"run": name} | {kind: float(np.median(by[kind]["cosine"])) for kind in by}
            for name, by in found.items()
        ],
    )


def _table(material: Material, found: Mapping[str, Nodes]) -> pl.DataFrame:
    """A row for each run and trained node."""
    ids = _ids(material)
    return pl.concat(
        pl.DataFrame(
            {
                "run": name,
                "kind": kind[:-1],
                "id": ids[kind].filter(pl.Series(material.trained[kind])),
            }
            | values
        )
        for name, by in found.items()
        for kind, values in by.items()
    )


def _ids(material: Material) -> dict[str, pl.Series]:
    dataset = material.dataset
    return {"users": dataset.users.series, "items": dataset.items.series}


def _panel(
    title: str, xlabel: str, series: Mapping[str, Floats], high: float | None = None
) -> Curves:
    """Densities of one quantity at common places."""
    places = measures.grid(list(series.values()), high)
    curves = {name: (places, measures.density(v, places, high)) for name, v in series.items()}
    return Curves(title, xlabel, curves)


# ---------------------------------------------------------------------- scores


@figure("fig1def-scores")
def scores(material: Material) -> Drawn:
    """Figure 1(d) to (f), each run on its own scale."""
    found = material.scores
    panels = [
        _panel(run.label, "predicted score", {kind: found[run.name][kind] for kind in PAIRS})
        for run in material.runs
    ]
    return Drawn(
        "TARec, figure 1(d) to (f): predicted scores",
        f"Scores of {len(material.sample.users):,} observed pairs (user and item of the test part, "
        "which training did not see) and of as many random pairs (the same users, each with an "
        "item drawn from the whole catalogue), each run on its own scale. Look for observed pairs "
        "to the right of random ones; the less the curves overlap, the better a run separates "
        "them. Numbers: “separated” is the share of sampled pairs of a user where the observed "
        "item scores higher than the random one; ties count half.",
        _observed_and_random(panels),
        _score_table(material, found),
        [
            {"run": name, "separated": _separation(one)}
            | {f"{kind}, mean": float(one[kind].mean()) for kind in PAIRS}
            | {f"{kind}, deviation": float(one[kind].std()) for kind in PAIRS}
            for name, one in found.items()
        ],
    )


def _observed_and_random(panels: list[Curves]) -> Figure:
    """A panel with axes of its own for each run: observed pairs in its colour, random ones grey."""
    figure, grid, _ = canvas.grid_of(len(panels), (3.1, 2.5), (0.4, 0.3))
    for place, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
        (x, observed), (_, random) = panel.curves["observed"], panel.curves["random"]
        axes.plot(x, random, "--", color=SOFT, linewidth=1.7)
        canvas.curve(axes, x, observed, place, "-")
        canvas.from_zero(axes)
        canvas.label(axes, panel.title, panel.xlabel, "density")
    lines = Line2D([], [], color=INK), Line2D([], [], color=SOFT, linestyle="--")
    canvas.legend(figure, dict(zip(PAIRS.values(), lines, strict=True)))
    return figure


def _separation(one: Mapping[str, Floats]) -> float:
    gap = one["observed"] - one["random"]
    return float((gap > 0).mean() + 0.5 * (gap == 0).mean())


@figure("fig1def-standardised")
def standardised(material: Material) -> Drawn:
    """Figure 1(d) to (f), all runs on one scale."""
    found = {
        name: {kind: _standard(one, kind) for kind in PAIRS}
        for name, one in material.scores.items()
    }
    panels = [
        _panel(
            title,
            "score, in deviations of random pairs",
            {name: one[kind] for name, one in found.items()},
        )
        for kind, title in PAIRS.items()
    ]
    return Drawn(
        "TARec, figure 1(d) to (f), on one scale",
        "The same scores, minus the mean of the run's random pairs and divided by their standard "
        "deviation, so that runs on different scales can be compared. Look for a student whose "
        "curves have the shape of its teacher's. One pair in 250 is left out at each end.",
        canvas.densities([panels], material.labels),
        _score_table(material, found),
        [
            {"run": name, "observed, mean": float(one["observed"].mean())}
            for name, one in found.items()
        ],
    )


def _standard(one: Mapping[str, Floats], kind: str) -> Floats:
    """Minus the mean of the run's random pairs, in their deviations: independent of its scale."""
    spread = float(one["random"].std()) or 1.0
    found: Floats = (one[kind] - one["random"].mean()) / spread
    return found


def _score_table(material: Material, found: Mapping[str, Mapping[str, Floats]]) -> pl.DataFrame:
    ids, sample = _ids(material), material.sample
    return pl.concat(
        pl.DataFrame(
            {
                "pair": kind,
                "user_id": ids["users"].gather(sample.users),
                "item_id": ids["items"].gather(items),
            }
            | {f"score of {name}": one[kind] for name, one in found.items()}
        )
        for kind, items in (("observed", sample.observed), ("random", sample.random))
    )


@figure("fig4-differences", runs=2, needs="two runs")
def differences(material: Material) -> Drawn:
    """Figure 4."""
    (first, reference), *later = material.scores.items()
    raw = {name: np.abs(reference["block"] - one["block"]) for name, one in later}
    own = _standard(reference, "block")
    free = {name: np.abs(own - _standard(one, "block")) for name, one in later}
    sample, ids = material.sample, _ids(material)
    n_users, n_items = len(sample.block_users), len(sample.block_items)
    data = pl.DataFrame(
        {
            "user_id": ids["users"].gather(np.repeat(sample.block_users, n_items)),
            "item_id": ids["items"].gather(np.tile(sample.block_items, n_users)),
        }
        | {f"score of {name}": one["block"].ravel() for name, one in material.scores.items()}
        | {f"difference of {name}": values.ravel() for name, values in raw.items()}
        | {f"standardised difference of {name}": v.ravel() for name, v in free.items()}
    )
    return Drawn(
        f"TARec, figure 4: score differences from {first}",
        f"The absolute difference between the score of {first} and of a later run for "
        f"{n_users} sampled users and {n_items} sampled items, as scored (above) and with both "
        "scores standardised by their own random pairs (below). Each row has one colour scale, "
        "which ends at the 99th percentile. Look for the darker map: that run scores most like "
        "the reference. Columns or rows that stand out are items or users whose level differs. "
        "Above, a different scale of scores alone makes a run differ.",
        score_maps({f"|score − score of {short(first)}|": raw, "the same, in deviations": free}),
        data,
        [
            {
                "run": name,
                "mean difference": float(raw[name].mean()),
                "standardised": float(free[name].mean()),
            }
            for name in raw
        ],
    )


def score_maps(rows: Mapping[str, Mapping[str, Floats]]) -> Figure:
    """Rows of maps (users, items), each row with one colour scale; a long row takes more lines."""
    n = len(next(iter(rows.values())))
    across = canvas.across_of(n)
    lines = -(-n // across)
    size = 2.7 * across + 1.3, 2.85 * len(rows) * lines
    figure, grid = canvas.panels(len(rows) * lines, across, size)
    for row, (text, maps) in enumerate(rows.items()):
        mine = list(grid[row * lines : (row + 1) * lines].flat)
        for axes in mine[n:]:
            axes.remove()
        canvas.heat_maps(figure, mine[:n], maps, text, canvas.brightest(maps, 0.99))
        for place, axes in enumerate(mine[:n]):
            axes.set_xlabel("items, popular first")
            axes.set_ylabel("" if place % across else USERS)
    return figure
