"""The three problems of a debiased divergence between scalars with p = 2, one pair at a time.

A coarse problem between groups of neighbours, whose width is a fraction of the blur, is solved
first: from its soft minima at all points few sweeps over the points themselves are needed.
Gradients come from products with the kernel of the last sweeps; no cost matrix is computed.
Sources: Schmitzer 2019 (coarse to fine); Feydy et al. 2019 (gradients).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modalign.ot._block import ProblemBlock
from modalign.ot._line import Line, room_of, soft_minimum
from modalign.ot._marginals import Balanced
from modalign.ot._solve import Schedule, SolverState, solve
from modalign.ot._symmetric import solve_symmetric
from modalign.ot.cost import power_cost
from modalign.ot.one_dimensional import sorted_potentials
from modalign.ot.result import Transport

_WIDTH = 0.5  # of a group, in units of sqrt(reg)
_FEWER = 4  # a coarse problem is used if it is at least this many times smaller
_COARSE = 300  # maximum number of sweeps of the coarse problem


@dataclass(frozen=True)
class LineSide:
    """Sorted points (n) in units of sqrt(reg), their weights, and their groups."""

    points: Tensor
    weights: Tensor
    places: Tensor  # positions of the sorted points among the given ones
    group_points: Tensor
    group_weights: Tensor

    @classmethod
    def of(cls, points: Tensor, weights: Tensor, reg: Tensor, origin: Tensor) -> LineSide:
        """From points and weights in any order."""
        values, places = ((points - origin) / reg.sqrt()).sort()
        weights = weights[places]
        _, group, counts = torch.unique_consecutive(
            (values / _WIDTH).floor(), return_inverse=True, return_counts=True
        )
        masses = weights.new_zeros(len(counts)).index_add_(0, group, weights)
        sums = weights.new_zeros(len(counts)).index_add_(0, group, weights * values)
        plain = weights.new_zeros(len(counts)).index_add_(0, group, values) / counts
        means = torch.where(masses > 0, sums / masses, plain)
        return cls(values, weights, places, means, masses)

    @property
    def grouped(self) -> bool:
        """Whether there are much fewer groups than points."""
        return len(self.group_points) * _FEWER <= len(self.points)

    def back(self, sorted_values: Tensor) -> Tensor:
        """Values of sorted points in the order given."""
        return torch.empty_like(sorted_values).scatter_(0, self.places, sorted_values)


@dataclass(frozen=True)
class Solved:
    """A solved problem with everything that a `Transport` and a gradient need, in the given order.

    Potentials and the value are divided by reg, slopes by `sqrt(reg)`.
    """

    f: Tensor  # (n)
    g: Tensor  # (m)
    value: Tensor
    slope_x: Tensor | None  # derivative of the value, (n)
    slope_y: Tensor | None  # (m)
    state: SolverState


def solve_cross(
    x: LineSide, y: LineSide, start: str, schedule: Schedule, wants: tuple[bool, bool]
) -> Solved:
    """The problem between two sides; `wants` says which of them need a slope."""
    f, g = _cross_start(x, y, start, schedule)
    line = _line(x, y)
    a, b = x.weights.unsqueeze(0), y.weights.unsqueeze(0)
    state = solve(line, a, b, f.unsqueeze(0), g.unsqueeze(0), Balanced(), schedule)
    return _finish(line, x, y, state, wants)


def solve_self(x: LineSide, schedule: Schedule, wants: bool) -> Solved:
    """The problem of a side with itself; its slope is that of both sides together."""
    f = torch.zeros_like(x.points)
    if x.grouped:
        coarse = _coarse_self(x, schedule)
        f = soft_minimum(x.points, x.group_points, x.group_weights.log() + coarse)
    line = _line(x, x)
    a = x.weights.unsqueeze(0)
    state = solve_symmetric(line, a, f.unsqueeze(0), Balanced(), schedule)
    solved = _finish(line, x, x, state, (wants, False))
    return replace(solved, slope_x=None if solved.slope_x is None else 2.0 * solved.slope_x)


def _line(x: LineSide, y: LineSide) -> Line:
    room = room_of(len(x.points) * len(y.points), x.points)
    return Line(x.points, y.points, room)


def _cross_start(x: LineSide, y: LineSide, start: str, schedule: Schedule) -> tuple[Tensor, Tensor]:
    grouped = x.grouped and y.grouped
    ends = (x.group_points, y.group_points) if grouped else (x.points, y.points)
    masses = (x.group_weights, y.group_weights) if grouped else (x.weights, y.weights)
    f, g = (torch.zeros_like(points) for points in ends)
    if start == "sorted":
        f, g = sorted_potentials(*ends, *masses)
    if not grouped:
        return f, g
    gaps = ends[0].unsqueeze(1) - ends[1]
    block = ProblemBlock.of(gaps.square().mul_(-0.5).unsqueeze(0))
    whole = (masses[0].unsqueeze(0), masses[1].unsqueeze(0), f.unsqueeze(0), g.unsqueeze(0))
    state = solve(block, *whole, Balanced(), _coarser(schedule))
    return (
        soft_minimum(x.points, ends[1], masses[1].log() + state.g[0]),
        soft_minimum(y.points, ends[0], masses[0].log() + state.f[0]),
    )


def _coarse_self(x: LineSide, schedule: Schedule) -> Tensor:
    gaps = x.group_points.unsqueeze(1) - x.group_points
    block = ProblemBlock.of(gaps.square().mul_(-0.5).unsqueeze(0))
    a = x.group_weights.unsqueeze(0)
    state = solve_symmetric(block, a, torch.zeros_like(a), Balanced(), _coarser(schedule))
    return state.f[0]


def _coarser(schedule: Schedule) -> Schedule:
    return replace(schedule, tolerance=0.3 * schedule.tolerance, max_iterations=_COARSE)


def _finish(
    line: Line, x: LineSide, y: LineSide, state: SolverState, wants: tuple[bool, bool]
) -> Solved:
    """The dual's value and slopes from products with a kernel near the last potentials."""
    near_f, near_g, band = line.near(state.f, state.g)
    u = x.weights * (state.f - near_f).exp()
    v = y.weights * (state.g - near_g).exp()
    row = band.rows(v, line.buffer())
    value = (x.weights * state.f).sum() + (y.weights * state.g).sum()
    value = value - (u * row).sum() + x.weights.sum() * y.weights.sum()
    slope_x = slope_y = None
    if wants[0]:
        slope_x = x.back((u * (x.points * row - band.rows(v * y.points, line.buffer())))[0])
    if wants[1]:
        column = band.columns(u, line.buffer())
        moment = band.columns(u * x.points, line.buffer())
        slope_y = y.back((v * (y.points * column - moment))[0])
    return Solved(x.back(state.f[0]), y.back(state.g[0]), value, slope_x, slope_y, state)


class _LineValue(torch.autograd.Function):
    """Values of problems with known slopes in both sides' points."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, value: Tensor, slope_x: Tensor, slope_y: Tensor
    ) -> Tensor:
        ctx.save_for_backward(slope_x, slope_y)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slope_x, slope_y = ctx.saved_tensors
        grad = grad[..., None, None]
        return grad * slope_x, grad * slope_y, None, None, None


@dataclass(frozen=True)
class _LinePair:
    """Points in a divergence's shapes, (..., n, 1) and (..., m, 1), with weights and reg."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    reg: Tensor

    def transport(self, solved: list[Solved], schedule: Schedule) -> Transport:
        """The problems of a batch as one result with an envelope gradient."""
        lead, reg = self.reg.shape, self.reg
        column = reg.unsqueeze(-1)
        error = torch.cat([one.state.error for one in solved]).reshape(lead)
        x, y = self.x.detach(), self.y.detach()

        def joined(parts: list[Tensor]) -> Tensor:
            return torch.stack(parts).reshape((*lead, *parts[0].shape))

        def slopes(parts: list[Tensor | None], like: Tensor) -> Tensor:
            known = [part for part in parts if part is not None]
            if not known:
                return like.new_zeros(1)
            return (joined(known) * column.sqrt()).unsqueeze(-1)

        value: Tensor = _LineValue.apply(  # type: ignore[no-untyped-call]
            self.x,
            self.y,
            joined([one.value for one in solved]) * reg,
            slopes([one.slope_x for one in solved], x),
            slopes([one.slope_y for one in solved], y),
        )
        return Transport(
            value=value,
            f=joined([one.f for one in solved]) * column,
            g=joined([one.g for one in solved]) * column,
            a=self.a,
            b=self.b,
            reg=reg,
            marginal_error=error,
            iterations=torch.cat([one.state.iterations for one in solved]).reshape(lead),
            converged=error <= schedule.tolerance,
            make_cost=lambda: power_cost(x, y),
        )


def line_problems(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, reg: Tensor, start: str, schedule: Schedule
) -> tuple[Transport, Transport, Transport]:
    """The problems between x and y, of x and of y: points (..., n, 1), (..., m, 1), reg (...)."""
    lead = reg.shape
    x, y = x.expand(*lead, *x.shape[-2:]), y.expand(*lead, *y.shape[-2:])
    wants = x.requires_grad, y.requires_grad
    flat = [t.detach().reshape(lead.numel(), t.shape[-2]) for t in (x, y)]
    flat += [t.detach().reshape(lead.numel(), t.shape[-1]) for t in (a, b)]
    cross, self_x, self_y = [], [], []
    with torch.no_grad():
        for points_x, points_y, a_x, b_y, r in zip(*flat, reg.reshape(-1), strict=True):
            origin = points_x.mean()
            side_x = LineSide.of(points_x, a_x, r, origin)
            side_y = LineSide.of(points_y, b_y, r, origin)
            cross.append(solve_cross(side_x, side_y, start, schedule, wants))
            self_x.append(solve_self(side_x, schedule, wants[0]))
            self_y.append(solve_self(side_y, schedule, wants[1]))
    return (
        _LinePair(x, y, a, b, reg).transport(cross, schedule),
        _LinePair(x, x.detach(), a, a, reg).transport(self_x, schedule),
        _LinePair(y, y.detach(), b, b, reg).transport(self_y, schedule),
    )
