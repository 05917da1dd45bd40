"""Measures of whether a mechanism works, in [0, 1]; `modalign.core.vital_signs` judges them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def spread(similarity: Tensor) -> float:
    """Deviation of a similarity between different items; 0 where all pairs are equally alike.

    Args:
        similarity: (n, n), in [-1, 1]; the diagonal does not count.

    Example:
        >>> spread(torch.ones(3, 3))
        0.0
    """
    similarity = similarity.detach()
    n = len(similarity)
    others = ~torch.eye(n, dtype=torch.bool, device=similarity.device)
    return float(similarity[others].std(correction=0)) if n > 1 else 0.0


def focus(weights: Tensor) -> float:
    """How far weights are from equal: 1 minus their entropy over its maximum, the mean over rows.

        1 - H(w) / log n

    0 is a plain mean, 1 a choice of one. A plan between n and m points is one row of n m weights
    whose smallest entropy under its marginals is log max(n, m), so that its focus stays below 1.

    Args:
        weights: (..., n), at least 0; each row is normalised.

    Example:
        >>> focus(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        0.5
    """
    n = weights.shape[-1]
    if n < 2:
        return 0.0
    weights = weights.detach()
    shares = weights / weights.sum(-1, keepdim=True)
    entropy = -torch.xlogy(shares, shares).sum(-1)
    return float((1 - entropy / math.log(n)).mean().clamp(0, 1))


def relative_spread(images: Tensor, sources: Tensor) -> float:
    """Spread of the images of points over the spread of the points they are made of.

        sum |y_k - mean y|^2 / sum |x_l - mean x|^2, its root, at most 1

    0 where a plan maps every point onto the same image.

    Args:
        images: (..., n, d).
        sources: (..., m, d).

    Example:
        >>> points = torch.tensor([[0.0], [2.0]])
        >>> relative_spread(points / 4, points)
        0.25
    """
    both = [one.detach() - one.detach().mean(-2, keepdim=True) for one in (images, sources)]
    of_images, of_sources = (one.square().mean() for one in both)
    return float((of_images / of_sources.clamp_min(1e-12)).sqrt().clamp(0, 1))


def norm_shares(parts: Mapping[str, Tensor]) -> dict[str, float]:
    """Share of each part in a sum of vectors, by the mean length of its rows.

    Args:
        parts: by name, (n, d) each, as they enter the sum.

    Example:
        >>> norm_shares({"ids": torch.ones(2, 4), "views": torch.zeros(2, 4)})
        {'ids': 1.0, 'views': 0.0}
    """
    lengths = {name: float(part.detach().norm(dim=-1).mean()) for name, part in parts.items()}
    total = sum(lengths.values()) or 1.0
    return {name: length / total for name, length in lengths.items()}


def order(users: Tensor, items: Tensor, pairs: tuple[Tensor, Tensor], others: Tensor) -> float:
    """How often a pair scores above the same user with another item: the AUC of a space.

    0.5 is chance, 1 a perfect order; ties count one half.

    Args:
        users: vectors, (n_users, d).
        items: vectors in the same space, (n_items, d).
        pairs: rows of users and of items that belong together, (n,) each.
        others: rows of items that do not, (n,).

    Example:
        >>> one = torch.eye(2)
        >>> order(one, one, (torch.tensor([0, 1]), torch.tensor([0, 1])), torch.tensor([1, 0]))
        1.0
    """
    of_users, items = users.detach()[pairs[0]], items.detach()
    positive = torch.linalg.vecdot(of_users, items[pairs[1]])
    negative = torch.linalg.vecdot(of_users, items[others])
    return float(((positive > negative).float() + 0.5 * (positive == negative).float()).mean())
