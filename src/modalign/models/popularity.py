"""Popularity: everyone is recommended what most people chose."""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.interfaces import Config, Queries, Recommender, TrainView
from modalign.registry import register


class PopularityConfig(Config):
    """Popularity has no options."""


@register(
    "popularity",
    config=PopularityConfig,
    toy={},
    family="baseline",
    paper="counts of training interactions",
)
class Popularity(Recommender):
    """Ranks items by how many users chose them in training, the same for everyone.

    `score(u, i) = |{v : (v, i) in training}|`, the product of a user vector that is always
    `[1]` and an item vector that is the count. A user never seen is therefore served like
    any other, and a history is not read.

    The floor of every comparison: a model that does not beat it has learnt nothing personal.

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1, 1]), items=torch.tensor([2, 2, 0]))
        >>> model = Popularity(PopularityConfig(), view)
        >>> model.solve(view)
        >>> model.score(Queries(torch.tensor([-1]))).tolist()
        [[1.0, 0.0, 2.0]]
    """

    unseen_users = True

    counts: Tensor

    def __init__(self, config: PopularityConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.register_buffer("counts", torch.zeros(view.n_items))

    def solve(self, view: TrainView) -> None:
        """Count the training interactions of every item."""
        self.counts.copy_(view.item_counts())

    def tables(self) -> tuple[Tensor, Tensor]:
        """Ones (n_users, 1) and counts (n_items, 1)."""
        return self.counts.new_ones(self.n_users, 1), self.counts[:, None]

    def user_vectors(self, queries: Queries) -> Tensor:
        """Ones (B, 1), for seen and unseen users alike."""
        return self.counts.new_ones(len(queries), 1)
