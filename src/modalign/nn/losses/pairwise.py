"""Pairwise ranking losses: observed items above unobserved ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bpr_loss(positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """Bayesian personalised ranking: `mean(-log sigmoid(positive - negative))`, a scalar.

    Computed as `softplus(negative - positive)`, which neither overflows nor loses accuracy for
    very different scores, where the logarithm of a sigmoid becomes minus infinity.

    Args:
        positive_scores: scores of observed items, any shape.
        negative_scores: scores of unobserved items, of a shape that broadcasts with
            `positive_scores`; (B, 1) and (B, N) give N negatives to each positive.

    Source: Rendle et al., "BPR", UAI 2009, section 4.1 (BPR-Opt, as a mean over the batch).

    Example:
        >>> round(bpr_loss(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0])).item(), 4)
        0.3709
    """
    return functional.softplus(negative_scores - positive_scores).mean()


def bpr_of_vectors(users: Tensor, items: Tensor) -> Tensor:
    """`bpr_loss` of the inner products of users (B, d) with items (2 B, d), a scalar.

    Args:
        users: one row for each pair.
        items: the B positives, then the B negatives.

    Example:
        >>> users, items = torch.tensor([[1.0]]), torch.tensor([[3.0], [1.0]])
        >>> round(bpr_of_vectors(users, items).item(), 4)
        0.1269
    """
    scores = torch.linalg.vecdot(users, items.view(2, *users.shape))  # (2, B)
    return bpr_loss(scores[0], scores[1])


def l2_penalty(*tensors: Tensor, batch_size: int) -> Tensor:
    """Half the sum of squares of all entries over the batch size, `sum |t|^2 / (2 B)`, a scalar.

    For the embeddings that a batch looked up, including repeats, it is the batch's part of the
    penalty on the parameters; its strength does not depend on the batch size.

    Args:
        tensors: at least one, of any shape.
        batch_size: B, the number of training pairs.

    Raises:
        ValueError: no tensor is given.

    Example:
        >>> l2_penalty(torch.tensor([[3.0, 4.0]]), torch.ones(1, 2), batch_size=1).item()
        13.5
    """
    if not tensors:
        raise ValueError("expected at least one tensor to penalise, got none")
    squares = torch.stack([torch.linalg.vecdot(t.flatten(), t.flatten()) for t in tensors])
    return squares.sum() / (2 * batch_size)
