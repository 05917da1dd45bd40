"""Theoretical bounds on transport costs."""

from __future__ import annotations

from torch import Tensor

from modalign.ot import _checks


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
