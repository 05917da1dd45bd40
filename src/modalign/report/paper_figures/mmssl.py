"""Figure 1(b) and (c) of the MMSSL paper: how well items of each degree are found."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
from matplotlib.ticker import FixedLocator, NullLocator

from modalign.evaluate.metrics import hit_matrix
from modalign.report.paper_figures import canvas
from modalign.report.paper_figures.figure import Drawn, Material, Subject, figure
from modalign.report.paper_figures.measures import Floats, Rows
from modalign.report.style import INK, colour

K = 20
HEAD = 0.2
"""Share of the catalogue, by popularity, that is not in the long tail."""
EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Lower ends of the groups of degrees; the last has no upper end."""


@figure("items-degree")
def degrees(material: Material) -> Drawn:
    """Figure 1(b) and (c), for any model."""
    dataset = material.dataset
    degree = np.bincount(dataset.train.items, minlength=dataset.n_items)
    edge = np.sort(degree)[::-1][round(HEAD * dataset.n_items)]
    found = {run.name: found_pairs(run) for run in material.runs}
    drawing, grid, across = canvas.grid_of(len(found), (3.1, 2.8), (0.4, 0.0), shared=True)
    for place, (axes, run) in enumerate(zip(grid, material.runs, strict=True)):
        pairs, hits = found[run.name]
        shown = pairs > 0
        share = hits[shown] / pairs[shown]
        axes.axvspan(-0.5, edge + 0.5, color=INK, alpha=0.06, linewidth=0)
        axes.scatter(degree[shown], share, s=9, color=colour(place), alpha=0.3, linewidth=0)
        centres, means = _means(degree, pairs, hits)
        axes.plot(centres, means, "-o", color=INK, linewidth=1.5, markersize=4)
        axes.set_xscale("symlog", linthresh=1, linscale=0.4)
        axes.set_xlim(-0.4, 1.3 * max(degree.max(), 1))
        ticks = [one for one in (0, 1, 10, 100, 1000, 10_000) if one <= 1.3 * degree.max()]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{one:,}" for one in ticks])
        left = "" if place % across else f"share found in {K}"
        canvas.label(axes, run.label, "training users of the item", left)
    return Drawn(
        "MMSSL, figure 1(b), (c): accuracy by the degree of an item",
        f"A dot for each item of the test part: the share of its hidden pairs found in the first "
        f"{K} places, against the number of its users in training; 0 is a cold item. The line "
        "pools the pairs of items of similar degree. Shaded: the long tail, all but the most "
        f"popular {HEAD:.0%} of the catalogue. Look for a line that stays up on the left: such a "
        "model finds items that few users know. Numbers: the pooled share of each part.",
        drawing,
        pl.DataFrame({"item_id": dataset.items.series, "training users": degree})
        .with_columns(pl.Series("pairs", next(iter(found.values()))[0]))
        .with_columns(pl.Series(f"found by {name}", hits) for name, (_, hits) in found.items()),
        [
            {"run": name}
            | {
                part: float(hits[of].sum() / pairs[of].sum()) if pairs[of].sum() else None
                for part, of in (
                    ("cold", degree == 0),
                    ("tail, not cold", (degree > 0) & (degree <= edge)),
                    ("head", degree > edge),
                )
            }
            for name, (pairs, hits) in found.items()
        ],
    )


def found_pairs(run: Subject, k: int = K) -> tuple[Rows, Rows]:
    """For each item, the number of its test pairs, and of those in the first k places.

    Args:
        run: measured with its own mask.
        k: length of the lists.
    """
    fitted = run.fitted
    mask = fitted.results["mask"]
    measured = fitted.evaluate("test", mask=mask, ks=[k], metrics=("recall",))
    shape = fitted.dataset.n_users, fitted.dataset.n_items
    relevant = fitted.dataset.test.csr(*shape)[measured.ranking.users]
    listed = measured.ranking.items
    hits = listed[hit_matrix(listed, relevant)]
    return np.bincount(relevant.indices, minlength=shape[1]), np.bincount(hits, minlength=shape[1])


def _means(degree: Rows, pairs: Rows, hits: Rows) -> tuple[Floats, Floats]:
    """Mean degree and pooled share of the groups of degrees that have a pair."""
    centres, shares = [], []
    for low, high in pairwise((*EDGES, np.inf)):
        of = (degree >= low) & (degree < high) & (pairs > 0)
        if of.any():
            centres.append(degree[of].mean())
            shares.append(hits[of].sum() / pairs[of].sum())
    return np.array(centres), np.array(shares)
