"""Contrast of two views of the same rows, and of rows with columns they point to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from modalign.nn.rows import unit_rows

BLOCK = 256
"""Rows whose similarities are held at a time."""

LEAST_TEMPERATURE = 0.04
"""Below it a similarity of -1 would vanish beside one of 1 in single precision."""


def info_nce(
    a: Tensor,
    b: Tensor,
    temperature: float,
    *,
    targets: Tensor | None = None,
    forbidden: tuple[Tensor, Tensor] | None = None,
    symmetric: bool = False,
) -> Tensor:
    """How well each row of a picks its own row of b by the cosine, a scalar >= 0.

        - mean over i of log( exp(cos(a_i, b_t(i)) / T) / sum_j exp(cos(a_i, b_j) / T) )

    The sum has the positive in it. It is `log n` where all cosines are equal; `log n` minus it
    bounds the mutual information of the two views from below. Minimising it draws a_i and
    b_t(i) together.

    Args:
        a: (n, d).
        b: (m, d).
        temperature: T > 0.
        targets: t, int64, (n,); by default t(i) = i, with m = n.
        forbidden: places i and j, int64 (k,) each, left out of the sums; must not hold a
            positive.
        symmetric: the mean of this and of the same with a and b exchanged; needs the default
            targets.

    Source: van den Oord et al., "Representation learning with contrastive predictive coding",
    2018, equation 4.

    Time and memory: 6 n m d operations and 1,024 m bytes, the gradient included; with
    `forbidden` the whole matrix of n m similarities is held.

    Example:
        >>> x = torch.eye(4)
        >>> round(info_nce(x, torch.ones(4, 4), 0.2).item(), 6)  # log 4
        1.386294
    """
    if symmetric:
        return 0.5 * (info_nce(a, b, temperature) + info_nce(b, a, temperature))
    # The temperature divides the smaller of the two sides, not the matrix.
    rows, columns = unit_rows(a) / temperature, unit_rows(b)
    own = torch.arange(len(a), device=a.device) if targets is None else targets
    if forbidden is None and temperature >= LEAST_TEMPERATURE:
        loss: Tensor = _Contrast.apply(rows, columns, own, 1 / temperature)  # type: ignore[no-untyped-call]
        return loss
    logits = rows @ columns.T
    if forbidden is not None:
        logits = logits.index_put(forbidden, logits.new_tensor(-torch.inf))
    return functional.cross_entropy(logits, own)


class _Contrast(torch.autograd.Function):
    """Mean cross entropy of `rows @ columns.T`, no entry of which exceeds `highest`.

    A block of rows is multiplied, exponentiated once and gives its part of both gradients while
    it is in the cache; the matrix of all pairs is never held. The gradients wait, times one, for
    that of the loss.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, own: Tensor, highest: float) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            return _Contrast._both(ctx, rows.detach(), columns.detach(), own, highest)

    @staticmethod
    def _both(ctx: Any, rows: Tensor, columns: Tensor, own: Tensor, highest: float) -> Tensor:
        n = len(rows)
        of_rows, of_columns = torch.empty_like(rows), torch.zeros_like(columns)
        total = rows.new_zeros(())
        for start in range(0, n, BLOCK):
            at = slice(start, start + BLOCK)
            block, places = rows[at], own[at]
            share = block @ columns.T
            positive = share.gather(1, places[:, None])
            share -= highest
            share.exp_()
            sums = share.sum(1, keepdim=True)
            total += (sums.log() + highest - positive).sum()
            share /= sums
            share.scatter_add_(1, places[:, None], share.new_full((len(block), 1), -1.0))
            torch.mm(share, columns, out=of_rows[at])
            of_columns.addmm_(share.T, block)
        ctx.save_for_backward(of_rows, of_columns)
        ctx.n = n
        return total / n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_rows, of_columns = ctx.saved_tensors
        factor = gradients[0] / ctx.n
        return of_rows * factor, of_columns * factor, None, None


__all__ = ["info_nce"]
