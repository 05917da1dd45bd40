"""Losses of variational autoencoders over a user's items."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from modalign.nn.bags import Bags


def multinomial_loss(scores: Tensor, bags: Bags) -> Tensor:
    """`-sum_i y_i log softmax(s)_i` of each row, (n,): a sum over items, not a mean.

    Computed as `(sum_i y_i) logsumexp(s) - sum_i y_i s_i`, which reads only the entries of y.

    Args:
        scores: unnormalised log-probabilities, (n, width).
        bags: the rows y.

    Source: Liang et al., "Variational autoencoders for collaborative filtering", WWW 2018.

    Example:
        >>> import torch
        >>> bags = Bags(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.ones(2),
        ...             torch.tensor([0, 2]), 4)
        >>> round(multinomial_loss(torch.zeros(1, 4), bags).item(), 4)  # 2 log 4
        2.7726
    """
    at = bags.rows * scores.shape[1] + bags.columns
    observed = scores.reshape(-1).index_select(0, at)
    return bags.total(bags.weights) * scores.logsumexp(1) - bags.total(bags.weights * observed)


def normal_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """`KL(N(mean, diag exp(log_variance)) | N(0, I))`, summed over the last dimension.

    Source: Kingma and Welling, "Auto-encoding variational Bayes", 2014, appendix B.

    Example:
        >>> import torch
        >>> normal_kl(torch.tensor([1.0, 0.0]), torch.zeros(2)).item()
        0.5
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(-1)


def composite_divergence(
    drawn: Tensor,
    posterior: tuple[Tensor, Tensor],
    earlier: tuple[Tensor, Tensor],
    shares: Sequence[float],
) -> Tensor:
    """`sum_j (log q(z_j) - log p(z_j))` of one draw from q, a divergence from a mixed prior, (n,).

        p(z_j) = w_1 N(z_j; 0, 1) + w_2 N(z_j; earlier posterior) + w_3 N(z_j; 0, e^10)

    Args:
        drawn: z, (n, d), drawn from q.
        posterior: mean and log-variance of q, (n, d) each.
        earlier: mean and log-variance of the earlier posterior, (n, d) each.
        shares: w; a component with share 0 is left out.

    Source: Shenbin et al., "RecVAE", WSDM 2020, with the authors' code: components are mixed in
    each coordinate, not as whole vectors.

    Example:
        >>> import torch
        >>> zeros = torch.zeros(1, 2)
        >>> found = composite_divergence(zeros, (zeros, zeros), (zeros, zeros), (0.4, 0.6, 0.0))
        >>> abs(found.item()) < 1e-6  # the prior is q itself
        True
    """
    zeros = torch.zeros_like(drawn)
    parts = [(zeros, zeros), earlier, (zeros, zeros + 10.0)]
    mixed = [
        _log_normal(drawn, *part) + math.log(share)
        for share, part in zip(shares, parts, strict=True)
        if share
    ]
    own = _log_normal(drawn, *posterior)
    return (own - torch.logsumexp(torch.stack(mixed), dim=0)).sum(-1)


def _log_normal(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    square = (x - mean).square() * (-log_variance).exp()
    return -0.5 * (square + log_variance + math.log(2 * math.pi))


def scale_kl(log_precision: Tensor) -> Tensor:
    """`1/2 sum (o + exp(-o) - 1)`: the KL of `N(m, s^2 diag exp(-o))` and `N(0, s^2 I)`.

    The term `|m|^2 / (2 s^2)` is omitted: it is constant for means of fixed length.

    Args:
        log_precision: o, (..., d).

    Example:
        >>> import torch
        >>> scale_kl(torch.zeros(3)).item()
        0.0
    """
    return 0.5 * (log_precision + (-log_precision).exp() - 1.0).sum(-1)


def annealed(updates: Tensor, steps: int, cap: float) -> Tensor:
    """`min(cap, updates / steps)`: the weight of a KL term after a number of optimizer updates.

    Args:
        updates: number of updates, an integer scalar.
        steps: number of updates after which the weight would be 1.
        cap: maximum of the weight.

    Example:
        >>> import torch
        >>> round(annealed(torch.tensor(30), 100, 0.2).item(), 4)
        0.2
    """
    return (updates / steps).clamp(max=cap)
