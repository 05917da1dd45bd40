"""Figure 3 of the TARec paper: points that flow to a target down a regularised transport cost, and
down its debiased form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from modalign import ot
from modalign.core import seeds
from modalign.report.paper_figures import canvas
from modalign.report.paper_figures.figure import Drawn, Material, figure
from modalign.report.paper_figures.measures import Floats
from modalign.report.style import COLOURS, DASHES, FAINT

REG = {1: 1.0, 2: 0.5}
"""Entropic regularisation by dimension: the largest at which the shapes remain recognisable."""
RATE = 0.25
STEPS = 100
SHOWN = (0, 2, 6, STEPS)
LOSSES = ("biased", "debiased")
_COLOURS = dict(zip(LOSSES, (COLOURS[1], COLOURS[0]), strict=True))


@dataclass(frozen=True)
class PointFlow:
    """A cloud of n points in d dimensions on its way to a target.

    Attributes:
        loss: one of `LOSSES`.
        target: (n, d).
        points: before each step and after the last, (steps + 1, n, d).
        descent: the negative gradient at these points, times n, (steps + 1, n, d).
        losses: the loss at these points, (steps + 1,).
        exact: the transport cost to the target without regularisation there, (steps + 1,).
    """

    loss: str
    target: Floats
    points: Floats
    descent: Floats
    losses: Floats
    exact: Floats

    @property
    def dimension(self) -> int:
        """d, which decides on the regularisation in `REG`."""
        return int(self.target.shape[1])


@lru_cache(maxsize=1)
def flows(seed: int, steps: int = STEPS) -> list[PointFlow]:
    """The flows of both losses on the line, then in the plane.

    The cost is half the squared distance. On the line 64 points go from one cluster to two; in
    the plane 96 points go from one cluster to a ring.

    Args:
        seed: seed of the points.
        steps: number of steps of `modalign.ot.gradient_flow`.
    """
    rng = seeds.numpy_generator(seed, "figures", "flow")
    heaps = rng.normal(0.0, 0.25, (64, 1)) + np.where(np.arange(64) % 2, 1.2, -1.2)[:, None]
    angles = 2 * np.pi * np.arange(96) / 96
    ring = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.normal(1.2, 0.06, (96, 1))
    sources = rng.normal(0.0, 0.25, (64, 1)), rng.normal(0.0, 0.2, (96, 2)) - 0.9
    return [
        _flow(loss, source, target, steps)
        for source, target in zip(sources, (heaps, ring), strict=True)
        for loss in LOSSES
    ]


def _flow(name: str, source: Floats, target: Floats, steps: int) -> PointFlow:
    y, reg = torch.from_numpy(target), REG[target.shape[1]]

    def loss(points: Tensor) -> Tensor:
        if name == "biased":
            return ot.sinkhorn(ot.power_cost(points, y), reg=reg, tolerance=1e-6).value
        return ot.sinkhorn_divergence(points, y, reg=reg, tolerance=1e-6).value

    # One step more than is shown gives the gradient and the loss at the last points.
    flow = ot.gradient_flow(torch.from_numpy(source), loss, steps=steps + 1, rate=RATE)
    points = flow.points[:-1]
    costs = ot.power_cost(points, y.expand(len(points), -1, -1))
    exact = (ot.exact_plan(costs) * costs).sum((-2, -1))
    descent = -len(source) * flow.gradients.numpy()
    return PointFlow(name, target, points.numpy(), descent, flow.losses.numpy(), exact.numpy())


@figure("fig3-flow-1d", runs=0)
def on_the_line(material: Material) -> Drawn:
    """Figure 3 in one dimension."""
    both = flows(material.seed)[:2]
    return _snapshots("TARec, figure 3: gradient flow on the line", both, _line(both))


@figure("fig3-flow-2d", runs=0)
def in_the_plane(material: Material) -> Drawn:
    """Figure 3 in two dimensions."""
    both = flows(material.seed)[2:]
    return _snapshots("TARec, figure 3: gradient flow in the plane", both, _plane(both))


def _snapshots(title: str, both: Sequence[PointFlow], drawing: Figure) -> Drawn:
    target = both[0].target
    spread = float(target.var(0).sum())
    snapshots = {
        flow.loss: {
            str(step): {
                "points": flow.points[step].tolist(),
                "negative gradient": flow.descent[step].tolist(),
            }
            for step in SHOWN
        }
        for flow in both
    }
    ends = {flow.loss: float(flow.points[-1].var(0).sum()) for flow in both}
    return Drawn(
        title,
        "Points move down a regularised transport cost to the target (biased), or down the same "
        "cost minus half of each side's cost to itself (debiased). Arrows: the negative gradient "
        "at each point. Look at the last step: the biased points end as a shrunken copy of the "
        "target; the debiased points cover it.",
        drawing,
        {
            "regularisation": REG[both[0].dimension],
            "rate": RATE,
            "target": target.tolist(),
            "snapshots": snapshots,
        },
        [
            {"loss": loss, "variance at the end, relative to the target's": end / spread}
            for loss, end in ends.items()
        ],
    )


def _panels(
    both: Sequence[PointFlow], height: float, xlabel: str, ylabel: str
) -> tuple[Figure, list[tuple[Any, PointFlow, int]]]:
    """A row for each loss and a panel for each step shown; axes, flow and step of each panel."""
    drawing, grid = canvas.panels(2, len(SHOWN), (2.45 * len(SHOWN), height), shared=True)
    each = []
    for flow, row in zip(both, grid, strict=True):
        for step, axes in zip(SHOWN, row, strict=True):
            x, y = xlabel if flow is both[-1] else "", "" if step else f"{flow.loss}\n{ylabel}"
            canvas.label(axes, f"step {step}", x, y)
            each.append((axes, flow, step))
    points = {f"points, {name}": canvas.dot(_COLOURS[name]) for name in LOSSES}
    canvas.legend(drawing, {"target": canvas.dot(FAINT), **points})
    return drawing, each


def _arrows(axes: Any, ends: Sequence[Any], colour: str) -> None:
    axes.quiver(*ends, angles="xy", scale_units="xy", scale=1.5, alpha=0.7, color=colour,
                width=0.0055, headwidth=4.5)  # fmt: skip


def _line(both: Sequence[PointFlow]) -> Figure:
    """Histograms of the target and of the points above, the points with their arrows below."""
    drawing, panels = _panels(both, 4.1, "position", "density")
    ends = np.concatenate([both[0].target.ravel(), *(flow.points.ravel() for flow in both)])
    low, high = ends.min() - 0.3, ends.max() + 0.3
    bins = np.linspace(low, high, 29)
    for axes, flow, step in panels:
        x, ahead = flow.points[step, :, 0], flow.descent[step, :, 0]
        axes.hist(flow.target.ravel(), bins, density=True, color=FAINT)
        axes.hist(x, bins, density=True, histtype="step", lw=1.6, color=_COLOURS[flow.loss])
        # The points stand on four levels, so that their arrows do not cover each other.
        level = -0.25 - 0.2 * (np.argsort(np.argsort(x)) % 4)
        _arrows(axes, (x, level, ahead, np.zeros_like(x)), _COLOURS[flow.loss])
    axes.set_yticks(range(int(axes.get_ylim()[1]) + 1))
    axes.set_xlim(low, high)
    return drawing


def _plane(both: Sequence[PointFlow]) -> Figure:
    """The target, the points, and an arrow from each point along its negative gradient."""
    drawing, panels = _panels(both, 5.2, "first coordinate", "second coordinate")
    for axes, flow, step in panels:
        points, colour = flow.points[step].T, _COLOURS[flow.loss]
        axes.scatter(*flow.target.T, 11, FAINT, linewidths=0)
        _arrows(axes, (*points, *flow.descent[step].T), colour)
        axes.scatter(*points, 9, colour, linewidths=0)
        axes.set_aspect("equal")
    return drawing


@figure("fig3-losses", runs=0)
def losses(material: Material) -> Drawn:
    """The losses along both flows, and their distances from the target."""
    found = flows(material.seed)
    drawing, grid = canvas.panels(2, 2, (7.8, 5.0))
    handles: dict[str, Any] = {}
    for flow in found:
        above, below = grid[:, flow.dimension - 1]
        for axes, values in ((above, flow.losses), (below, flow.exact)):
            dash = DASHES[LOSSES.index(flow.loss)]
            (line,) = axes.plot(values, dash, color=_COLOURS[flow.loss], linewidth=1.8)
            handles[flow.loss] = line
        title = f"{flow.dimension}-D, regularisation {REG[flow.dimension]:g}"
        canvas.label(above, title, "", "loss")
        canvas.label(below, "", "step", "exact transport cost")
    for axes in grid.flat:
        axes.set_ylim(bottom=0.0)
    canvas.legend(drawing, handles)
    return Drawn(
        "TARec, figure 3: losses along the flow",
        "Above, the loss that each flow descends; below, the transport cost to the target "
        "without regularisation, which measures both in the same way. Look for the debiased loss "
        "falling to zero, and the biased one stopping above it, away from the target.",
        drawing,
        pl.concat(
            pl.DataFrame({"dimension": flow.dimension, "loss": flow.loss,
                          "step": np.arange(len(flow.losses)), "value": flow.losses,
                          "exact transport cost": flow.exact})
            for flow in found
        ),
        [
            {"flow": f"{flow.dimension}-D, {flow.loss}", "loss at the end": float(flow.losses[-1]),
             "exact cost at the end": float(flow.exact[-1])}
            for flow in found
        ],
    )  # fmt: skip
