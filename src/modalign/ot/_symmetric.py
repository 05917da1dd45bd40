"""The problem of a set with itself: one potential, found by an averaged fixed point.

`f <- (f + s(f)) / 2` with the soft minimum s halves the error where alternating sweeps oscillate:
it needs some 15 sweeps instead of hundreds. Potentials are divided by reg.
Source: Knight, Ruiz and Ucar 2014; Feydy et al. 2019, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.ot._block import ProblemBlock
from modalign.ot._line import Band, Line
from modalign.ot._marginals import Balanced
from modalign.ot._solve import Schedule, SolverState, moved

_DRIFT = 12.0


def solve_symmetric(
    block: ProblemBlock | Line, a: Tensor, f: Tensor, marginals: Balanced, schedule: Schedule
) -> SolverState:
    """The potential of a block of symmetric problems, as both f and g of a state."""
    n_problems = len(a)
    a, f, turned = block.turn(a), block.turn(f), marginals.map(block.turn)
    mass, buffer = a.sum(block.point), block.buffer()
    log_a, base = a.log(), f
    kernel: ProblemBlock | Band | None = None
    error = a.new_full((n_problems,), float("inf"))
    reached = torch.zeros(n_problems, dtype=torch.int64, device=a.device)
    sweeps = 0
    while sweeps < schedule.max_iterations and not bool((error <= schedule.tolerance).all()):
        if kernel is None or not float((f - base).abs().amax()) < _DRIFT:
            kernel, base = block.kernel(f, f), f
        soft = base - kernel.rows(a * (f - base).exp(), buffer).log()
        if not bool(soft.isfinite().all()):
            soft = block.soft_rows(log_a + f, buffer)
        best = turned.rows(soft)
        error = moved(f, best, soft, a, mass, block.point)
        f = 0.5 * (f + best)
        sweeps += 1
        reached = torch.where((error <= schedule.tolerance) & (reached == 0), sweeps, reached)
    reached = torch.where(reached == 0, sweeps, reached)
    f = block.turn(f)
    return SolverState(f, f, marginals, error, reached)
