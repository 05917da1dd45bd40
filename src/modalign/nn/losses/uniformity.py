"""Alignment and uniformity on the sphere, and uniformity calibrated by content similarity.

Alignment draws the two sides of an observed pair together; uniformity is the logarithm of a
mean kernel over all pairs and pushes rows apart. Calibrated uniformity pushes less between rows
with similar content.

All pairs are computed as a Gram matrix in blocks: no temporary of pairs x width exists, and only
the upper half is computed. The gradient is a multiple of one that the forward pass computes while
it holds a block, so that no block is stored or computed twice, and a whole catalogue fits.

Sources: Wang and Isola 2020; Wang et al. 2022 (DirectAU); Zhou et al. 2025 (CM3).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from modalign.nn.rows import wide

BLOCK = 256
"""Number of rows of the Gram matrix computed at a time."""


def alignment(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance of paired directions, `mean |a' - b'|^2 = mean(2 - 2 cos)`.

    Args:
        a: shape (n, d); rows are normalised to unit length.
        b: shape (n, d); rows are normalised to unit length.

    Returns:
        A scalar in [0, 4]: 0 where all pairs coincide, 4 where all are opposite; 0 for n = 0.

    Example:
        >>> alignment(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])).item()
        2.0
    """
    if len(a) == 0:
        return (a.sum() + b.sum()).float()
    difference = functional.normalize(wide(a), dim=-1) - functional.normalize(wide(b), dim=-1)
    return difference.square().sum(-1).mean()


def uniformity(x: Tensor, t: float = 2.0, block: int = BLOCK) -> Tensor:
    """`log mean exp(-t |x_a - x_b|^2)` over the pairs of different rows, as unit vectors.

    Args:
        x: shape (n, d); rows are normalised to unit length.
        t: positive; how fast the kernel decreases.
        block: number of rows computed at a time.

    Returns:
        A scalar in [-2tn/(n-1), 0]: the minimum for a regular simplex, 0 for a single point. 0
        for fewer than two rows.

    Limits:
        n^2 d / 2 multiplications for the value, n^2 d more with a gradient. On a sample the
        logarithm of a mean is biased low: compare equal sample sizes only.

    Example:
        >>> corners = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
        >>> round(uniformity(corners).item(), 5)
        -6.0
    """
    if len(x) < 2:
        return x.sum().float() * 0
    return _log_mean_exp(functional.normalize(wide(x), dim=-1), None, t, 0.0, 1.0, block) - 2 * t


def calibrated_uniformity(
    x: Tensor,
    content: Tensor,
    t: float = 2.0,
    s_min: float = 0.0,
    s_max: float = 1.0,
    block: int = BLOCK,
) -> Tensor:
    """`log mean exp(2 t (cos(x_a, x_b) - s_ab))`: similarity beyond what content explains.

    `s_ab` is the inner product of the content rows, clamped to [s_min, s_max]. With `s = 1`
    it is `uniformity`; a constant `s = c` adds `2 t (1 - c)` and changes no gradient, so only
    the spread of `s` matters. It equals the mean of `exp(-t (|x_a - x_b|^2 - 2 + 2 s_ab))` by the
    law of cosines.

    Args:
        x: shape (n, d); rows are normalised to unit length.
        content: shape (n, c), with unit rows if `s` should be a cosine. Detach it if the content
            must not get a gradient; a clamped pair gives none.
        t: positive; how fast the kernel decreases.
        s_min: minimum of `s`, at least 0.
        s_max: maximum of `s`, at most 1.
        block: number of rows computed at a time.

    Returns:
        A scalar; 0 for fewer than two rows.

    Example:
        >>> corners = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
        >>> round(calibrated_uniformity(corners, torch.eye(3)).item(), 5)
        -2.0
    """
    if len(x) < 2:
        return (x.sum() + content.sum()).float() * 0
    unit = functional.normalize(wide(x), dim=-1)
    return _log_mean_exp(unit, wide(content), t, s_min, s_max, block)


def _log_mean_exp(
    x: Tensor, content: Tensor | None, t: float, s_min: float, s_max: float, block: int
) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return cast(
            Tensor,
            _GramLogMeanExp.apply(x, content, t, s_min, s_max, block),  # type: ignore[no-untyped-call]
        )


class _GramLogMeanExp(torch.autograd.Function):
    """`log mean_{a != b} exp(2t (x_a . x_b - clamp(c_a . c_b)))` over the upper half, blocked.

    With `w` the kernel divided by its sum over ordered pairs, the gradient is
    `4t sum_b w_ab x_b` for `x_a`, and `-4t sum_b w_ab c_b` over unclamped pairs for `c_a`.
    Both are accumulated in the forward pass, relative to the largest exponent so far.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        content: Tensor | None,
        t: float,
        s_min: float,
        s_max: float,
        block: int,
    ) -> Tensor:
        n = len(x)
        wants_x, wants_content = ctx.needs_input_grad[:2]
        of_x = torch.zeros_like(x) if wants_x else None
        of_content = torch.zeros_like(content) if wants_content and content is not None else None
        top, total = x.new_full((), -math.inf), x.new_zeros(())
        for start in range(0, n - 1, block):
            kernel, free = _exponents(x, content, start, block, t, s_min, s_max, wants_content)
            lower, top = top, torch.maximum(top, kernel.amax())
            kernel.sub_(top).exp_()
            shrink = (lower - top).exp()
            height = len(kernel)
            # The square at the left contains its pairs twice, the rest once.
            sums = kernel[:, :height].sum() + 2 * kernel[:, height:].sum()
            total = total * shrink + sums
            if of_x is not None:
                _add_products(of_x.mul_(shrink), kernel, x, start)
            if of_content is not None and content is not None and free is not None:
                _add_products(of_content.mul_(shrink), kernel.mul_(free), content, start)
        factor = 4 * t / total
        ctx.save_for_backward(
            None if of_x is None else of_x.mul_(factor),
            None if of_content is None else of_content.mul_(-factor),
        )
        return top + (total / (n * (n - 1))).log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        of_x, of_content = (None if one is None else grad * one for one in ctx.saved_tensors)
        return of_x, of_content, None, None, None, None


def _exponents(
    x: Tensor,
    content: Tensor | None,
    start: int,
    block: int,
    t: float,
    s_min: float,
    s_max: float,
    wants_free: bool,
) -> tuple[Tensor, Tensor | None]:
    """`2t (cosine - similarity)` of rows from `start` against all from `start` on, minus
    infinity for a row against itself; and the pairs inside the clamp.
    """
    rows = slice(start, start + block)
    free = None
    if content is None:
        similarity, beta = x.new_empty(len(x[rows]), len(x) - start), 0.0
    else:
        similarity, beta = content[rows] @ content[start:].T, -2 * t
        if wants_free:
            free = (similarity >= s_min) & (similarity <= s_max)
        similarity.clamp_(s_min, s_max)
    exponents = similarity.addmm_(x[rows], x[start:].T, beta=beta, alpha=2 * t)
    exponents.diagonal().fill_(-math.inf)
    return exponents, free


def _add_products(out: Tensor, kernel: Tensor, x: Tensor, start: int) -> None:
    """Add `kernel @ x` to the block's rows and its transpose to the rows after it."""
    end = start + len(kernel)
    out[start:end].addmm_(kernel, x[start:])
    out[end:].addmm_(kernel[:, len(kernel) :].T, x[start:end])
