"""Losses of variational autoencoders over a user's items."""

from __future__ import annotations

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
