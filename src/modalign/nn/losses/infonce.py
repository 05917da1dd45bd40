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
"""Below it `exp(-1 / T)` would vanish beside `exp(1 / T)` in single precision."""


def info_nce(
    a: Tensor,
    b: Tensor,
    temperature: float,
    *,
    targets: Tensor | None = None,
    forbidden: tuple[Tensor, Tensor] | None = None,
    weights: Tensor | None = None,
    symmetric: bool = False,
) -> Tensor:
    """Cross entropy of matching each row of a with its row of b by the cosine, a scalar >= 0.

        - mean over i of log( exp(cos(a_i, b_t(i)) / T) / sum_j exp(cos(a_i, b_j) / T) )

    The sum over j includes the positive t(i). The loss is `log m` where all cosines are equal;
    `log m` minus the loss is a lower bound of the mutual information of the two views. Minimising
    it draws a_i and b_t(i) together.

    Args:
        a: (n, d).
        b: (m, d).
        temperature: T > 0.
        targets: t, int64, (n,); t(i) = i by default, which needs m = n.
        forbidden: indices i and j, int64 (k,) each, of pairs left out of the sums; no positive
            may be among them.
        weights: of the rows of a in the mean, (n,), such as how often each is in a batch; equal
            by default. Not together with `forbidden`.
        symmetric: take the mean of this loss and of the loss with a and b exchanged. Only for the
            default targets and without `forbidden`.

    Raises:
        ValueError: `symmetric` together with `targets` or `forbidden`, `weights` together with
            `forbidden`, or a and b of different lengths without `targets`.

    Source: van den Oord et al., "Representation learning with contrastive predictive coding",
    2018, equation 4.

    Time and memory: 6 n m d operations and 1,024 m bytes, including the gradient; with
    `forbidden` the whole matrix of n m similarities is held.

    Example:
        >>> x = torch.eye(4)
        >>> round(info_nce(x, torch.ones(4, 4), 0.2).item(), 6)  # log 4
        1.386294
    """
    if symmetric and (targets is not None or forbidden is not None):
        raise ValueError(
            "expected symmetric=True without targets and forbidden, which it does not support; "
            "call info_nce once for each direction"
        )
    if targets is None and len(a) != len(b):
        raise ValueError(f"expected as many rows in b as in a ({len(a)}), got {len(b)}")
    if weights is not None and forbidden is not None:
        raise ValueError("expected weights without forbidden, which it does not support")
    if symmetric:
        first = info_nce(a, b, temperature, weights=weights)
        return 0.5 * (first + info_nce(b, a, temperature, weights=weights))
    # The temperature divides the smaller of the two sides, not the matrix.
    rows, columns = unit_rows(a) / temperature, unit_rows(b)
    own = torch.arange(len(a), device=a.device) if targets is None else targets
    if forbidden is None and temperature >= LEAST_TEMPERATURE:
        loss: Tensor = _Contrast.apply(rows, columns, own, 1 / temperature, weights)  # type: ignore[no-untyped-call]
        return loss
    logits = rows @ columns.T
    if forbidden is not None:
        logits = logits.index_put(forbidden, logits.new_tensor(-torch.inf))
    if weights is None:
        return functional.cross_entropy(logits, own)
    each = functional.cross_entropy(logits, own, reduction="none")
    return (weights * each).sum() / weights.sum()


class _Contrast(torch.autograd.Function):
    """Mean cross entropy of `rows @ columns.T`, no entry of which exceeds `highest`; weighted
    by `weights` if there are any.

    A block of rows is multiplied and exponentiated once, and adds its part of both gradients while
    it is in the cache; the matrix of all pairs is never held. The backward pass multiplies the
    stored gradients by that of the loss.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        own: Tensor,
        highest: float,
        weights: Tensor | None,
    ) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            return _Contrast._both(ctx, rows.detach(), columns.detach(), own, highest, weights)

    @staticmethod
    def _both(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        own: Tensor,
        highest: float,
        weights: Tensor | None,
    ) -> Tensor:
        n = len(rows)
        shares = None if weights is None else (weights / weights.sum()).to(rows.dtype) * n
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
            each = sums.log() + highest - positive
            share /= sums
            share.scatter_add_(1, places[:, None], share.new_full((len(block), 1), -1.0))
            if shares is not None:
                each *= shares[at, None]
                share *= shares[at, None]
            total += each.sum()
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
        return of_rows * factor, of_columns * factor, None, None, None


__all__ = ["info_nce"]
