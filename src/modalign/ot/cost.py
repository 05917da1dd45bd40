"""Costs between two sets of points, all pairs at once, and a bound on what moving weights costs."""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.ot import _checks

_DIRECT = 8  # maximum width for which differences are computed pair by pair


def power_cost(x: Tensor, y: Tensor, p: float = 2.0, norm: float = 2.0) -> Tensor:
    """`C_kl = |x_k - y_l|^p / p`, with the p-norm of vectors called `norm`.

    With `p=2` it is half the squared distance, with `p=1` the distance itself. The gradient at
    points that coincide is 0.

    Args:
        x: points, (..., n, d).
        y: points, (..., m, d); leading dimensions broadcast against those of x.
        p: exponent, >= 1.
        norm: p of the norm of a difference of vectors, >= 1, may be infinity.

    Returns:
        Costs, (..., n, m).

    Raises:
        ValueError: widths differ, or an exponent is below 1.

    Limits: Euclidean distances of points with more than 8 columns come from inner products (fast,
    no n x m x d temporary), with an absolute error near the unit of rounding times the squared
    spread of the points; other norms need n x m x d numbers of memory.

    Source: Zhuang et al. 2025 (TARec), equation 9; Feydy et al. 2019 for the factor `1 / p`.

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0]])
        >>> power_cost(x, y).tolist(), power_cost(x, y, p=1).tolist()
        ([[4.5], [2.0]], [[3.0], [2.0]])
    """
    _check_points(x, y)
    _checks.at_least("the exponent p", p, 1.0)
    _checks.at_least("the norm", norm, 1.0)
    if x.shape[-1] == 1 or norm != 2.0:
        distance = _distance(x, y, norm)
        return distance if p == 1.0 else distance.pow(p) / p
    square = squared_distance(x, y)
    return square / 2.0 if p == 2.0 else _power(square, p / 2.0) / p


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """`C_kl = |x_k - y_l|^2`, Euclidean: x (..., n, d) and y (..., m, d) to (..., n, m).

    Example:
        >>> squared_distance(torch.zeros(1, 2), torch.ones(1, 2)).tolist()
        [[2.0]]
    """
    _check_points(x, y)
    if x.shape[-1] <= _DIRECT:
        return (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)
    # Distances do not depend on the origin; inner products lose least accuracy near the mean.
    middle = y.detach().mean(-2, keepdim=True)
    x, y = x - middle, y - middle
    ends = x.square().sum(-1).unsqueeze(-1) + y.square().sum(-1).unsqueeze(-2)
    return (ends - 2.0 * (x @ y.transpose(-1, -2))).clamp_min(0.0)


def cosine_cost(x: Tensor, y: Tensor) -> Tensor:
    """`C_kl = 1 - cos(x_k, y_l)` in [0, 2]: x (..., n, d) and y (..., m, d) to (..., n, m).

    A vector of zeros has no direction: its cosine with anything counts as 0.

    Example:
        >>> cosine_cost(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0], [-3.0, 0.0]]))
        tensor([[1., 2.]])
    """
    _check_points(x, y)
    unit_x = torch.nn.functional.normalize(x, dim=-1)
    unit_y = torch.nn.functional.normalize(y, dim=-1)
    return (1.0 - unit_x @ unit_y.transpose(-1, -2)).clamp(0.0, 2.0)


def _check_points(x: Tensor, y: Tensor) -> None:
    _checks.floats("x", x, 2)
    _checks.floats("y", y, 2, like=x)
    if x.shape[-1] != y.shape[-1]:
        got = f"{x.shape[-1]} and {y.shape[-1]}"
        fix = "project one side first (scalars are points of shape (..., n, 1))"
        raise _checks.refuse("points of one width on both sides", got, fix)


def _distance(x: Tensor, y: Tensor, norm: float) -> Tensor:
    gap = (x.unsqueeze(-2) - y.unsqueeze(-3)).abs()
    if gap.shape[-1] == 1:
        return gap.squeeze(-1)
    if norm == 1.0:
        return gap.sum(-1)
    if norm == float("inf"):
        return gap.amax(-1)
    return _power(gap.pow(norm).sum(-1), 1.0 / norm)


def _power(base: Tensor, exponent: float) -> Tensor:
    """`base^exponent` for base >= 0 with gradient 0 at 0, where that of a root is infinite."""
    if exponent >= 1.0:
        return base.pow(exponent)
    there = base > 0
    return torch.where(there, base.where(there, 1.0).pow(exponent), 0.0)


def variation_bound(distance: Tensor, a: Tensor, b: Tensor, *, p: float = 1.0) -> Tensor:
    """`2^(p-1) sum_k d(x0, x_k)^p |a_k - b_k|`, at least `W_p^p` of a and b on the points x_k.

    Proof: the mass that a and b share stays in place at no cost. The surplus `(a - b)+` moves to
    the deficit `(a - b)-` by their product divided by their common mass, and the cost of each
    move is bounded by `d(x, y)^p <= 2^(p-1) (d(x, x0)^p + d(x0, y)^p)`. With every `d(x0, x)` at
    most r the bound is at most `2^(p-1) r^p |a - b|_1`, so that `W_p` is Hoelder continuous with
    exponent 1 / p in total variation; two masses at the ends of an interval with x0 in the middle
    attain it.

    Args:
        distance: distance of each point to one point x0, (..., n).
        a: weights with the same total as b, (..., n).
        b: weights on the same points, (..., n).
        p: exponent, >= 1.

    Raises:
        ValueError: the totals differ, or p is below 1.

    Source: Villani 2009, theorem 6.15.

    Example:
        >>> import torch
        >>> ends = torch.tensor([0.5, 0.5])  # the points 0 and 1, x0 = 1 / 2
        >>> left, right = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        >>> float(variation_bound(ends, left, right, p=2))  # W_2^2 is 1
        1.0
    """
    _checks.at_least("the exponent p", p, 1.0)
    _checks.same_mass(a, b)
    spread: Tensor = 2.0 ** (p - 1.0) * (distance.pow(p) * (a - b).abs()).sum(-1)
    return spread
