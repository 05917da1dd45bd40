"""The debiased divergence between two weighted sets of points, and its gradient flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Unpack, cast

import torch
from torch import Tensor

from modalign.ot import _checks
from modalign.ot._line_solve import line_problems
from modalign.ot.cost import power_cost
from modalign.ot.one_dimensional import sorted_potentials
from modalign.ot.result import Transport, as_html, numbers
from modalign.ot.sinkhorn import (
    Scale,
    Solver,
    SolverOptions,
    checked_reg,
    scaled_reg,
    sinkhorn,
    symmetric_sinkhorn,
)

Cost = Callable[[Tensor, Tensor], Tensor]
Start = Literal["zero", "sorted"]
_LINE_POINTS = 256  # points of a side from which banded kernels save time


@dataclass(frozen=True, eq=False)
class Divergence:
    """A debiased divergence and the three problems it consists of.

    Attributes:
        value: `OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2`, (...).
        self_x, self_y: the problems of each side with itself.
    """

    value: Tensor
    cross: Transport
    self_x: Transport
    self_y: Transport

    def __repr__(self) -> str:
        return f"Divergence(value {numbers(self.value)}; cross: {self.cross!r})"

    def _repr_html_(self) -> str:
        return as_html(self)


def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2.0,
    cost: Cost | None = None,
    reg: float | Tensor = 0.05,
    scale: Scale | None = None,
    penalty: float | None = None,
    start: Start | Divergence = "zero",
    **options: Unpack[SolverOptions],
) -> Divergence:
    """`S(x, y) = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2` at one reg, differentiable.

    The regularised value alone is smallest for a shrunken copy of the other side; the two self
    problems remove that bias. With the dual value S is >= 0, 0 only for equal measures and
    convex in each of them; it lies between the exact `W_p^p / p` (reg to 0) and
    `E C(x, y) - E C(x, x') / 2 - E C(y, y') / 2` (reg to infinity).

    Args:
        x: points, (..., n, d); scalars are points with d = 1.
        y: points, (..., m, d).
        a: weights of x, (..., n); uniform with mass 1 by default.
        b: weights of y, (..., m); uniform with mass 1 by default.
        p: exponent of the cost `|x - y|^p / p`; 1 or 2 with the dual value for a true
            divergence.
        cost: another cost of points, symmetric with 0 between equal ones, such as
            `cosine_cost`; p is then ignored.
        reg: as for `sinkhorn`; one for all three problems.
        scale: as for `sinkhorn`, by the cost between the two sides.
        penalty: relaxed marginals, as for `sinkhorn`; the dual value gains
            `reg (|a| - |b|)^2 / 2`, which keeps it >= 0.
        start: "zero"; "sorted" for exact potentials of points on the line (d = 1, without
            `cost`), the best start for small reg; or an earlier `Divergence` of the same shapes.
        **options: see `SolverOptions`. `averaged` is 10 by default, so that equal sides are
            solved at once; it and `anneal` apply to the problem between the two sides.

    Raises:
        ValueError: a start that does not fit the points, or as for `sinkhorn`.

    Source: Feydy et al. 2019; Sejourne et al. 2019 (relaxed); Zhuang et al. 2025 (TARec),
    equations 9 to 12.

    Limits: while the sides differ by less than `reg^(1 / p)` the gradient is damped.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
        >>> moved = sinkhorn_divergence(x, x + 2.0, reg=0.3, tolerance=1e-9)
        >>> round(float(moved.value), 6)  # a translation by t costs t^2 / 2 at any reg
        2.0
    """
    options = {"averaged": 10, **options}
    solver = Solver(**options)
    plain = solver.value == "dual" and solver.gradient == "envelope" and solver.anneal is None
    plain = plain and p == 2.0 and cost is None and scale is None and penalty is None
    if plain and _suits_the_line(x, y, a, b, start):
        cross, self_x, self_y = _on_the_line(x, y, a, b, reg, cast(str, start), solver)
        number = cross.value - 0.5 * self_x.value - 0.5 * self_y.value
        return Divergence(number, cross, self_x, self_y)
    of = partial(power_cost, p=p) if cost is None else cost
    cross_cost = of(x, y)
    reg = scaled_reg(reg, scale, cross_cost)
    f, g, f_x, f_y = _starts(x, y, a, b, p, start, custom=cost is not None)
    alone: SolverOptions = {**options, "averaged": 0, "anneal": None}
    shared: dict[str, Any] = {"reg": reg, "penalty": penalty}
    cross = sinkhorn(cross_cost, a, b, f=f, g=g, **shared, **options)
    self_x = symmetric_sinkhorn(of(x, x), a, f=f_x, **shared, **alone)
    self_y = symmetric_sinkhorn(of(y, y), b, f=f_y, **shared, **alone)
    number = cross.value - 0.5 * self_x.value - 0.5 * self_y.value
    if penalty is not None and solver.value == "dual":
        number = number + 0.5 * reg * (cross.a.sum(-1) - cross.b.sum(-1)).square()
    return Divergence(number, cross, self_x, self_y)


def _suits_the_line(
    x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None, start: Start | Divergence
) -> bool:
    """Whether the points are scalars, enough of them for a banded kernel to pay, on a CPU."""
    if isinstance(start, Divergence) or x.shape[-1:] != (1,) or y.shape[-1:] != (1,):
        return False
    constant = not any(w is not None and w.requires_grad for w in (a, b))
    many = min(x.shape[-2:][0], y.shape[-2:][0]) >= _LINE_POINTS
    return constant and many and x.device.type == y.device.type == "cpu"


def _on_the_line(
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    reg: float | Tensor,
    start: str,
    solver: Solver,
) -> tuple[Transport, Transport, Transport]:
    """The three problems of scalars, checked, without a cost matrix."""
    _checks.one_of("start", start, ("zero", "sorted"))
    _checks.floats("x", x, 2)
    _checks.floats("y", y, 2, like=x)
    _checks.finite("x", x)
    _checks.finite("y", y)
    lead = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    weight_a = _checks.weights("a", a, x, (*lead, x.shape[-2]))
    weight_b = _checks.weights("b", b, y, (*lead, y.shape[-2]))
    _checks.same_mass(weight_a, weight_b)
    regs = checked_reg(reg, x, lead)
    return line_problems(x, y, weight_a, weight_b, regs, start, solver)


def _starts(
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    p: float,
    start: Start | Divergence,
    *,
    custom: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Potentials to start the three problems from."""
    if isinstance(start, Divergence):
        return start.cross.f, start.cross.g, start.self_x.f, start.self_y.f
    _checks.one_of("start", start, ("zero", "sorted"))
    if start == "zero":
        return None, None, None, None
    if x.shape[-1] != 1 or custom:
        expected = "points on the line with the cost |x - y|^p / p for a sorted start"
        got = f"width {x.shape[-1]}" + (" and another cost" if custom else "")
        raise _checks.refuse(expected, got, 'use start="zero"')
    f, g = sorted_potentials(x.detach().squeeze(-1), y.detach().squeeze(-1), a, b, p=p)
    return f, g, None, None


@dataclass(frozen=True, eq=False)
class Flow:
    """The path of points that follow the negative gradient of a loss.

    Attributes:
        points: before each step and after the last, (steps + 1, n, d).
        gradients: of the loss at the points before each step, (steps, n, d).
        losses: the loss at the points before each step, (steps,).
    """

    points: Tensor
    gradients: Tensor
    losses: Tensor

    def __repr__(self) -> str:
        steps, n, d = self.gradients.shape
        return f"Flow({steps} steps of {n} points in {d} dimensions; losses {numbers(self.losses)})"

    def _repr_html_(self) -> str:
        return as_html(self)


def gradient_flow(x: Tensor, loss: Callable[[Tensor], Tensor], *, steps: int, rate: float) -> Flow:
    """Moves points by `x <- x - rate n grad loss(x)`: explicit Euler steps of a gradient flow.

    A step is scaled by the number of points n, since each carries a mass of 1 / n.

    Args:
        x: points to start from, (n, d).
        loss: maps points to a number, such as `lambda x: sinkhorn_divergence(x, y).value`.
        steps: number of steps.
        rate: length of a step.

    Example:
        >>> y = torch.tensor([[1.0], [3.0]])
        >>> flow = gradient_flow(torch.zeros(2, 1), lambda x: (x - y).square().mean() / 2,
        ...     steps=60, rate=0.2)
        >>> flow.points[-1].round(decimals=3).tolist()
        [[1.0], [3.0]]
    """
    _checks.floats("x", x, 2)
    _checks.at_least("steps", steps, 1)
    points, gradients, losses = [x.detach()], [], []
    for _ in range(steps):
        here = points[-1].clone().requires_grad_(True)
        number = loss(here)
        (gradient,) = torch.autograd.grad(number, here)
        points.append(points[-1] - rate * x.shape[-2] * gradient)
        gradients.append(gradient)
        losses.append(number.detach())
    return Flow(torch.stack(points), torch.stack(gradients), torch.stack(losses))
