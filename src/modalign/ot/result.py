"""The result of a solver."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

# Exponents are clipped here: two points without weight may have potentials whose sum overflows,
# while no cell with mass has an exponent near this number.
MOST = 60.0


@dataclass(frozen=True, eq=False)
class Transport:
    """A solved batch of entropic problems; the leading dimensions `...` are those of the cost.

    Attributes:
        value: the optimal value, "dual" or "sharp", (...).
        f, g: potentials of rows and columns, in units of the cost, (..., n) and (..., m). Those of
            a balanced problem are determined up to a constant added to f and subtracted from g.
        a, b, reg: the problem's weights and regularisation, reg (...) after any scaling.
        marginal_error: L1 change of the row masses in the last sweep, as a share of the mass of
            a, (...); the error of the columns is at most as large.
        iterations: number of sweeps until the problem was found to have converged, or of all
            sweeps, int64, (...).
        converged: whether the error is at most the tolerance, bool, (...).
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

    def __repr__(self) -> str:
        return f"Transport({_facts(self)})"

    def _repr_html_(self) -> str:
        return as_html(self)

    @cached_property
    def cost(self) -> Tensor:
        """The cost, (..., n, m): as given, or for points on the line computed when first read."""
        return self.make_cost()

    @cached_property
    def plan(self) -> Tensor:
        """`plan_kl = a_k b_l exp((f_k + g_l - C_kl) / reg)`, (..., n, m), computed when first read.

        It has gradients if the solver ran with "implicit" or "unrolled" ones.
        """
        return plan_of(self.cost, self.a, self.b, self.f, self.g, self.reg)

    @cached_property
    def linear_value(self) -> Tensor:
        """`<plan, C>`, (...): the cost of transport without the regularisation."""
        return (self.plan * self.cost).sum((-2, -1))


def numbers(values: Tensor) -> str:
    """A tensor in a few words: its only number, or its shape and range.

    Example:
        >>> numbers(torch.tensor(0.5)), numbers(torch.tensor([1.0, 3.0]))
        ('0.5', '(2,) from 1 to 3')
    """
    values = values.detach()
    if values.numel() == 0:
        return f"{tuple(values.shape)}, empty"
    if values.dim() == 0:
        return f"{values.item():.5g}"
    low, high = values.min().item(), values.max().item()
    return f"{tuple(values.shape)} from {low:.5g} to {high:.5g}"


def as_html(result: object) -> str:
    """A result's `repr` for a notebook."""
    return f"<pre>{html.escape(repr(result))}</pre>"


def _facts(one: Transport) -> str:
    n, total = int(one.converged.sum()), one.converged.numel()
    done = "converged" if n == total else f"{n} of {total} converged"
    sides = f"{one.f.shape[-1]} x {one.g.shape[-1]} points"
    steps = int(one.iterations.max()) if one.iterations.numel() else 0
    return f"value {numbers(one.value)}, {sides}, {done} after {steps} iterations"


def plan_of(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, reg: Tensor) -> Tensor:
    """The plan of potentials, (..., n, m).

    Args:
        cost: (..., n, m).
        a: weights of the rows, (..., n).
        b: weights of the columns, (..., m).
        f: potential of the rows, (..., n).
        g: potential of the columns, (..., m).
        reg: regularisation, (...).
    """
    exponent = (f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / reg[..., None, None]
    return torch.exp(exponent.clamp_max(MOST)) * a.unsqueeze(-1) * b.unsqueeze(-2)
