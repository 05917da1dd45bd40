"""What a solver hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

# Two points without weight may have potentials that overflow together; no cell that carries mass
# comes near this exponent.
MOST = 60.0


@dataclass(frozen=True, eq=False)
class Transport:
    """A solved batch of entropic problems; the leading dimensions `...` are those of the cost.

    Attributes:
        value: the optimal value of the kind asked for, (...).
        f, g: potentials of rows and columns, in units of the cost, (..., n) and (..., m). Of a
            balanced problem they are free up to a constant added to one and taken from the other.
        a, b, reg: the problem's weights and regularisation, reg (...) after any scaling.
        marginal_error: what the last sweep still moved of the row masses, as an L1 distance and
            a share of the mass of a; columns hold at least as well. (...)
        iterations: sweeps after which each problem was seen to be done, or all, int64, (...).
        converged: whether the error came down to the tolerance, bool, (...).
    """

    value: Tensor
    f: Tensor
    g: Tensor
    a: Tensor
    b: Tensor
    reg: Tensor
    marginal_error: Tensor
    iterations: Tensor
    converged: Tensor
    make_cost: Callable[[], Tensor] = field(repr=False)

    @cached_property
    def cost(self) -> Tensor:
        """The cost, (..., n, m): as given, or made when first read for points on the line."""
        return self.make_cost()

    @cached_property
    def plan(self) -> Tensor:
        """`plan_kl = a_k b_l exp((f_k + g_l - C_kl) / reg)`, (..., n, m), made when first read.

        It carries gradients where the solver was asked for "implicit" or "unrolled" ones.
        """
        return plan_of(self.cost, self.a, self.b, self.f, self.g, self.reg)

    @cached_property
    def linear_value(self) -> Tensor:
        """`<plan, C>`, (...): what moving costs, without the regularisation."""
        return (self.plan * self.cost).sum((-2, -1))


def plan_of(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, reg: Tensor) -> Tensor:
    """The plan that potentials stand for."""
    exponent = (f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / reg[..., None, None]
    return torch.exp(exponent.clamp_max(MOST)) * a.unsqueeze(-1) * b.unsqueeze(-2)
