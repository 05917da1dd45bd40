"""Entropic transport between weighted sets, many problems of one size at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal, TypedDict, Unpack, cast

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


class SolverOptions(TypedDict, total=False):
    """Keyword options of all solvers: what they return, and how their sweeps run.

    Attributes:
        value: "dual" (default) is the minimum of the regularised problem; "sharp" is
            `<plan, C>` at its plan.
        gradient: how value, plan and potentials depend on cost, a and b.
            "envelope" (default): the plan is a constant. Exact for the dual value at convergence
            and cheapest; for the sharp value it omits how the plan moves, which is not small.
            "implicit": the fixed point is differentiated by a linear solve in float64, exact
            at convergence for everything, time n^3: give the smaller side as rows.
            "unrolled": autograd through every sweep, memory sweeps x n x m.
        averaged: number of averaged sweeps before the alternating ones, fewer if they reach the
            tolerance (default 0, 10 for a divergence); about 10 solve a problem whose two sides
            nearly coincide.
        anneal: in (0, 1): before the sweeps at reg, one sweep each at larger regularisations,
            which fall by this factor from the largest cost (default: none). It saves time for a
            reg below about a hundredth of the cost's scale.
        tolerance: stop when the L1 marginal error, as a share of the mass of a, is at most this
            (default 1e-4). In float32 errors end near `1e-7 max(C) / reg`.
        max_iterations: maximum number of sweeps (default 2000).
    """

    value: Value
    gradient: Gradient
    averaged: int
    anneal: float | None
    tolerance: float
    max_iterations: int


@dataclass(frozen=True)
class Solver(Schedule):
    """`SolverOptions` with their defaults, checked."""

    tolerance: float = 1e-4
    max_iterations: int = 2000
    value: Value = "dual"
    gradient: Gradient = "envelope"

    def __post_init__(self) -> None:
        _checks.one_of("value", self.value, ("dual", "sharp"))
        _checks.one_of("gradient", self.gradient, ("envelope", "implicit", "unrolled"))
        _checks.at_least("tolerance", self.tolerance, 0.0)
        _checks.at_least("max_iterations", self.max_iterations, 1)
        _checks.at_least("averaged", self.averaged, 0)
        if self.anneal is not None and not 0.0 < self.anneal < 1.0:
            raise _checks.refuse(
                "anneal in (0, 1)", f"{self.anneal!r}", "use 0.5 for speed, 0.9 for caution"
            )


def sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    reg: float | Tensor = 0.05,
    scale: Scale | None = None,
    penalty: float | tuple[float, float] | None = None,
    mass: float | Tensor | None = None,
    f: Tensor | None = None,
    g: Tensor | None = None,
    **options: Unpack[SolverOptions],
) -> Transport:
    """Solves `min_plan <plan, C> + reg KL(plan | a b^T)` over plans with marginals a and b.

    KL is `sum p log(p / q) - p + q`. With `penalty` the marginals are relaxed: the objective gains
    `penalty_a KL(plan 1 | a) + penalty_b KL(plan^T 1 | b)`, and a and b may have different
    masses. With `mass` the plan has exactly that mass and marginals of at most a and b: points
    without a match, such as those of a missing modality, are left out.

    Each sweep sets `f = -reg log sum_l b_l exp((g_l - C_kl) / reg)`, then g by the same formula
    with the sides exchanged, in the log domain or as equally accurate products with a kernel that
    contains the potentials; neither overflows.

    Args:
        cost: (..., n, m), float32 or float64. Leading dimensions are problems.
        a: weights of the rows, >= 0, (..., n); uniform with mass 1 by default. A weight of 0
            removes the point from the plan; its potential is still defined.
        b: weights of the columns, >= 0, (..., m); uniform with mass 1 by default.
        reg: strength of the entropy, > 0; a tensor (...) gives each problem its own.
        scale: multiply reg by each problem's "mean" or "max" of `|C|` (a constant for
            gradients; a cost of zeros leaves reg unchanged). None uses reg itself.
        penalty: strength of relaxed marginals, one for both or one for each side; infinity is an
            exact marginal.
        mass: mass of a partial plan, at most the smaller of the masses of a and b.
        f: potential of the rows to start from, (..., n): a warm start.
        g: potential of the columns to start from, (..., m).
        **options: see `SolverOptions`.

    Returns:
        A `Transport`. A problem that did not converge is marked there and raises no error.

    Raises:
        ValueError: shapes, types or numbers do not fit; the message says which and what to do.

    Source: Cuturi 2013; Chizat et al. 2018 (relaxed); Benamou et al. 2015 (partial).

    Example:
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> solved = sinkhorn(cost, reg=0.1)
        >>> solved.plan.round(decimals=3).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
        >>> bool(solved.converged)
        True
    """
    problem, solver = _Problem.of(cost, a, b, reg, scale), Solver(**options)
    if penalty is None and mass is None:
        _checks.same_mass(problem.a, problem.b)
    marginals = problem.marginals(penalty, mass)
    starts = problem.start("f", f, -2), problem.start("g", g, -1)
    if solver.gradient == "unrolled":
        whole = (problem.cost, problem.a, problem.b, *starts, problem.reg)
        state = unrolled(*whole, marginals, solver)
    else:
        with torch.no_grad():
            state = _solve_pieces(problem, *starts, marginals, solver)
    return problem.finish(state, solver)


def symmetric_sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    *,
    reg: float | Tensor = 0.05,
    scale: Scale | None = None,
    penalty: float | None = None,
    f: Tensor | None = None,
    **options: Unpack[SolverOptions],
) -> Transport:
    """The problem of a set with itself: `sinkhorn` for a symmetric cost and b = a, with f = g.

    One potential is found by the averaged fixed point `f <- (f + s(f)) / 2`, in some 15 sweeps
    where alternating ones take hundreds.

    Args:
        cost: symmetric, (..., n, n), float32 or float64.
        a: weights of both sides, >= 0, (..., n); uniform with mass 1 by default.
        reg: strength of the entropy, > 0, a number or (...).
        scale: multiply reg by each problem's "mean" or "max" of `|C|`.
        penalty: strength of the relaxed marginals; None is exact.
        f: potential to start from, (..., n).
        **options: see `SolverOptions`; `averaged` and `anneal` do not apply.

    Raises:
        ValueError: the cost is not square, an option does not apply, or as for `sinkhorn`.

    Example:
        >>> cost = torch.tensor([[0.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
        >>> solved = symmetric_sinkhorn(cost, reg=0.5, tolerance=1e-12)
        >>> f"{float(solved.value):.9f} {float(solved.linear_value):.9f}"
        '0.337498626 0.035972420'
    """
    problem, solver = _Problem.of(cost, a, a, reg, scale), Solver(**options)
    if cost.shape[-1] != cost.shape[-2]:
        raise _checks.refuse(
            "a square cost", f"shape {tuple(cost.shape)}", "use `sinkhorn` for two sets"
        )
    if solver.averaged or solver.anneal is not None:
        got = f"averaged={solver.averaged}, anneal={solver.anneal}"
        fix = "omit both: all sweeps are averaged"
        raise _checks.refuse("neither averaged nor anneal for a symmetric problem", got, fix)
    marginals = problem.marginals(penalty, None)
    start = problem.start("f", f, -2)
    if solver.gradient == "unrolled":
        whole = (problem.cost, problem.a, problem.b, start, start, problem.reg)
        every = Schedule(solver.tolerance, solver.max_iterations, averaged=solver.max_iterations)
        state = unrolled(*whole, marginals, every)
    else:
        with torch.no_grad():
            state = _solve_pieces(problem, start, None, marginals, solver)
    return problem.finish(state, solver)


@dataclass(frozen=True)
class _Problem:
    """A checked problem with its leading dimensions flattened to one."""

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
        """The constraints on the plan's marginals."""
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
            got = f"up to {float(total.max()):g}, where the smaller total is {float(most.min()):g}"
            fix = "lower `mass`, or raise the weights"
            raise _checks.refuse("a mass in (0, smaller total of a and b]", got, fix)
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

    def finish(self, state: SolverState, solver: Solver) -> Transport:
        """The result, with gradients of the requested kind."""
        gradient, through = solver.gradient, solver.gradient == "unrolled"
        cost, a, b = self.cost, self.a, self.b
        if gradient == "implicit" and any(t.requires_grad for t in (cost, a, b)):
            state = implicit(cost, a, b, state, self.reg)
        if solver.value == "dual":
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
            converged=(state.error <= solver.tolerance).reshape(lead),
            make_cost=lambda: whole,
        )


def _regs(reg: float | Tensor, scale: Scale | None, cost: Tensor, lead: torch.Size) -> Tensor:
    """Each problem's reg, (B,), after scaling."""
    regs = checked_reg(reg, cost, lead).reshape(-1)
    if scale is None:
        return regs.contiguous()
    _checks.one_of("scale", scale, ("mean", "max"))
    size = cost.detach().abs()
    unit = size.mean((-2, -1)) if scale == "mean" else size.amax((-2, -1))
    return regs * unit.where(unit > 0, 1.0)


def checked_reg(reg: float | Tensor, like: Tensor, lead: torch.Size) -> Tensor:
    """Each problem's reg before scaling, in the shape of the leading dimensions.

    Args:
        reg: a number or (...).
        like: gives type and device.
        lead: the leading dimensions.

    Raises:
        ValueError: a reg is not finite or not above 0.
    """
    regs = torch.as_tensor(reg, dtype=like.dtype, device=like.device).detach().expand(lead)
    if not bool((regs > 0).all()) or not bool(regs.isfinite().all()):
        low = float(regs.min()) if regs.numel() else math.nan
        raise _checks.refuse(
            "a finite reg > 0", f"{low:g}", "raise it, or use `exact_plan` without regularisation"
        )
    return regs


def scaled_reg(reg: float | Tensor, scale: Scale | None, cost: Tensor) -> Tensor:
    """The reg of each problem after scaling by its cost, (...).

    Args:
        reg: a number or (...).
        scale: "mean" or "max" of `|C|`, or None.
        cost: (..., n, m).
    """
    _checks.floats("cost", cost, 2)
    lead = cost.shape[:-2]
    return _regs(reg, scale, cost.reshape(-1, *cost.shape[-2:]), lead).reshape(lead)


def _solve_pieces(
    problem: _Problem, f: Tensor, g: Tensor | None, marginals: Balanced, schedule: Schedule
) -> SolverState:
    """Solves the problems in pieces that fit the cache; g is None for symmetric problems."""
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
