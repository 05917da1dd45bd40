"""Maps from plans: where the mass of a point goes on average."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modalign.ot import _checks
from modalign.ot.cost import power_cost


def barycentric_projection(plan: Tensor, y: Tensor) -> Tensor:
    """`T(x_k) = sum_l plan_kl y_l / sum_l plan_kl`, (..., n, d): in the convex hull of y.

    Gradients reach the points and, if it has any, the plan. A row without mass, such as a point
    that a partial plan leaves out, has no image and gets zeros.

    Args:
        plan: masses >= 0, (..., n, m); transpose it for the map of the columns.
        y: points, (..., m, d).

    Raises:
        ValueError: the numbers of points or the types differ.

    Example:
        >>> plan = torch.tensor([[0.5, 0.0], [0.25, 0.25]])
        >>> barycentric_projection(plan, torch.tensor([[0.0], [4.0]])).tolist()
        [[0.0], [2.0]]
    """
    _checks.floats("plan", plan, 2)
    _checks.floats("y", y, 2, like=plan)
    if plan.shape[-1] != y.shape[-2]:
        expected = f"{plan.shape[-1]} points, one for each column of the plan"
        raise _checks.refuse(expected, f"{y.shape[-2]}", "transpose the plan to map the other way")
    mass = plan.sum(-1, keepdim=True)
    return (plan @ y) / mass.where(mass > 0, 1.0)


def entropic_map(
    x: Tensor,
    y: Tensor,
    g: Tensor,
    b: Tensor,
    reg: float | Tensor,
    cost: Callable[[Tensor, Tensor], Tensor] = power_cost,
) -> Tensor:
    """The barycentric map of a solved problem at any points, including new ones, (..., q, d).

    `T(x) = sum_l w_l y_l` with `w_l` proportional to `b_l exp((g_l - C(x, y_l)) / reg)`. At the
    rows of the problem it is their barycentric projection; elsewhere it is a smooth extension.
    Differentiable in x, y and g.

    Args:
        x: points to map, (..., q, d).
        y: points of the problem's columns, (..., m, d).
        g: potential of the columns, (..., m).
        b: weights of the columns, (..., m).
        reg: the problem's regularisation, a number or (...).
        cost: the problem's cost between points.

    Source: Pooladian and Niles-Weed 2021, "Entropic estimation of optimal transport maps".

    Example:
        >>> y = torch.tensor([[0.0], [1.0]])
        >>> half = torch.tensor([0.5, 0.5])
        >>> entropic_map(torch.tensor([[0.5]]), y, torch.zeros(2), half, 0.1).tolist()
        [[0.5]]
    """
    cells = cost(x, y)
    size = torch.as_tensor(reg, dtype=cells.dtype, device=cells.device)
    shares = torch.softmax(
        b.log().unsqueeze(-2) + (g.unsqueeze(-2) - cells) / size[..., None, None], -1
    )
    return shares @ y
