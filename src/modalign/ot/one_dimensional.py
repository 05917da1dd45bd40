"""Exact transport on the line by sorting, optimal for every convex cost.

Convex costs of a difference are submodular, so that equal quantiles of the two sides are matched:
no regularisation, no iterations, O((n + m) log(n + m)).
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.ot import _checks


def sorted_transport(
    x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, p: float = 2.0
) -> Tensor:
    """`W_p^p / p = min_plan <plan, |x - y|^p / p>` of weighted points on the line, (...).

    With equal sizes and uniform weights it is the mean of `|x_(k) - y_(k)|^p / p` over order
    statistics; otherwise the integral of the same difference of quantile functions. Gradients
    reach x, y, a and b; those of the weights are exact potentials, determined up to a constant.
    With `p=1` no gradient exceeds the weight of its point, and points that coincide get 0.

    Args:
        x: points, (..., n).
        y: points, (..., m); leading dimensions broadcast.
        a: weights of x, >= 0, (..., n); uniform with mass 1 by default.
        b: weights of y with the same total, (..., m); uniform by default.
        p: exponent, >= 1.

    Raises:
        ValueError: types, shapes, weights or the exponent do not fit.

    Source: Zhuang et al. 2025 (TARec), equation 8; Santambrogio 2015, chapter 2.

    Example:
        >>> x, y = torch.tensor([3.0, 0.0, 1.0]), torch.tensor([2.0, 0.5, 2.5])
        >>> float(sorted_transport(x, y, p=2))
        0.25
        >>> weights = torch.tensor([0.3, 0.2, 0.5]), torch.tensor([0.4, 0.6])
        >>> round(float(sorted_transport(x, y[:2], *weights, p=1)), 6)
        0.7
    """
    _check_line(x, y, p)
    if a is None and b is None and x.shape[-1] == y.shape[-1]:
        return _power(x.sort(-1).values - y.sort(-1).values, p).mean(-1)
    (x, _, a), (y, _, b) = _in_order(x, y, a, b)
    rows, columns, masses = _segments(a, b)
    return (masses * _power(x.gather(-1, rows) - y.gather(-1, columns), p)).sum(-1)


def sorted_plan(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """The plan that matches equal quantiles, (..., n, m), without a gradient.

    It is optimal for every convex cost.

    Args:
        x: points, (..., n).
        y: points, (..., m); leading dimensions broadcast.
        a: weights of x, >= 0, (..., n); uniform with mass 1 by default.
        b: weights of y with the same total, (..., m); uniform by default.

    Raises:
        ValueError: types, shapes or weights do not fit.

    Example:
        >>> sorted_plan(torch.tensor([1.0, 0.0]), torch.tensor([5.0, 9.0])).tolist()
        [[0.0, 0.5], [0.5, 0.0]]
    """
    _check_line(x, y, 1.0)
    with torch.no_grad():
        (x, row_of, a), (y, column_of, b) = _in_order(x, y, a, b)
        rows, columns, masses = _segments(a, b)
        cells = row_of.gather(-1, rows) * y.shape[-1] + column_of.gather(-1, columns)
        flat = x.new_zeros(*x.shape[:-1], x.shape[-1] * y.shape[-1])
        flat.scatter_add_(-1, cells, masses)
        return flat.reshape(*x.shape, y.shape[-1])


def sorted_potentials(
    x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, p: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Exact potentials: `f_k + g_l <= C_kl` everywhere, `<a, f> + <b, g> = W_p^p / p`.

    They follow the staircase of the sorted plan: where it passes from row k to k + 1 in column
    l, `f_(k+1) - f_k = C_(k+1)l - C_kl`, and where it passes from column l to l + 1 in row k,
    `g_(l+1) - g_l = C_k(l+1) - C_kl`. Where it steps through a corner both paths around it are
    optimal and their mean is taken. From these potentials `sinkhorn` needs few sweeps. Computed
    in float64, without gradients.

    Args:
        x: points, (..., n).
        y: points, (..., m); leading dimensions broadcast.
        a: weights of x, >= 0, (..., n); uniform with mass 1 by default.
        b: weights of y with the same total, (..., m); uniform by default.
        p: exponent, >= 1.

    Raises:
        ValueError: types, shapes, weights or the exponent do not fit.

    Returns:
        f (..., n) and g (..., m), with f of the smallest x equal to 0.

    Example:
        >>> f, g = sorted_potentials(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 3.0]), p=2)
        >>> f.tolist(), g.tolist()
        ([0.0, -2.0], [0.5, 2.5])
    """
    _check_line(x, y, p)
    kind = x.dtype
    with torch.no_grad():
        (x, row_of, a), (y, column_of, b) = _in_order(x, y, a, b)
        x, y, a, b = x.double(), y.double(), a.double().cumsum(-1), b.double().cumsum(-1)
        f = _climb(x, y, a, b, p)
        g = _climb(y, x, b, a, p) + _power(x[..., :1] - y[..., :1], p)
        return (
            torch.empty_like(f).scatter_(-1, row_of, f).to(kind),
            torch.empty_like(g).scatter_(-1, column_of, g).to(kind),
        )


def _climb(x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: float) -> Tensor:
    """The potential of one side, 0 at its first point; a and b are cumulative weights."""
    ends = a[..., :-1].contiguous()
    below, above = x[..., :-1], x[..., 1:]
    last = y.shape[-1] - 1
    rise = torch.zeros_like(below)
    for right in (False, True):
        beside = y.gather(-1, torch.searchsorted(b, ends, right=right).clamp_max_(last))
        rise += 0.5 * (_power(above - beside, p) - _power(below - beside, p))
    return torch.nn.functional.pad(rise.cumsum(-1), (1, 0))


def _power(gap: Tensor, p: float) -> Tensor:
    if p == 2.0:
        return 0.5 * gap.square()
    return gap.abs() if p == 1.0 else gap.abs().pow(p) / p


def _segments(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and masses of the sorted plan's staircase, each (..., n + m)."""
    ends_a, ends_b = a.cumsum(-1), b.cumsum(-1)
    ends = torch.cat([ends_a, ends_b], -1).sort(-1).values
    masses = ends.diff(dim=-1, prepend=torch.zeros_like(ends[..., :1]))
    middles = (ends - 0.5 * masses).detach()
    rows = torch.searchsorted(ends_a.detach(), middles).clamp_max_(a.shape[-1] - 1)
    columns = torch.searchsorted(ends_b.detach(), middles).clamp_max_(b.shape[-1] - 1)
    return rows, columns, masses


_Ordered = tuple[Tensor, Tensor, Tensor]


def _in_order(
    x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None
) -> tuple[_Ordered, _Ordered]:
    """Each side's points, ascending, with their positions and weights, in the full shape."""
    lead = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    weight_a = _checks.weights("a", a, x, (*lead, x.shape[-1]))
    weight_b = _checks.weights("b", b, y, (*lead, y.shape[-1]))
    _checks.same_mass(weight_a, weight_b)
    return _ascending(x.expand(weight_a.shape), weight_a), _ascending(
        y.expand(weight_b.shape), weight_b
    )


def _ascending(points: Tensor, weights: Tensor) -> _Ordered:
    values, places = points.sort(-1)
    return values, places, weights.gather(-1, places)


def _check_line(x: Tensor, y: Tensor, p: float) -> None:
    _checks.floats("x", x, 1)
    _checks.floats("y", y, 1, like=x)
    if 0 in (x.shape[-1], y.shape[-1]):
        raise _checks.refuse(
            "points on both sides", f"{x.shape[-1]} and {y.shape[-1]}", "drop empty sets"
        )
    _checks.finite("x", x)
    _checks.finite("y", y)
    _checks.at_least("the exponent p", p, 1.0)
