"""The loop: block ascent of the dual, in the log domain while potentials still change much, then
as products with a kernel that contains ("absorbs") the potentials.

Sweeps in the log domain cannot overflow at any reg, but take an exponential for each cell.
With absorbed potentials f0, g0, `K_kl = exp(f0_k + g0_l - C_kl / reg)`, the same sweep is
`U = a / (K V)`, `V = b / (K^T U)`, about twenty times faster, and as accurate as long as the
potentials stay within some units of reg of f0 and g0: cells that underflowed in K have no mass.
The products show how far the potentials moved, so that every check either continues, absorbs
again, or returns to the last good potentials and the log domain. Converged problems leave.

Potentials are divided by reg here. Source: Cuturi 2013 (iterations); Schmitzer 2019,
"Stabilized sparse scaling algorithms", section 3 (absorption).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from modalign.ot._block import ProblemBlock
from modalign.ot._line import Band, Line
from modalign.ot._marginals import Balanced
from modalign.ot._newton import newton_step

_CACHE_CELLS = 1 << 20  # cells of a block on the CPU: it and its kernel fit in the cache
_CALM = 10.0  # change per sweep, in units of reg, below which a kernel is used
_DRIFT = 12.0  # up to this distance from the absorbed potentials, underflow in K is negligible
_LOST = 48.0  # beyond this distance the sweeps are unreliable and are repeated
_PATIENCE = 40  # sweeps of a tiny problem before Newton steps
_RIDGE = 1e-3  # as a share of the tolerance: weaker links need no exact step
_MOST = 60.0  # larger exponents in a measured error are clipped: the error is large anyway


@dataclass(frozen=True)
class Schedule:
    """How the loop runs, see `SolverOptions` in `modalign.ot.sinkhorn`."""

    tolerance: float
    max_iterations: int
    averaged: int = 0
    anneal: float | None = None


@dataclass
class SolverState:
    """Potentials, errors and numbers of sweeps of a block, in the block's layout."""

    f: Tensor
    g: Tensor
    marginals: Balanced
    error: Tensor  # (B,)
    iterations: Tensor  # (B,) int64


def pieces(n_problems: int, cells: int, device: torch.device) -> Iterator[slice]:
    """Slices of problems whose cells fit in the CPU's cache; all at once on other devices."""
    step = max(1, _CACHE_CELLS // max(cells, 1)) if device.type == "cpu" else max(n_problems, 1)
    return (slice(start, start + step) for start in range(0, n_problems, step))


def heats_of(largest: float, schedule: Schedule) -> list[float]:
    """Falling multiples of reg, from the largest cost down to just above 1."""
    heats: list[float] = []
    while schedule.anneal is not None and largest > 1.0:
        heats.append(largest)
        largest *= schedule.anneal
    return heats


def moved(old: Tensor, new: Tensor, soft: Tensor, a: Tensor, mass: Tensor, point: int) -> Tensor:
    """L1 change of the row masses `a exp(f - s)` by a step in f, as a share of the mass of a."""
    before = (old - soft).clamp_max(_MOST).exp_()
    after = (new - soft).clamp_max(_MOST).exp_()
    return ((before - after).abs_() * a).sum(point) / mass


def solve(
    block: ProblemBlock | Line,
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    marginals: Balanced,
    schedule: Schedule,
) -> SolverState:
    """Solves a block of problems; a and f are (B, n), b and g (B, m), also in the result."""
    turned = marginals.map(block.turn)
    n_problems = len(a)
    state = SolverState(
        block.turn(f),
        block.turn(g),
        turned,
        a.new_full((n_problems,), float("inf")),
        torch.zeros(n_problems, dtype=torch.int64, device=a.device),
    )
    _run(block, block.turn(a), block.turn(b), state, schedule)
    state.f, state.g = block.turn(state.f), block.turn(state.g)
    state.marginals = state.marginals.map(block.turn)
    return state


def _run(
    block: ProblemBlock | Line, a: Tensor, b: Tensor, state: SolverState, schedule: Schedule
) -> None:
    """Sweeps until every error is at most the tolerance or the maximum number is reached."""
    loop = _SweepLoop(block, a, b, state, schedule)
    loop.average(schedule.averaged)
    loop.cool()
    while loop.going():
        if loop.stuck:
            loop.newton_sweep()
        elif not loop.calm:
            loop.log_sweeps()
        else:
            loop.kernel_sweeps()
    loop.finish()


class _SweepLoop:
    """The problems still running; finished ones have been written to the whole state."""

    def __init__(
        self,
        block: ProblemBlock | Line,
        a: Tensor,
        b: Tensor,
        state: SolverState,
        schedule: Schedule,
    ) -> None:
        self.block, self.a, self.b = block, a, b
        self.log_a, self.log_b = a.log(), b.log()
        self.mass = a.sum(block.point)
        self.whole, self.schedule = state, schedule
        self.f, self.g, self.marginals = state.f, state.g, state.marginals
        self.error, self.reached = state.error, state.iterations
        self.index = torch.arange(len(self.error), device=a.device)
        self.done = 0
        self.calm = True  # whether a kernel pays off
        self.fresh = True  # whether no alternating sweep has run yet
        self.wary = 0  # log sweeps before a kernel is tried again; grows when one failed
        self.newtonian = block.tiny and type(state.marginals) is Balanced
        self.sweeps_first = _PATIENCE + schedule.averaged
        self.buffer = block.buffer()
        self.whole.f, self.whole.g = state.f.clone(), state.g.clone()
        self.whole.error, self.whole.iterations = state.error.clone(), state.iterations.clone()

    def going(self) -> bool:
        """Whether a problem and a sweep are left."""
        return len(self.index) > 0 and self.done < self.schedule.max_iterations

    @property
    def stuck(self) -> bool:
        """Whether the problems are tiny and have not converged after their first sweeps."""
        return self.newtonian and self.done >= self.sweeps_first

    def average(self, count: int) -> None:
        """Averaged sweeps: both potentials move half way to the optimum for the old ones."""
        near: _Absorbed | None = None
        for _ in range(min(count, self.schedule.max_iterations)):
            near = near or _Absorbed(self)
            soft_f, soft_g = near.soft_rows(self.g), near.soft_columns(self.f)
            if not near.drift(soft_f, soft_g) < _LOST:  # NaN too
                near = None
                soft_f, soft_g = self._soft_rows(self.g), self._soft_columns(self.f)
            best_f, best_g = self.marginals.rows(soft_f), self.marginals.columns(soft_g)
            error = self._difference(self.f, best_f, soft_f)
            self.f, self.g = 0.5 * (self.f + best_f), 0.5 * (self.g + best_g)
            self.done += 1
            if bool((error <= self.schedule.tolerance).all()):
                return
            if near and near.drift(self.f, self.g) > _DRIFT:
                near = None

    def cool(self) -> None:
        """One sweep at each of a decreasing series of regularisations, from the largest cost."""
        if not len(self.index):
            return
        for heat in heats_of(self.block.largest(), self.schedule):
            if self.done >= self.schedule.max_iterations - 1:
                return
            self.f = self.marginals.rows(self._soft_rows(self.g, heat))
            self.g = self.marginals.columns(self._soft_columns(self.f, heat))
            self.done += 1
        self.sweeps_first = self.done + _PATIENCE

    def log_sweeps(self) -> None:
        """Sweeps in the log domain, until the changes are small enough for a kernel."""
        left = self.wary
        while self.going() and not self.calm and not self.stuck:
            old_f, old_g = self.f, self.g
            soft = self._soft_rows(self.g)
            self.f = self.marginals.rows(soft)
            error = self._difference(old_f, self.f, soft)
            soft = self._soft_columns(self.f)
            self.g = self.marginals.columns(soft)
            move = torch.maximum((self.f - old_f).abs().amax(), (self.g - old_g).abs().amax())
            self.marginals, self.f, self.g, strays = self._settle(
                self.marginals, self.f, self.g, soft
            )
            self.error = error + strays
            self.done += 1
            left -= 1
            self.retire()
            self.calm = left <= 0 and (self.wary > 1 or bool(move < _CALM))

    def kernel_sweeps(self) -> None:
        """Sweeps as products, until problems leave, potentials drift, or numbers underflow."""
        near = _Absorbed(self)
        run = self._plain if type(self.marginals) is Balanced else self._general
        problems, since = len(self.index), 0
        while self.going() and len(self.index) == problems and not self.stuck:
            # Problems far from convergence are checked less often.
            count = self.block.check if since < 4 * self.block.check else 4 * self.block.check
            # The first sweep is checked: after a good start it may suffice.
            count = 1 if self.fresh else min(count, self.schedule.max_iterations - self.done)
            self.fresh = False
            f, g, marginals, error = run(near, count)
            drift = near.drift(f, g)
            if not drift < _LOST:  # NaN too, where a product underflowed
                self.calm, self.wary = False, min(max(1, 4 * self.wary), 64)
                return
            self.f, self.g, self.marginals, self.error = f, g, marginals, error
            since += count
            self.done += count
            if drift > _DRIFT:
                return
            self.retire()

    def newton_sweep(self) -> None:
        """A sweep in the log domain and, for the problems still running, a Newton step."""
        old = self.f
        soft = self._soft_rows(self.g)
        self.f, self.error = soft, self._difference(old, soft, soft)
        self.g = self._soft_columns(self.f)
        self.done += 1
        self.retire()
        if not self.going():
            return
        ridge = _RIDGE * self.schedule.tolerance
        n, m = self.f.shape[self.block.point], self.g.shape[self.block.point]
        if n <= m:
            plan, a, b = self._problems_last(self.a, self.b)
            step = newton_step(plan, a, b, ridge)
            self.f = self.f + (step if self.block.last else step.t())
        else:
            self.f = self._soft_rows(self.g)
            plan, a, b = self._problems_last(self.a, self.b)
            step = newton_step(plan.transpose(0, 1), b, a, ridge)
            self.g = self.g + (step if self.block.last else step.t())
            self.f = self._soft_rows(self.g)
        self.g = self._soft_columns(self.f)

    def _problems_last(self, *vectors: Tensor) -> tuple[Tensor, ...]:
        """The plan's density (n, m, B) and vectors (n, B), whatever the block's layout."""
        assert isinstance(self.block, ProblemBlock)  # no other is tiny
        density = self.block.kernel(self.f, self.g).cells
        if self.block.last:
            return density, *vectors
        return density.movedim(0, -1), *(vector.t() for vector in vectors)

    def _plain(self, near: _Absorbed, count: int) -> tuple[Tensor, Tensor, Balanced, Tensor]:
        """Sweeps of a balanced problem: only products and quotients between checks."""
        kernel, buffer = near.kernel, self.buffer
        u, v = self.a * (self.f - near.f).exp(), self.b * (self.g - near.g).exp()
        for _ in range(count - 1):
            u = self.a / kernel.rows(v, buffer)
            v = self.b / kernel.columns(u, buffer)
        row = kernel.rows(v, buffer)
        error = (u * row).sub_(self.a).abs_().sum(self.block.point) / self.mass
        column = kernel.columns(self.a / row, buffer)
        return near.f - row.log(), near.g - column.log(), self.marginals, error

    def _general(self, near: _Absorbed, count: int) -> tuple[Tensor, Tensor, Balanced, Tensor]:
        """Sweeps of any problem, with the marginals' maps applied to soft minima."""
        f, g, marginals = self.f, self.g, self.marginals
        for _ in range(count):
            old, soft_f = f, near.soft_rows(g)
            f = marginals.rows(soft_f)
            step = (old, f, soft_f)
            soft_g = near.soft_columns(f)
            g = marginals.columns(soft_g)
            marginals, f, g, strays = self._settle(marginals, f, g, soft_g)
        return f, g, marginals, self._difference(*step) + strays

    def retire(self) -> None:
        """Writes back the finished problems once they are at least half of all."""
        done = self.error <= self.schedule.tolerance
        self.reached = torch.where(done & (self.reached == 0), self.done, self.reached)
        n_done = int(done.sum())
        if n_done == 0 or (n_done < len(done) and n_done * 2 < len(done)):
            return
        self._write_back()
        left = torch.nonzero(~done).squeeze(1)
        keep = self.block.keep(left)
        self.f, self.g, self.a, self.b = map(keep, (self.f, self.g, self.a, self.b))
        self.log_a, self.log_b = keep(self.log_a), keep(self.log_b)
        self.marginals = self.marginals.map(keep)
        self.index, self.error, self.reached, self.mass = (
            vector[left] for vector in (self.index, self.error, self.reached, self.mass)
        )
        self.block = self.block.take(left)
        self.buffer = self.block.buffer()

    def finish(self) -> None:
        """Writes back the remaining problems when the maximum number of sweeps is reached."""
        if len(self.index):
            self.reached = torch.where(self.reached == 0, self.done, self.reached)
            self._write_back()

    def _write_back(self) -> None:
        whole, batch = self.whole, self.block.batch
        whole.f.index_copy_(batch, self.index, self.f)
        whole.g.index_copy_(batch, self.index, self.g)
        whole.error.index_copy_(0, self.index, self.error)
        whole.iterations.index_copy_(0, self.index, self.reached)
        whole.marginals = whole.marginals.write(self.marginals, self.index, batch)

    def _soft_rows(self, g: Tensor, heat: float = 1.0) -> Tensor:
        weight = self.log_b * heat + g
        return self.block.soft_rows(weight, self.buffer, heat)

    def _soft_columns(self, f: Tensor, heat: float = 1.0) -> Tensor:
        weight = self.log_a * heat + f
        return self.block.soft_columns(weight, self.buffer, heat)

    def _difference(self, old: Tensor, new: Tensor, soft: Tensor) -> Tensor:
        return moved(old, new, soft, self.a, self.mass, self.block.point)

    def _settle(
        self, marginals: Balanced, f: Tensor, g: Tensor, soft: Tensor
    ) -> tuple[Balanced, Tensor, Tensor, Tensor]:
        """The result of a sweep, with the moved mass as a share of the mass of a."""
        point = self.block.point
        settled = marginals.settle(f, g, soft, self.a, self.b, point)
        return *settled[:3], settled.moved.squeeze(point) / self.mass


class _Absorbed:
    """A kernel that contains potentials near a loop's current ones, and its soft minima."""

    def __init__(self, loop: _SweepLoop) -> None:
        self.a, self.b, self.buffer = loop.a, loop.b, loop.buffer
        near: tuple[Tensor, Tensor, ProblemBlock | Band] = loop.block.near(loop.f, loop.g)
        self.f, self.g, self.kernel = near

    def soft_rows(self, g: Tensor) -> Tensor:
        return self.f - self.kernel.rows(self.b * (g - self.g).exp(), self.buffer).log()

    def soft_columns(self, f: Tensor) -> Tensor:
        return self.g - self.kernel.columns(self.a * (f - self.f).exp(), self.buffer).log()

    def drift(self, f: Tensor, g: Tensor) -> float:
        """Distance of potentials from the absorbed ones; NaN where one of them is NaN."""
        return float(torch.maximum((f - self.f).abs().amax(), (g - self.g).abs().amax()))
