"""A model's explanation of a user's interests: the protocol, and numbers computed from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tops:
    """The best entries of each factor, best first.

    Attributes:
        index: rows of items, or columns of words, int64, (B, K, n).
        scores: their log-scores, (B, K, n).
    """

    index: Tensor
    scores: Tensor


@dataclass(frozen=True)
class ContentInterests:
    """Factors of a content modality and their alignment with the factors of the ratings.

    Attributes:
        modality: its name.
        tops: the best words of each factor.
        words: the name of each column, or None where columns have none.
        examples: an item that stands for each column, int64, (n_words,).
        plan: transport between rating factors and these, (B, K, J), of mass 1.
        rating_gates: weight of the mapped content in a rating factor, (B, K); or None.
        content_gates: weight of the mapped ratings in a content factor, (B, J); or None.
    """

    modality: str
    tops: Tops
    words: tuple[str, ...] | None
    examples: Tensor
    plan: Tensor
    rating_gates: Tensor | None
    content_gates: Tensor | None


@dataclass(frozen=True)
class Explanation:
    """Interests of a block of B users, as a model sees them.

    Attributes:
        ratings: the best items of each rating factor.
        content: by modality.
    """

    ratings: Tops
    content: tuple[ContentInterests, ...]


@runtime_checkable
class Explains(Protocol):
    """A recommender that explains the interests of users."""

    def explain(self, history: Tensor, n_items: int = 10, n_words: int = 10) -> Explanation:
        """Interests of users.

        Args:
            history: sparse CSR (B, n_items) of ones.
            n_items: number of best items of a rating factor.
            n_words: number of best words of a content factor.
        """
        ...


def plan_entropy(plan: Tensor) -> Tensor:
    """Entropy of a plan's rows and columns in bits, each scaled to sum 1, (B,).

    The mean over rows and the mean over columns, averaged: log2 of the number of factors where
    the plan is uniform and square, 0 where it pairs them.

    Args:
        plan: not negative, (B, K, J).

    Source: Tran and Lauw 2025, table 4; that it uses bits and conditional shares follows from its
    values.

    Example:
        >>> [plan_entropy(plan[None]).item() for plan in (torch.ones(4, 4) / 16, torch.eye(4))]
        [2.0, 0.0]
    """
    means = []
    for dim in (2, 1):
        share = plan / plan.sum(dim, keepdim=True).clamp_min(1e-30)
        means.append(torch.special.entr(share).sum(dim).mean(1))
    bits: Tensor = (means[0] + means[1]) / (2.0 * math.log(2.0))
    return bits


def overlap(tops: Tensor) -> Tensor:
    """Share of best entries that two factors have in common, averaged over pairs, (B,).

    With one factor it is 1.

    Args:
        tops: different entries of each factor, int64, (B, J, n).

    Source: Tran and Lauw 2025, table 5, with ten words.

    Example:
        >>> overlap(torch.tensor([[[1, 2], [2, 3], [4, 5]]])).item()  # 1/2, 0 and 0
        0.1666666716337204
    """
    n_factors, n = tops.shape[1:]
    if n_factors == 1:
        return torch.ones(len(tops), device=tops.device)
    left, right = torch.triu_indices(n_factors, n_factors, 1, device=tops.device)
    same = tops[:, left].unsqueeze(3) == tops[:, right].unsqueeze(2)  # (B, pairs, n, n)
    return same.sum((2, 3)).float().mean(1) / n
