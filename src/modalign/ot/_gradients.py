"""Values of solved problems and the three ways to differentiate them.

All tensors are (B, n, m), (B, n), (B, m), (B,), and potentials are divided by reg.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modalign.ot._marginals import Balanced, Partial, Relaxed, log_of
from modalign.ot._solve import Schedule, SolverState, heats_of, moved
from modalign.ot.result import MOST

_RIDGE = 1e-11  # keeps the system solvable for a plan that falls into separate pieces
_Known = tuple[Tensor, Tensor, Tensor, Balanced]  # f, g, reg and the marginals: constants


def densities(scaled: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """The plan's density against `a b^T`: `exp(f_k + g_l + scaled_kl)`."""
    return (scaled + f.unsqueeze(-1)).add_(g.unsqueeze(-2)).clamp_max_(MOST).exp_()


class _EnvelopeDual(torch.autograd.Function):
    """The dual at fixed potentials; its gradient is exact at the optimum (envelope theorem)."""

    @staticmethod
    def forward(ctx: Any, cost: Tensor, a: Tensor, b: Tensor, known: _Known) -> Tensor:
        f, g, reg, marginals = known
        density = densities(cost / -reg[:, None, None], f, g)
        row = torch.bmm(density, b.unsqueeze(-1)).squeeze(-1)
        mass_a, mass_b = a.sum(-1), b.sum(-1)
        slope_a, slope_b = marginals.slopes(f, g)
        excess = (a * row).sum(-1) - mass_a * mass_b
        linear = (a * slope_a).sum(-1) + (b * slope_b).sum(-1) + marginals.offset(mass_a)
        ctx.save_for_backward(density, a, b, row, slope_a, slope_b, reg)
        return reg * (linear - excess)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        density, a, b, row, slope_a, slope_b, reg = ctx.saved_tensors
        scale = (grad * reg).unsqueeze(-1)
        grad_a = grad_b = grad_cost = None
        if ctx.needs_input_grad[1]:
            grad_a = scale * (slope_a - row + b.sum(-1, keepdim=True))
        if ctx.needs_input_grad[2]:
            column = torch.bmm(a.unsqueeze(1), density).squeeze(1)
            grad_b = scale * (slope_b - column + a.sum(-1, keepdim=True))
        if ctx.needs_input_grad[0]:
            grad_cost = density * (grad.unsqueeze(-1) * a).unsqueeze(-1)
            grad_cost.mul_(b.unsqueeze(-2))
        return grad_cost, grad_a, grad_b, None


def dual_value(
    cost: Tensor, a: Tensor, b: Tensor, state: SolverState, reg: Tensor, *, through: bool
) -> Tensor:
    """`reg (<a, f> + <b, g> - sum(plan) + |a| |b|)`, or the dual of relaxed marginals.

    With `through` gradients also pass through the potentials, for unrolled sweeps.
    """
    if not through:
        known = (state.f.detach(), state.g.detach(), reg, state.marginals)
        value: Tensor = _EnvelopeDual.apply(cost, a, b, known)  # type: ignore[no-untyped-call]
        return value
    plan = plan_at(cost, a, b, state, reg)
    slope_a, slope_b = state.marginals.slopes(state.f, state.g)
    linear = (a * slope_a).sum(-1) + (b * slope_b).sum(-1) + state.marginals.offset(a.sum(-1))
    return reg * (linear - plan.sum((-2, -1)) + a.sum(-1) * b.sum(-1))


def plan_at(cost: Tensor, a: Tensor, b: Tensor, state: SolverState, reg: Tensor) -> Tensor:
    """The plan of a state, differentiable in all arguments."""
    exponent = state.f.unsqueeze(-1) + state.g.unsqueeze(-2) - cost / reg[:, None, None]
    return exponent.clamp_max(MOST).exp() * a.unsqueeze(-1) * b.unsqueeze(-2)


class _Implicit(torch.autograd.Function):
    """Potentials as functions of cost and weights, by the implicit function theorem.

    At the fixed point `f = D_a s(g)`, `g = D_b s(f)` with damping D (1 balanced, below 1
    relaxed, 0 or 1 at the bounds of a partial problem), `s` the soft minima and P, Q the plan
    with rows, respectively columns, scaled to sum to 1. For incoming gradients u the adjoint
    solves `w_f + Q^T D_b w_g = u_f`, `w_g + P^T D_a w_f = u_g`; eliminating w_g leaves
    n equations. Bordering removes the constant up to which balanced potentials are determined,
    and fixes the total of partial ones.
    """

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, known: _Known
    ) -> tuple[Tensor, Tensor]:
        f, g, reg, ctx.marginals = known
        ctx.save_for_backward(cost, a, b, f, g, reg)
        return f.clone(), g.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_f: Tensor, grad_g: Tensor) -> tuple[Tensor | None, ...]:
        cost, a, b, f, g, reg = ctx.saved_tensors
        kind, wide = cost.dtype, torch.float64
        damp_f, damp_g = (damp.to(wide) for damp in ctx.marginals.damping(f, g))
        cost, a, b, f, g, reg, u_f, u_g = (
            t.to(wide) for t in (cost, a, b, f, g, reg, grad_f, grad_g)
        )
        density = densities(cost / -reg[:, None, None], f, g)
        by_row = density * b.unsqueeze(-2)
        by_column = density * a.unsqueeze(-1)
        row, column = by_row.sum(-1), by_column.sum(-2)
        by_row, by_column = by_row / row.unsqueeze(-1), by_column / column.unsqueeze(-2)
        partial = isinstance(ctx.marginals, Partial)
        totals = (a * row, b * column) if partial else None
        w_f, w_g, w_level = _adjoint(
            by_row, by_column, damp_f, damp_g, u_f, u_g, ctx.marginals, a, totals
        )
        z_f, z_g = damp_f * w_f, damp_g * w_g
        grad_cost = by_row * z_f.unsqueeze(-1) + by_column * z_g.unsqueeze(-2)
        grad_a = -torch.bmm(density, (z_g / column).unsqueeze(-1)).squeeze(-1)
        grad_b = -torch.bmm((z_f / row).unsqueeze(1), density).squeeze(1)
        if partial:
            plan = density * a.unsqueeze(-1) * b.unsqueeze(-2)
            grad_cost = grad_cost + w_level.unsqueeze(-1) * plan
            grad_a, grad_b = grad_a - w_level * row, grad_b - w_level * column
        grad_cost = (grad_cost / reg[:, None, None]).to(kind)
        return grad_cost, grad_a.to(kind), grad_b.to(kind), None


def _adjoint(
    by_row: Tensor,
    by_column: Tensor,
    damp_f: Tensor,
    damp_g: Tensor,
    u_f: Tensor,
    u_g: Tensor,
    marginals: Balanced,
    a: Tensor,
    totals: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solves the bordered system; float64, (B, n), (B, m), (B, 1)."""
    n_problems, n = u_f.shape
    pull = by_column * damp_g.unsqueeze(-2)  # Q^T D_b, (B, n, m)
    system = u_f.new_zeros(n_problems, n + 1, n + 1)
    system[:, :n, :n] = -torch.bmm(pull, by_row.transpose(1, 2) * damp_f.unsqueeze(1))
    system[:, :n, :n].diagonal(dim1=1, dim2=2).add_(1.0 + _RIDGE)
    right = u_f.new_zeros(n_problems, n + 1)
    right[:, :n] = u_f - torch.bmm(pull, u_g.unsqueeze(-1)).squeeze(-1)
    if totals is not None:
        last = totals[0] - torch.bmm(pull, totals[1].unsqueeze(-1)).squeeze(-1)
        bound = 1.0 - damp_f
        # Where one side is used up entirely, the bound of the other side is not active.
        held = (bound.sum(-1) > 0).unsqueeze(-1)
        free = (~held) & (damp_g.amin(-1, keepdim=True) > 0)
        last = torch.where(held, last, torch.where(free, a, 0.0))
        bound = torch.where(held, bound, torch.where(free, 1.0, 0.0))
        corner = (~held & ~free).to(system.dtype)
    elif isinstance(marginals, Relaxed):
        last, bound = torch.zeros_like(a), torch.zeros_like(a)
        corner = torch.ones_like(a[:, :1])
    else:
        last, bound = a, torch.ones_like(a)
        corner = torch.zeros_like(a[:, :1])
    system[:, :-1, -1], system[:, -1, :-1], system[:, -1, -1:] = last, bound, corner
    solution = torch.linalg.solve(system, right)
    w_f, level = solution[:, :n], solution[:, n:]
    w_g = u_g - torch.bmm((damp_f * w_f).unsqueeze(1), by_row).squeeze(1)
    if totals is not None:
        w_g = w_g - level * totals[1]
    return w_f, w_g, level


def implicit(cost: Tensor, a: Tensor, b: Tensor, state: SolverState, reg: Tensor) -> SolverState:
    """The same state with potentials that are differentiable in cost, a and b."""
    known = (state.f, state.g, reg, state.marginals)
    f, g = _Implicit.apply(cost, a, b, known)  # type: ignore[no-untyped-call]
    return SolverState(f, g, state.marginals, state.error, state.iterations)


def unrolled(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    reg: Tensor,
    marginals: Balanced,
    schedule: Schedule,
) -> SolverState:
    """Sweeps in the log domain that autograd records: exact for the sweeps that ran, and slow."""
    scaled = cost / -reg[:, None, None]
    log_a, log_b, mass = log_of(a), log_of(b), a.detach().sum(-1)
    heats = [1.0] * schedule.averaged + heats_of(float(-scaled.detach().amin()), schedule)
    error = torch.full_like(mass, float("inf"))
    reached = torch.zeros_like(mass, dtype=torch.int64)

    def columns_of(f: Tensor, heat: float) -> Tensor:
        return -heat * torch.logsumexp(log_a.unsqueeze(2) + (scaled + f.unsqueeze(2)) / heat, 1)

    for sweep in range(schedule.max_iterations):
        heat = heats[sweep] if sweep < len(heats) else 1.0
        old = f
        soft_f = -heat * torch.logsumexp(log_b.unsqueeze(1) + (scaled + g.unsqueeze(1)) / heat, 2)
        f = marginals.rows(soft_f)
        with torch.no_grad():
            error = moved(old, f, soft_f, a, mass, 1)
        if sweep < schedule.averaged:
            g = 0.5 * (g + marginals.columns(columns_of(old, heat)))
            f = 0.5 * (old + f)
        else:
            soft = columns_of(f, heat)
            settled = marginals.settle(f, marginals.columns(soft), soft, a, b, 1)
            marginals, f, g, strays = settled
            error = error + strays.detach().squeeze(1) / mass
        if heat > 1.0:
            continue
        reached = torch.where((error <= schedule.tolerance) & (reached == 0), sweep + 1, reached)
        if bool((error <= schedule.tolerance).all()):
            break
    reached = torch.where(reached == 0, schedule.max_iterations, reached)
    return SolverState(f, g, marginals, error, reached)
