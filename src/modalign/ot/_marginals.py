"""Constraints on the plan's marginals, as maps on soft minima.

Potentials here are divided by reg: `plan_kl = a_k b_l exp(f_k + g_l - C_kl / reg)`. A block
step that maximises the dual in f alone first takes the soft minimum
`s_k = -log sum_l b_l exp(g_l - C_kl / reg)`, then applies the map of the marginal's penalty.
Vectors are (n, B) or (B, n); numbers per problem keep the dimension of points with length 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


class Settled(NamedTuple):
    """The result of a sweep; `moved` is the mass that the last step added or removed."""

    marginals: Balanced
    f: Tensor
    g: Tensor
    moved: Tensor


@dataclass(frozen=True)
class Balanced:
    """Both marginals are met exactly."""

    def rows(self, soft: Tensor) -> Tensor:
        """The best f for the soft minimum over columns."""
        return soft

    def columns(self, soft: Tensor) -> Tensor:
        """The best g for the soft minimum over rows."""
        return soft

    def settle(
        self, f: Tensor, g: Tensor, soft: Tensor, a: Tensor, b: Tensor, point: int
    ) -> Settled:
        """The last step of a sweep, in a constant shared by f and g; `soft` gave g."""
        return Settled(self, f, g, torch.zeros_like(f.narrow(point, 0, 1)))

    def map(self, change: Callable[[Tensor], Tensor]) -> Balanced:
        """The same constraint with every tensor changed: another layout or fewer problems."""
        return self

    def write(self, part: Balanced, index: Tensor, batch: int) -> Balanced:
        """The same constraint with the final levels of some problems."""
        return self

    def slopes(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of a and b in the dual's linear part, (B, n) and (B, m)."""
        return f, g

    def offset(self, like: Tensor) -> Tensor:
        """The remaining term of the dual's linear part, (B,)."""
        return torch.zeros_like(like)

    def damping(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of the two maps at the solution, (B, n) and (B, m)."""
        return torch.ones_like(f), torch.ones_like(g)


@dataclass(frozen=True)
class Relaxed(Balanced):
    """`penalty_a KL(plan 1 | a) + penalty_b KL(plan^T 1 | b)` instead of equalities.

    `inverse_a` and `inverse_b` are reg / penalty; 0 is a marginal met exactly.
    """

    inverse_a: Tensor
    inverse_b: Tensor

    def rows(self, soft: Tensor) -> Tensor:
        return soft / (1.0 + self.inverse_a)

    def columns(self, soft: Tensor) -> Tensor:
        return soft / (1.0 + self.inverse_b)

    def settle(
        self, f: Tensor, g: Tensor, soft: Tensor, a: Tensor, b: Tensor, point: int
    ) -> Settled:
        # The best constant to move from g to f, in closed form; without it the error of the total
        # mass falls only by the factor (1 + reg / penalty)^-2 per sweep.
        left = torch.logsumexp(log_of(a) - f * self.inverse_a, point, keepdim=True)
        right = torch.logsumexp(log_of(b) - g * self.inverse_b, point, keepdim=True)
        shift = (left - right) / (self.inverse_a + self.inverse_b)
        return Settled(self, f + shift, g - shift, torch.zeros_like(shift))

    def map(self, change: Callable[[Tensor], Tensor]) -> Relaxed:
        return Relaxed(change(self.inverse_a), change(self.inverse_b))

    def slopes(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        return _bent(f, self.inverse_a), _bent(g, self.inverse_b)

    def damping(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        left, right = 1.0 / (1.0 + self.inverse_a), 1.0 / (1.0 + self.inverse_b)
        return left.expand_as(f), right.expand_as(g)


@dataclass(frozen=True)
class Partial(Balanced):
    """Marginals of at most a and b with the total `mass`; `level` bounds f from above."""

    mass: Tensor
    level: Tensor

    def rows(self, soft: Tensor) -> Tensor:
        return torch.minimum(soft, self.level)

    def columns(self, soft: Tensor) -> Tensor:
        return soft.clamp_max(0.0)

    def settle(
        self, f: Tensor, g: Tensor, soft: Tensor, a: Tensor, b: Tensor, point: int
    ) -> Settled:
        # Column l has the mass b_l exp(g_l - soft_l); f and its bound shift to correct the total.
        total = torch.logsumexp(log_of(b) + g - soft, point, keepdim=True)
        shift = self.mass.log() - total
        moved = (self.mass - total.exp()).abs()
        return Settled(replace(self, level=self.level + shift), f + shift, g, moved)

    def map(self, change: Callable[[Tensor], Tensor]) -> Partial:
        return Partial(change(self.mass), change(self.level))

    def write(self, part: Balanced, index: Tensor, batch: int) -> Partial:
        assert isinstance(part, Partial)
        return replace(self, level=self.level.index_copy(batch, index, part.level))

    def slopes(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        return f - self.level, g

    def offset(self, like: Tensor) -> Tensor:
        return (self.mass * self.level).sum(-1)

    def damping(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        return (f < self.level).to(f.dtype), (g < 0.0).to(g.dtype)


def log_of(weights: Tensor) -> Tensor:
    """The logarithm, -inf at 0 with a gradient of 0 there instead of NaN."""
    there = weights > 0
    return torch.where(there, weights.where(there, 1.0).log(), -float("inf"))


def _bent(potential: Tensor, inverse: Tensor) -> Tensor:
    """`(1 - exp(-i f)) / i`, which tends to f as i tends to 0."""
    safe = inverse.where(inverse > 0, 1.0)
    return torch.where(inverse > 0, -torch.expm1(-potential * safe) / safe, potential)
