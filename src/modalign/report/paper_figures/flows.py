"""Figure 3 of the TARec paper: points that flow to a target down a regularised transport cost, and
down its debiased form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
class Flow:
    """The path of one cloud of points.

    Attributes:
        points: before each step and after the last, (steps + 1, n, d).
        descent: the negative gradient at these points, times n, (steps + 1, n, d).
        losses: the loss at these points, (steps + 1,).
        exact: the transport cost to the target without regularisation there, (steps + 1,).
    """

    points: Floats
    descent: Floats
    losses: Floats
    exact: Floats


@dataclass(frozen=True)
class BothFlows:
    """The flows of both losses from one source to one target, (n, d), at one regularisation."""

    target: Floats
    reg: float
    by_loss: dict[str, Flow]


@lru_cache(maxsize=1)
def flows(seed: int, steps: int = STEPS) -> dict[int, BothFlows]:
    """Both flows on the line and in the plane, by dimension.

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
    line = _flow(rng.normal(0.0, 0.25, (64, 1)), heaps, REG[1], steps)
    return {1: line, 2: _flow(rng.normal(0.0, 0.2, (96, 2)) - 0.9, ring, REG[2], steps)}


def _flow(source: Floats, target: Floats, reg: float, steps: int) -> BothFlows:
    x, y = torch.from_numpy(source), torch.from_numpy(target)

    def biased(points: Tensor) -> Tensor:
        return ot.sinkhorn(ot.power_cost(points, y), reg=reg, tolerance=1e-6).value

    def debiased(points: Tensor) -> Tensor:
        return ot.sinkhorn_divergence(points, y, reg=reg, tolerance=1e-6).value

    found = {}
    for name, loss in zip(LOSSES, (biased, debiased), strict=True):
        # One step more than is shown gives the gradient and the loss at the last points.
        flow = ot.gradient_flow(x, loss, steps=steps + 1, rate=RATE)
        points = flow.points[:-1]
        costs = ot.power_cost(points, y.expand(len(points), -1, -1))
        exact = (ot.exact_plan(costs) * costs).sum((-2, -1))
        found[name] = Flow(
            points.numpy(),
            -len(source) * flow.gradients.numpy(),
            flow.losses.numpy(),
            exact.numpy(),
        )
    return BothFlows(target, reg, found)


@figure("fig3-flow-1d", runs=0)
def on_the_line(material: Material) -> Drawn:
    """Figure 3 in one dimension."""
    both = flows(material.seed)[1]
    return _snapshots("Figure 3: gradient flow on the line", both, _line(both))


@figure("fig3-flow-2d", runs=0)
def in_the_plane(material: Material) -> Drawn:
    """Figure 3 in two dimensions."""
    both = flows(material.seed)[2]
    return _snapshots("Figure 3: gradient flow in the plane", both, _plane(both))


def _snapshots(title: str, both: BothFlows, drawing: Figure) -> Drawn:
    spread = float(both.target.var(0).sum())
    return Drawn(
        title,
        "Points move down a regularised transport cost to the target (biased), or down the same "
        "cost minus half of each side's cost to itself (debiased). Arrows: the negative gradient "
        "at each point. Look at the last step: the biased points end as a shrunken copy of the "
        "target; the debiased points cover it.",
        drawing,
        {
            "regularisation": both.reg,
            "rate": RATE,
            "target": both.target.tolist(),
            "snapshots": {
                loss: {
                    str(step): {
                        "points": flow.points[step].tolist(),
                        "negative gradient": flow.descent[step].tolist(),
                    }
                    for step in SHOWN
                }
                for loss, flow in both.by_loss.items()
            },
        },
        [
            {
                "loss": loss,
                "variance at the end, relative to the target's": float(
                    flow.points[-1].var(0).sum() / spread
                ),
            }
            for loss, flow in both.by_loss.items()
        ],
    )


def _panels(both: BothFlows, height: float) -> tuple[Figure, Iterator[tuple[Any, str, int]]]:
    """A row for each loss and a panel for each step shown; axes, loss and step of each panel."""
    figure, grid = canvas.panels(2, len(SHOWN), (2.45 * len(SHOWN), height), shared=True)
    each = ((axes, name, step)
            for row, name in zip(grid, both.by_loss, strict=True)
            for axes, step in zip(row, SHOWN, strict=True))  # fmt: skip
    return figure, each


def _label(axes: Any, name: str, step: int, xlabel: str, ylabel: str) -> None:
    x = xlabel if name == LOSSES[-1] else ""
    canvas.label(axes, f"step {step}", x, "" if step else f"{name}\n{ylabel}")


def _arrows(axes: Any, ends: Sequence[Any], name: str, width: float) -> None:
    axes.quiver(*ends, angles="xy", scale_units="xy", scale=1.5, alpha=0.7, color=_COLOURS[name],
                width=width, headwidth=4.5)  # fmt: skip


def _legend(drawing: Figure) -> None:
    points = {f"points, {name}": canvas.dot(_COLOURS[name]) for name in LOSSES}
    canvas.legend(drawing, {"target": canvas.dot(FAINT), **points})


def _line(both: BothFlows) -> Figure:
    """Histograms of the target and of the points above, the points with their arrows below."""
    drawing, panels = _panels(both, 4.1)
    target = np.sort(both.target[:, 0])
    ends = [target, *(flow.points[..., 0].ravel() for flow in both.by_loss.values())]
    low, high = min(map(np.min, ends)) - 0.3, max(map(np.max, ends)) + 0.3
    bins = np.linspace(low, high, 29)
    for axes, name, step in panels:
        flow = both.by_loss[name]
        x, ahead = flow.points[step, :, 0], flow.descent[step, :, 0]
        axes.hist(target, bins, density=True, color=FAINT)
        axes.hist(x, bins, density=True, histtype="step", linewidth=1.6, color=_COLOURS[name])
        # The points stand on four levels, so that their arrows do not cover each other.
        level = -0.25 - 0.2 * (np.argsort(np.argsort(x)) % 4)
        _arrows(axes, (x, level, ahead, np.zeros_like(x)), name, 0.006)
        _label(axes, name, step, "position", "density")
    axes.set_yticks(range(int(axes.get_ylim()[1]) + 1))
    axes.set_xlim(low, high)
    _legend(drawing)
    return drawing


def _plane(both: BothFlows) -> Figure:
    """The target, the points, and an arrow from each point along its negative gradient."""
    drawing, panels = _panels(both, 5.2)
    for axes, name, step in panels:
        flow = both.by_loss[name]
        points, descent = flow.points[step].T, flow.descent[step].T
        axes.scatter(*both.target.T, 11, FAINT, linewidths=0)
        _arrows(axes, (*points, *descent), name, 0.005)
        axes.scatter(*points, 9, _COLOURS[name], linewidths=0)
        axes.set_aspect("equal")
        _label(axes, name, step, "first coordinate", "second coordinate")
    _legend(drawing)
    return drawing


@figure("fig3-losses", runs=0)
def losses(material: Material) -> Drawn:
    """The losses along both flows, and their distances from the target."""
    found = [
        (dimension, loss, flow)
        for dimension, both in flows(material.seed).items()
        for loss, flow in both.by_loss.items()
    ]
    return Drawn(
        "Figure 3: losses along the flow",
        "Above, the loss that each flow descends; below, the transport cost to the target "
        "without regularisation, which measures both in the same way. Look for the debiased loss "
        "falling to zero, and the biased one stopping above it, away from the target.",
        _losses(flows(material.seed)),
        pl.concat(
            pl.DataFrame({"dimension": dimension, "loss": loss,
                          "step": np.arange(len(flow.losses)), "value": flow.losses,
                          "exact transport cost": flow.exact})
            for dimension, loss, flow in found
        ),
        [
            {"flow": f"{dimension}-D, {loss}", "loss at the end": float(flow.losses[-1]),
             "exact cost at the end": float(flow.exact[-1])}
            for dimension, loss, flow in found
        ],
    )  # fmt: skip


def _losses(by_dimension: dict[int, BothFlows]) -> Figure:
    drawing, grid = canvas.panels(2, len(by_dimension), (3.9 * len(by_dimension), 5.0))
    handles: dict[str, Any] = {}
    for column, (dimension, both) in zip(grid.T, by_dimension.items(), strict=True):
        for name, flow in both.by_loss.items():
            dash = DASHES[LOSSES.index(name)]
            for axes, values in zip(column, (flow.losses, flow.exact), strict=True):
                (handles[name],) = axes.plot(values, dash, color=_COLOURS[name], linewidth=1.8)
        canvas.label(column[0], f"{dimension}-D, regularisation {both.reg:g}", "", "loss")
        canvas.label(column[1], "", "step", "exact transport cost")
        for axes in column:
            axes.set_ylim(bottom=0.0)
    canvas.legend(drawing, handles)
    return drawing
