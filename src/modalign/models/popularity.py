"""Popularity: every user gets the items that most users chose."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from modalign.core.interfaces import Config, Queries, Recommender
from modalign.core.view import TrainView
from modalign.models._registry import register


class PopularityConfig(Config):
    """Options of popularity."""

    damping: Annotated[float, Field(ge=0, le=1)] = 0.0
    """A user with n items counts with weight `n ** -damping`: 0 counts interactions, 1 gives every
    user the same total weight."""


@register(
    "popularity",
    config=PopularityConfig,
    toy={},
    family="baseline",
    paper="counts of training interactions",
)
class Popularity(Recommender):
    """Ranks items by how many users chose them in training, the same for all users.

    `score(u, i)` is the sum of `n_v ** -damping` over the users v who chose i in training, with
    n_v the number of their items; without damping, the count of interactions. It is the product
    of a user vector that is always `[1]` and an item vector that is the sum, so it needs no
    history and scores users that training never saw.

    It is the baseline of every comparison: a model that does not beat it has learned nothing about
    single users.

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1, 1]), items=torch.tensor([2, 2, 0]))
        >>> model = Popularity(PopularityConfig(), view)
        >>> model.solve(view)
        >>> model.score(Queries(torch.tensor([-1]))).tolist()
        [[1.0, 0.0, 2.0]]
    """

    unseen_users = True

    votes: Tensor

    def __init__(self, config: PopularityConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: PopularityConfig = config
        self.register_buffer("votes", torch.zeros(view.n_items))

    def solve(self, view: TrainView) -> None:
        """Add up the votes for every item."""
        weight = view.user_counts().double().clamp(min=1) ** -self.config.damping
        votes = torch.zeros(view.n_items, dtype=torch.float64)
        # In float64, so that items with the same number of interactions are equal to the last bit.
        self.votes.copy_(votes.index_add_(0, view.items, weight[view.users]))

    def tables(self) -> tuple[Tensor, Tensor]:
        """Ones (n_users, 1) and votes (n_items, 1)."""
        return self.votes.new_ones(self.n_users, 1), self.votes[:, None]

    def user_vectors(self, queries: Queries) -> Tensor:
        """Ones (B, 1), for seen and unseen users alike."""
        return self.votes.new_ones(len(queries), 1)
