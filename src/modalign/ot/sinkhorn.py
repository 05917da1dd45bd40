"""Entropic transport between weighted sets, many problems of one size at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal, cast

import torch
from torch import Tensor

from modalign.ot import _checks
from modalign.ot._block import ProblemBlock
from modalign.ot._gradients import dual_value, implicit, plan_at, unrolled
from modalign.ot._marginals import Balanced, Partial, Relaxed
from modalign.ot._solve import Schedule, SolverState, pieces, solve
from modalign.ot._symmetric import solve_symmetric
from modalign.ot.result import Transport

Value = Literal["dual", "sharp"]
Gradient = Literal["envelope", "implicit", "unrolled"]
Scale = Literal["mean", "max"]


def sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    reg: float | Tensor = 0.05,
    scale: Scale | None = None,
    penalty: float | tuple[float, float] | None = None,
    mass: float | Tensor | None = None,
    value: Value = "dual",
    gradient: Gradient = "envelope",
    f: Tensor | None = None,
    g: Tensor | None = None,
    averaged: int = 0,
    anneal: float | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
) -> Transport:
    """Solves `min_plan <plan, C> + reg KL(plan | a b^T)` over plans with marginals a and b.

    KL is `sum p log(p / q) - p + q`. With `penalty` the marginals are relaxed: the sum gains
    `penalty_a KL(plan 1 | a) + penalty_b KL(plan^T 1 | b)` and a and b may have different
    masses. With `mass` the plan has exactly that mass and marginals of at most a and b: points
    without a fit, such as those of a missing modality, stay behind.

    Sweeps `f = -reg log sum_l b_l exp((g_l - C_kl) / reg)` and likewise for g run in the log
    domain or as equally accurate products with an absorbed kernel; neither overflows.

    Args:
        cost: (..., n, m), float32 or float64. Leading dimensions are problems.
        a: weights of the rows, >= 0, (..., n); uniform with mass 1 where left out. A weight of 0
            takes the point out of the plan; its potential is still defined.
        b: weights of the columns, (..., m), likewise.
        reg: strength of the entropy, > 0; a tensor (...) gives each problem its own.
        scale: multiply reg by each problem's "mean" or "max" of `|C|` (a constant for
            gradients; a cost of zeros leaves reg as it is). None takes reg as given.
        penalty: strength of relaxed marginals, one for both or one each; infinity is exact.
        mass: of a partial plan, at most the smaller of the masses of a and b.
        value: "dual" is the minimum above; "sharp" is `<plan, C>` at its plan.
        gradient: how value, plan and potentials depend on cost, a and b.
            "envelope": the plan is a constant. Exact for the dual value at convergence and
            cheapest; for the sharp value it leaves out how the plan moves, which is not small.
            "implicit": the fixed point is differentiated by a linear solve in float64, exact
            at convergence for everything, time n^3: give the smaller side as rows.
            "unrolled": autograd through every sweep, memory sweeps x n x m.
        f: potential of the rows to start from, (..., n): a warm start.
        g: potential of the columns to start from, (..., m).
        averaged: averaged sweeps before the alternating ones, fewer if they meet the tolerance;
            about 10 settle a problem whose two sides nearly coincide.
        anneal: in (0, 1): before the sweeps at reg, one sweep each at regs that fall by this
            factor from the largest cost. Pays below about a hundredth of the cost's scale.
        tolerance: stop once the L1 marginal error, as a share of the mass of a, is at most this.
            In float32 errors end near `1e-7 max(C) / reg`.
        max_iterations: most sweeps in all.

    Returns:
        A `Transport`. Not converging is told there, not raised.

    Raises:
        ValueError: shapes, kinds or numbers do not fit; the text says which and what to do.

    Source: Cuturi 2013; Chizat et al. 2018 (relaxed); Benamou et al. 2015 (partial).

    Example:
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> solved = sinkhorn(cost, reg=0.1)
        >>> solved.plan.round(decimals=3).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
        >>> bool(solved.converged)
        True
    """
    problem = _Problem.of(cost, a, b, reg, scale)
    if penalty is None and mass is None:
        _checks.same_mass(problem.a, problem.b)
    marginals = problem.marginals(penalty, mass)
    schedule = schedule_of(tolerance, max_iterations, averaged, anneal)
    _checks.one_of("value", value, ("dual", "sharp"))
    _checks.one_of("gradient", gradient, ("envelope", "implicit", "unrolled"))
    starts = problem.start("f", f, -2), problem.start("g", g, -1)
    if gradient == "unrolled":
        whole = (problem.cost, problem.a, problem.b, *starts, problem.reg)
        state = unrolled(*whole, marginals, schedule)
    else:
        with torch.no_grad():
            state = _solve_pieces(problem, *starts, marginals, schedule)
    return problem.finish(state, value, gradient, schedule)


def symmetric_sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    *,
    reg: float | Tensor = 0.05,
    scale: Scale | None = None,
    penalty: float | None = None,
    value: Value = "dual",
    gradient: Gradient = "envelope",
    f: Tensor | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
) -> Transport:
    """The problem of a set with itself: `sinkhorn` for a symmetric cost and b = a, with f = g.

    One potential is found by the averaged fixed point `f <- (f + s(f)) / 2`, in some 15 sweeps
    where alternating ones take hundreds. Arguments, result and errors are those of `sinkhorn`.

    Example:
        >>> cost = torch.tensor([[0.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
        >>> solved = symmetric_sinkhorn(cost, reg=0.5, tolerance=1e-12)
        >>> f"{float(solved.value):.9f} {float(solved.linear_value):.9f}"
        '0.337498626 0.035972420'
    """
    problem = _Problem.of(cost, a, a, reg, scale)
    if cost.shape[-1] != cost.shape[-2]:
        raise _checks.refuse(
            "a square cost", f"shape {tuple(cost.shape)}", "use `sinkhorn` for two sets"
        )
    marginals = problem.marginals(penalty, None)
    schedule = schedule_of(tolerance, max_iterations, 0, None)
    _checks.one_of("value", value, ("dual", "sharp"))
    _checks.one_of("gradient", gradient, ("envelope", "implicit", "unrolled"))
    start = problem.start("f", f, -2)
    if gradient == "unrolled":
        whole = (problem.cost, problem.a, problem.b, start, start, problem.reg)
        every = Schedule(tolerance, max_iterations, averaged=max_iterations)
        state = unrolled(*whole, marginals, every)
    else:
        with torch.no_grad():
            state = _solve_pieces(problem, start, None, marginals, schedule)
    return problem.finish(state, value, gradient, schedule)


@dataclass(frozen=True)
class _Problem:
    """A checked problem with its leading dimensions made one."""

    cost: Tensor  # (B, n, m)
    a: Tensor  # (B, n)
    b: Tensor  # (B, m)
    reg: Tensor  # (B,)
    shape: torch.Size  # the leading dimensions

    @classmethod
    def of(
        cls,
        cost: Tensor,
        a: Tensor | None,
        b: Tensor | None,
        reg: float | Tensor,
        scale: Scale | None,
    ) -> _Problem:
        _checks.floats("cost", cost, 2)
        if 0 in cost.shape[-2:]:
            raise _checks.refuse(
                "a cost with rows and columns", f"shape {tuple(cost.shape)}", "drop empty problems"
            )
        _checks.finite("cost", cost)
        lead, (n, m) = cost.shape[:-2], cost.shape[-2:]
        problems = lead.numel()
        whole_a = _checks.weights("a", a, cost, (*lead, n)).reshape(problems, n)
        whole_b = _checks.weights("b", b, cost, (*lead, m)).reshape(problems, m)
        flat = cost.reshape(problems, n, m)
        return cls(flat, whole_a, whole_b, _regs(reg, scale, flat, lead), lead)

    def marginals(
        self, penalty: float | tuple[float, float] | None, mass: float | Tensor | None
    ) -> Balanced:
        """What is asked of the plan's marginals."""
        if penalty is not None and mass is not None:
            raise _checks.refuse(
                "either `penalty` or `mass`", "both", "choose relaxed or partial transport"
            )
        if penalty is not None:
            left, right = penalty if isinstance(penalty, tuple) else (penalty, penalty)
            _checks.at_least("penalty", left, 0.0, open_end=True)
            _checks.at_least("penalty", right, 0.0, open_end=True)
            if math.isinf(left) and math.isinf(right):
                _checks.same_mass(self.a, self.b)
                return Balanced()
            column = self.reg.unsqueeze(-1)
            return Relaxed(column / left, column / right)
        if mass is not None:
            return Partial(self._mass(mass), self.reg.new_zeros(len(self.reg), 1))
        return Balanced()

    def _mass(self, mass: float | Tensor) -> Tensor:
        total = torch.as_tensor(mass, dtype=self.cost.dtype, device=self.cost.device)
        total = total.expand(self.shape).reshape(-1)
        most = torch.minimum(self.a.detach().sum(-1), self.b.detach().sum(-1))
        if bool((total <= 0).any()) or bool((total > most * (1.0 + 1e-6)).any()):
            raise _checks.refuse(
                "a mass in (0, smaller total of a and b]",
                f"up to {float(total.max()):g} where {float(most.min()):g} is the most",
                "lower `mass`, or raise the weights",
            )
        return torch.minimum(total, most).unsqueeze(-1)

    def start(self, name: str, given: Tensor | None, side: int) -> Tensor:
        """A potential to start from, divided by reg."""
        size = self.cost.shape[side]
        if given is None:
            return self.cost.new_zeros(len(self.cost), size)
        _checks.floats(name, given, 1, self.cost)
        if given.shape[-1] != size:
            raise _checks.refuse(
                f"{size} potentials in {name}", f"{given.shape[-1]}", "give one for each point"
            )
        _checks.finite(name, given)
        flat = given.detach().expand(*self.shape, size).reshape(len(self.cost), size)
        return flat / self.reg.unsqueeze(-1)

    def finish(
        self, state: SolverState, value: Value, gradient: Gradient, schedule: Schedule
    ) -> Transport:
        """The result, with gradients of the kind asked for."""
        through = gradient == "unrolled"
        cost, a, b = self.cost, self.a, self.b
        if gradient == "implicit" and any(t.requires_grad for t in (cost, a, b)):
            state = implicit(cost, a, b, state, self.reg)
        if value == "dual":
            number = dual_value(cost, a, b, state, self.reg, through=through)
        elif gradient == "envelope":
            with torch.no_grad():
                plan = plan_at(cost, a, b, state, self.reg)
            number = (plan * cost).sum((-2, -1))
        else:
            number = (plan_at(cost, a, b, state, self.reg) * cost).sum((-2, -1))
        if gradient == "envelope":
            cost, a, b = cost.detach(), a.detach(), b.detach()
        column = self.reg.unsqueeze(-1)
        lead, (n, m) = self.shape, cost.shape[1:]
        whole = cost.reshape(*lead, n, m)
        return Transport(
            value=number.reshape(lead),
            f=(state.f * column).reshape(*lead, n),
            g=(state.g * column).reshape(*lead, m),
            a=a.reshape(*lead, n),
            b=b.reshape(*lead, m),
            reg=self.reg.reshape(lead),
            marginal_error=state.error.reshape(lead),
            iterations=state.iterations.reshape(lead),
            converged=(state.error <= schedule.tolerance).reshape(lead),
            make_cost=lambda: whole,
        )


def _regs(reg: float | Tensor, scale: Scale | None, cost: Tensor, lead: torch.Size) -> Tensor:
    """Each problem's reg, (B,), scaled where asked."""
    regs = checked_reg(reg, cost, lead).reshape(-1)
    if scale is None:
        return regs.contiguous()
    _checks.one_of("scale", scale, ("mean", "max"))
    size = cost.detach().abs()
    unit = size.mean((-2, -1)) if scale == "mean" else size.amax((-2, -1))
    return regs * unit.where(unit > 0, 1.0)


def checked_reg(reg: float | Tensor, like: Tensor, lead: torch.Size) -> Tensor:
    """Each problem's reg as given, in the shape of the leading dimensions."""
    regs = torch.as_tensor(reg, dtype=like.dtype, device=like.device).detach().expand(lead)
    if not bool((regs > 0).all()) or not bool(regs.isfinite().all()):
        low = float(regs.min()) if regs.numel() else math.nan
        raise _checks.refuse(
            "a finite reg > 0", f"{low:g}", "raise it; `exact_plan` needs no regularisation"
        )
    return regs


def scaled_reg(reg: float | Tensor, scale: Scale | None, cost: Tensor) -> Tensor:
    """The reg of each problem after scaling by its cost, (...)."""
    _checks.floats("cost", cost, 2)
    lead = cost.shape[:-2]
    return _regs(reg, scale, cost.reshape(-1, *cost.shape[-2:]), lead).reshape(lead)


def schedule_of(
    tolerance: float, max_iterations: int, averaged: int, anneal: float | None
) -> Schedule:
    """A schedule of numbers that make sense."""
    _checks.at_least("tolerance", tolerance, 0.0)
    _checks.at_least("max_iterations", max_iterations, 1)
    _checks.at_least("averaged", averaged, 0)
    if anneal is not None and not 0.0 < anneal < 1.0:
        raise _checks.refuse("anneal in (0, 1)", f"{anneal!r}", "0.5 is quick, 0.9 careful")
    return Schedule(tolerance, max_iterations, averaged, anneal)


def _solve_pieces(
    problem: _Problem, f: Tensor, g: Tensor | None, marginals: Balanced, schedule: Schedule
) -> SolverState:
    """Solves the problems in pieces that fit the cache; g is None for the symmetric ones."""
    cost, a, b, reg = problem.cost, problem.a, problem.b, problem.reg
    states = []
    for piece in pieces(len(cost), cost[0].numel() if len(cost) else 1, cost.device):
        block = ProblemBlock.of(cost[piece] / -reg[piece, None, None])
        asked = marginals.map(itemgetter(piece))
        if g is None:
            states.append(solve_symmetric(block, a[piece], f[piece], asked, schedule))
        else:
            part = (block, a[piece], b[piece], f[piece], g[piece])
            states.append(solve(*part, asked, schedule))
    if isinstance(marginals, Partial) and states:
        levels = [cast(Partial, state.marginals).level for state in states]
        marginals = Partial(marginals.mass, torch.cat(levels))
    if not states:
        empty = reg.new_zeros(0)
        return SolverState(f, f if g is None else g, marginals, empty, empty.long())
    return SolverState(
        torch.cat([state.f for state in states]),
        torch.cat([state.g for state in states]),
        marginals,
        torch.cat([state.error for state in states]),
        torch.cat([state.iterations for state in states]),
    )
