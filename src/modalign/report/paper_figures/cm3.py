"""Figures 1 and 4 of the CM3 paper: alignment against uniformity, and items on the circle."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.stats import gaussian_kde

from modalign.core import seeds
from modalign.nn.losses.uniformity import alignment, uniformity
from modalign.report.paper_figures import canvas
from modalign.report.paper_figures.figure import Drawn, Material, Subject, figure
from modalign.report.paper_figures.measures import Floats, Rows, unit_rows
from modalign.report.style import MARKERS, SOFT, colour

ITEMS = 4_000
"""Maximum number of items in the mean over all pairs of items, and on the circle."""
COLUMNS = 4
CELLS = 90
"""Cells along each side of the map of a circle."""
RIM = 1.35

Path = dict[str, list[float]]


@figure("cm3-paths", needs="a run with vectors of users and items")
def paths(material: Material) -> Drawn | None:
    """Figure 1."""
    found = {run.name: _ends(material, run) for run in material.runs if run.vectors is not None}
    if not found:
        return None
    logged = {run.name: path for run in material.runs if (path := _logged(run))}
    drawing, grid = canvas.panels(1, 1 + bool(logged), (4.2 + 3.6 * bool(logged), 3.6))
    handles: dict[str, Any] = {}
    for place, run in enumerate(material.runs):
        if run.name in found:
            marker = MARKERS[place % len(MARKERS)]
            one = found[run.name]
            grid[0, -1].plot(
                one["alignment"], one["items"], marker, color=colour(place), markersize=8
            )
            handles[run.label] = canvas.dot(colour(place), marker)
        if run.name in logged:
            _path(grid[0, 0], logged[run.name], run.fitted.results["best_epoch"], colour(place))
    if logged:
        canvas.label(grid[0, 0], "losses in training", "alignment", "uniformity of items")
    grid[0, -1].margins(0.2)
    canvas.label(grid[0, -1], "measured at the best epoch", "alignment", "uniformity of items")
    canvas.legend(drawing, handles)
    data = [{"run": name, "measured": True, "epoch": None} | one for name, one in found.items()]
    data += [
        {"run": name, "measured": False} | dict(zip(path, values, strict=True))
        for name, path in logged.items()
        for values in zip(*path.values(), strict=True)
    ]
    return Drawn(
        "CM3, figure 1: alignment against uniformity",
        "Alignment: the mean squared distance between a user and a training item, as unit "
        "vectors. Uniformity: log mean exp(-2 d^2) over pairs of different items. Lower is better "
        "in both, so look for the lower left corner. Measured for every run with vectors on the "
        "same training pairs and items, at the best epoch. "
        + (
            f"Training logs both losses for {', '.join(logged)}: the path goes from the dot to "
            "the arrow, with a star at the best epoch. A calibrated uniformity is log mean "
            "exp(4 (cos - s)) with the content similarity s of two items, so it lies higher than "
            "the measured one."
            if logged
            else "No run logs the two losses in training (CM3 does), so there are no paths."
        ),
        drawing,
        pl.DataFrame(data, schema_overrides={"epoch": pl.Int64}),
        [{"run": name} | one for name, one in found.items()],
    )


def _path(axes: Any, path: Path, best: int, paint: str) -> None:
    x, y = path["alignment"], path["items"]
    axes.plot(x, y, color=paint, linewidth=1.6)
    axes.plot(x[0], y[0], "o", color=paint, markersize=5)
    at = path["epoch"].index(best)
    axes.plot(x[at], y[at], "*", color=paint, markersize=13)
    if len(x) > 1:
        before = -2 - len(x) // 8  # steps of the last epochs are too short to have a direction
        arrow = {"arrowstyle": "-|>", "color": paint, "linewidth": 0, "mutation_scale": 18}
        arrow |= {"shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (x[-1], y[-1]), (x[before], y[before]), arrowprops=arrow)


def _logged(run: Subject) -> Path:
    """Alignment and uniformity of items over the epochs, as the losses were logged."""
    config = run.fitted.config
    weight = getattr(config, "gamma", 1.0) * getattr(config, "kappa", 1.0)
    path: Path = {"epoch": [], "alignment": [], "items": []}
    for row in run.fitted.history:
        spread = row.get("loss/cal_uniform_item", row.get("loss/uniform_item"))
        if "loss/align" in row and spread is not None:
            for name, value in zip(
                path, (row["epoch"], row["loss/align"], spread / weight), strict=True
            ):
                path[name].append(value)
    return path if path["epoch"] else {}


def _ends(material: Material, run: Subject) -> dict[str, float]:
    """Alignment of training pairs, and uniformity of items and of users, from the vectors."""
    assert run.vectors is not None
    rng = seeds.numpy_generator(material.seed, "figures", "alignment")
    train = material.dataset.train
    pairs = rng.permutation(len(train))[: material.pairs]
    users, items = map(torch.from_numpy, run.vectors)
    spread = {
        kind: float(uniformity(table[_some(material, kind, rng)]))
        for kind, table in (("items", items), ("users", users))
    }
    paired = alignment(users[train.users[pairs]], items[train.items[pairs]])
    return {"alignment": float(paired), **spread}


def _some(material: Material, kind: str, rng: np.random.Generator) -> Rows:
    """Up to ITEMS of the nodes with training interactions."""
    rows: Rows = np.sort(rng.permutation(np.flatnonzero(material.trained[kind]))[:ITEMS])
    return rows


# ---------------------------------------------------------------------- the circle


@figure("cm3-circle", needs="a run with vectors of users and items")
def circle(material: Material) -> Drawn | None:
    """Figure 4."""
    rng = seeds.numpy_generator(material.seed, "figures", "circle")
    rows = _some(material, "items", rng)
    have = [one for one in enumerate(material.runs) if one[1].vectors is not None]
    if not have or len(rows) < 3:
        return None
    if len(have) > COLUMNS:
        material.notes.append(f"Only the first {COLUMNS} runs with vectors are on the circle.")
    have = have[:COLUMNS]
    points = {
        run.name: on_circle(run.vectors[1][rows]) for _, run in have if run.vectors is not None
    }
    places = np.linspace(-np.pi, np.pi, 361)
    heights = {name: angle_density(found, places) for name, (found, _) in points.items()}
    drawing, grid = canvas.panels(2, len(points), (2.6 * len(points) + 0.4, 4.6))
    top = 1.08 * max(one.max() for one in heights.values())
    for column, (place, run) in enumerate(have):
        found, share = points[run.name]
        above, below = grid[:, column]
        above.imshow(_map(found), extent=(-RIM, RIM, -RIM, RIM), origin="lower", cmap="Blues")
        above.grid(visible=False)
        above.spines[:].set_visible(False)
        above.set_xticks([])
        above.set_yticks([])
        canvas.label(above, run.label, f"{share:.0%} of the variance", "")
        canvas.curve(below, places, heights[run.name], place, "-")
        below.axhline(1 / (2 * np.pi), color=SOFT, linewidth=1, linestyle="--")
        below.set_xticks([-np.pi, 0, np.pi], ["-π", "0", "π"])
        below.set_xlim(-np.pi, np.pi)
        below.set_ylim(0, top)
        canvas.label(below, "", "angle", "" if column else "density")
    return Drawn(
        "CM3, figure 4: items on the circle",
        f"Up to {ITEMS:,} items with training interactions, as unit vectors, on the two principal "
        "directions of the run's items and scaled to length one: a Gaussian kernel density on the "
        "circle, and the density of the angle (dashed: all angles equally likely). Look for "
        "clusters under a model whose similar items are close, and for an even circle under one "
        "that only spreads items. The two directions carry the share of the variance below each "
        "map; the rest is not seen here. Numbers: the effective share of the circle, exp(entropy "
        "of the angle) / 2π.",
        drawing,
        pl.concat(
            pl.DataFrame({
                "run": name, "item_id": material.dataset.items.series.gather(rows),
                "x": found[:, 0], "y": found[:, 1],
            })
            for name, (found, _) in points.items()
        ),
        [
            {"run": name, "share of the circle": _covered(one, places)}
            for name, one in heights.items()
        ],
    )  # fmt: skip


def on_circle(vectors: Floats) -> tuple[Floats, float]:
    """Rows on their two principal directions, scaled to length one, and the share of variance.

    Args:
        vectors: (n, d), scaled to length one first; d = 1 gets a second column of zeros.

    Example:
        >>> places, share = on_circle(np.array([[3.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [-2.0, 0.0]]))
        >>> np.abs(places).round(6).tolist(), round(share, 6)
        ([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], 1.0)
    """
    unit = unit_rows(vectors)
    centred = unit - unit.mean(axis=0)
    _, strength, directions = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(unit), 2))
    flat[:, : len(directions[:2])] = centred @ directions[:2].T
    # The sign of a direction is arbitrary: the farthest point is on the positive side.
    far = flat[np.abs(flat).argmax(axis=0), [0, 1]]
    flat *= np.where(far < 0, -1.0, 1.0)
    whole = float((strength**2).sum())
    return unit_rows(flat), float((strength[:2] ** 2).sum()) / whole if whole else 0.0


def angle_density(points: Floats, places: Floats) -> Floats:
    """The density of the angle of points on the circle, without a seam at ±π.

    A Gaussian kernel on the angles repeated to both sides. Its bandwidth is `s n^(-1/5)` (Scott
    1992), at least one degree, with the circular deviation `s = sqrt(-2 log |mean(x, y)|)` up to
    that of equally likely angles, π / √3.

    Args:
        points: (n, 2).
        places: angles in [-π, π].
    """
    angles = np.arctan2(points[:, 1], points[:, 0])
    length = float(np.linalg.norm(points.mean(axis=0)))
    spread = min(np.sqrt(-2 * np.log(min(max(length, 1e-12), 1.0))), np.pi / np.sqrt(3))
    width = max(spread * len(angles) ** -0.2, np.pi / 180)
    around = np.concatenate([angles - 2 * np.pi, angles, angles + 2 * np.pi])
    found: Floats = 3 * gaussian_kde(around, width / around.std(ddof=1))(places)
    return found


def _map(points: Floats) -> Floats:
    """A Gaussian kernel density of points on the circle, (CELLS, CELLS)."""
    side = np.linspace(-RIM, RIM, CELLS)
    gaps = [np.square(side[:, None] - one) for one in points.T]
    width = 0.12
    x, y = (np.exp(-gap / (2 * width**2)) for gap in gaps)
    found: Floats = y @ x.T / len(points)
    return found


def _covered(heights: Floats, places: Floats) -> float:
    entropy = -np.trapezoid(heights * np.log(np.maximum(heights, 1e-300)), places)
    return float(np.exp(entropy) / (2 * np.pi))
