"""Points that flow to a target down the regularised transport cost, and down its debiased form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign import ot
from modalign.core import seeds

REG = {1: 1.0, 2: 0.5}
"""Strength of the entropy by dimension: as wide a blur as the shapes bear to be told apart."""
RATE = 0.25
STEPS = 100
SHOWN = (0, 2, 6, STEPS)
LOSSES = ("biased", "debiased")


@dataclass(frozen=True)
class Run:
    """One flow.

    Attributes:
        points: before each step and after the last, (steps + 1, n, d).
        descent: the negative gradient at these points, times n, (steps + 1, n, d).
        losses: the loss at these points, (steps + 1,).
        exact: the transport cost to the target without regularisation there, (steps + 1,).
    """

    points: NDArray[np.float64]
    descent: NDArray[np.float64]
    losses: NDArray[np.float64]
    exact: NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Both flows from one source to one target, (n, d), at one regularisation."""

    target: NDArray[np.float64]
    reg: float
    runs: dict[str, Run]


def flows(seed: int, steps: int = STEPS) -> dict[int, Pair]:
    """Both flows on the line and in the plane.

    The cost is half the squared distance. On the line 64 points go from one heap to two; in the
    plane 96 points go from one heap to a ring.

    Args:
        seed: of the points.
        steps: of `modalign.ot.gradient_flow`.
    """
    rng = seeds.numpy_generator(seed, "figures", "flow")
    heaps = rng.normal(0.0, 0.25, (64, 1)) + np.where(np.arange(64) % 2, 1.2, -1.2)[:, None]
    angles = 2 * np.pi * np.arange(96) / 96
    ring = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.normal(1.2, 0.06, (96, 1))
    line = _pair(rng.normal(0.0, 0.25, (64, 1)), heaps, REG[1], steps)
    return {1: line, 2: _pair(rng.normal(0.0, 0.2, (96, 2)) - 0.9, ring, REG[2], steps)}


def _pair(source: NDArray[np.float64], target: NDArray[np.float64], reg: float, steps: int) -> Pair:
    x, y = torch.from_numpy(source), torch.from_numpy(target)

    def biased(points: Tensor) -> Tensor:
        return ot.sinkhorn(ot.power_cost(points, y), reg=reg, tolerance=1e-6).value

    def debiased(points: Tensor) -> Tensor:
        return ot.sinkhorn_divergence(points, y, reg=reg, tolerance=1e-6).value

    runs = {}
    for name, loss in zip(LOSSES, (biased, debiased), strict=True):
        # One more step than is shown has the gradient and the loss at the last points.
        flow = ot.gradient_flow(x, loss, steps=steps + 1, rate=RATE)
        points = flow.points[:-1]
        costs = ot.power_cost(points, y.expand(len(points), -1, -1))
        exact = (ot.exact_plan(costs) * costs).sum((-2, -1))
        runs[name] = Run(
            points.numpy(),
            -len(source) * flow.gradients.numpy(),
            flow.losses.numpy(),
            exact.numpy(),
        )
    return Pair(target, reg, runs)
