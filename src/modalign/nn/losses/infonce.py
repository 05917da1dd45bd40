"""Contrast of two views of the same rows, and of rows with columns they point to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from modalign.nn.rows import unit_rows


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

    Time and memory: 2 n m d operations and 4 n m bytes forward, about three times that with
    the gradient.

    Example:
        >>> x = torch.eye(4)
        >>> round(info_nce(x, torch.ones(4, 4), 0.2).item(), 6)  # log 4
        1.386294
    """
    # The temperature divides the smaller of the two sides, not the matrix.
    logits = (unit_rows(a) / temperature) @ unit_rows(b).T
    own = torch.arange(len(a), device=a.device) if targets is None else targets
    if forbidden is not None:
        logits = logits.index_put(forbidden, logits.new_tensor(-torch.inf))
    loss = functional.cross_entropy(logits, own)
    if symmetric:
        loss = 0.5 * (loss + functional.cross_entropy(logits.T, own))
    return loss


__all__ = ["info_nce"]
