"""Transport between two sets of interest factors, and their fusion, for BANDVAE.

The equations B11 to B18 that comments cite are listed in `docs/models/bandvae.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from modalign import ot

PlanKind = Literal["sinkhorn", "norm", "diag", "uniform"]
PlanOn = Literal["centred", "factors"]
CostScale = Literal["none", "user_std"]
Activation = Literal["tanh", "relu"]


@dataclass(frozen=True)
class Alignment:
    """A plan between the rating factors and the factors of a content modality.

    Attributes:
        cost: squared distances S, (B, K, J).
        plan: pi, (B, K, J), of mass 1.
        ratings: rating factors mapped onto content, (B, K, d).
        content: content factors mapped onto ratings, (B, J, d).
    """

    cost: Tensor
    plan: Tensor
    ratings: Tensor
    content: Tensor

    @property
    def transport(self) -> Tensor:
        """Transport cost `sum_kj pi_kj S_kj` (B15) of each user, (B,)."""
        return (self.plan * self.cost).sum((1, 2))


def plan_cost(ratings: Tensor, content: Tensor, on: PlanOn = "centred") -> Tensor:
    """The cost that a plan is computed from, (..., K, J).

    Factors of one user have a large part in common (their mean has a length near 1), so that the
    squared distances of all pairs are nearly equal and any plan is nearly uniform. "centred"
    compares what distinguishes the factors: each side minus its mean over the user's factors, of
    length 1, in [0, 4]. "factors" is S as the paper prints it (B11).

    Args:
        ratings: (..., K, d).
        content: (..., J, d).
        on: see above.
    """
    if on == "centred" and ratings.shape[-2] > 1 and content.shape[-2] > 1:
        ratings, content = (
            normalize(side - side.mean(-2, keepdim=True), dim=-1) for side in (ratings, content)
        )
    # Formed pair by pair, as the exported form of the model is too: there are few factors.
    return (ratings.unsqueeze(-2) - content.unsqueeze(-3)).square().sum(-1)


def align(
    ratings: Tensor,
    content: Tensor,
    *,
    kind: PlanKind = "sinkhorn",
    reg: float = 1.0,
    iterations: int = 50,
    cost_scale: CostScale = "none",
    plan_gradient: bool = False,
    plan_on: PlanOn = "factors",
) -> Alignment:
    """Plan (B12 or a variant) and barycentric maps (B16) of two sets of factors of each user.

    Args:
        ratings: factors of length 1, (B, K, d).
        content: factors of length 1, (B, J, d).
        kind: "sinkhorn" solves the entropic problem with uniform marginals; "norm" is one
            softmax of `-S / reg` over all cells; "diag" pairs factor k with k (K = J);
            "uniform" gives all pairs the same mass.
        reg: epsilon, above 0; in units of the squared distance S, which is at most 4.
        iterations: maximum number of Sinkhorn iterations.
        cost_scale: "user_std" divides S by its standard deviation within a user before reg
            applies.
        plan_gradient: let gradients pass through the plan; the maps have gradients either way.
        plan_on: see `plan_cost`; the cost in the loss is S of the factors in any case.

    Source: Tran and Lauw 2025; the cost and the plan are B11 to B14, the maps B16.

    Example:
        >>> both = torch.eye(2).unsqueeze(0)
        >>> found = align(both, both, reg=0.1)
        >>> found.plan.round(decimals=3).tolist()
        [[[0.5, 0.0], [0.0, 0.5]]]
    """
    cost = ot.squared_distance(ratings, content)
    seen = cost if plan_on == "factors" else plan_cost(ratings, content, plan_on)
    plan = _plan(seen, kind, reg, iterations, cost_scale, plan_gradient)
    if not plan_gradient:
        plan = plan.detach()
    return Alignment(
        cost,
        plan,
        ot.barycentric_projection(plan, content),
        ot.barycentric_projection(plan.transpose(1, 2), ratings),
    )


def _plan(
    cost: Tensor, kind: PlanKind, reg: float, iterations: int, scale: CostScale, through: bool
) -> Tensor:
    n_rows, n_columns = cost.shape[1:]
    if kind == "diag":
        diagonal = torch.eye(n_rows, dtype=cost.dtype, device=cost.device) / n_rows
        return diagonal.expand(len(cost), -1, -1)
    if kind == "uniform":
        return cost.new_full(cost.shape, 1 / (n_rows * n_columns))
    scaled = cost if through else cost.detach()
    if scale == "user_std" and n_rows * n_columns > 1:
        scaled = scaled / scaled.detach().flatten(1).std(1).clamp_min(1e-12)[:, None, None]
    if kind == "norm":
        return torch.softmax(-scaled.flatten(1) / reg, dim=1).view(-1, n_rows, n_columns)
    return ot.sinkhorn(
        scaled,
        reg=reg,
        tolerance=1e-6,
        max_iterations=iterations,
        gradient="unrolled" if through else "envelope",
    ).plan


class Gate(nn.Module):
    """`softplus(zeta([z; mapped z]))`: how much of a mapped factor is added (B17, B18).

    Args:
        size: width d of a factor.
        activation: activation of the hidden layer of zeta, which is d / 2 wide.
    """

    def __init__(self, size: int, activation: Activation = "tanh") -> None:
        super().__init__()
        hidden = max(1, size // 2)
        self.first = nn.Linear(2 * size, hidden)
        self.second = nn.Linear(hidden, 1)
        nn.init.xavier_normal_(self.first.weight)
        nn.init.xavier_normal_(self.second.weight)
        nn.init.zeros_(self.first.bias)
        nn.init.zeros_(self.second.bias)
        self.activation = activation

    def forward(self, factors: Tensor, mapped: Tensor) -> Tensor:
        """Gates (B, K, 1) of factors (B, K, d) and their mapped factors (B, K, d)."""
        inner = self.first(torch.cat([factors, mapped], dim=2))
        inner = torch.tanh(inner) if self.activation == "tanh" else torch.relu(inner)
        return softplus(self.second(inner))
