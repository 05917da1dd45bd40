"""Vectors of users and items that are smoothed over the graph, which several models train."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from modalign.core.interfaces import Recommender, TrainedConfig
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph


class PropagatedVectors(Recommender):
    """Free vectors of all nodes, and the mean of them after 0 to `n_layers` steps.

    Args:
        config: options of the model.
        view: training data.
        n_layers: number of propagation steps; 0 leaves the free vectors.
        draw: fills a table of initial vectors, first that of users, then that of items.
    """

    def __init__(
        self,
        config: TrainedConfig,
        view: TrainView,
        n_layers: int,
        draw: Callable[[Tensor], Tensor] = nn.init.xavier_uniform_,
    ) -> None:
        super().__init__(config, view)
        self.n_layers = n_layers
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        self.embeddings = nn.Parameter(
            torch.empty(view.n_users + view.n_items, config.embedding_size)
        )
        draw(self.embeddings[: view.n_users])
        draw(self.embeddings[view.n_users :])

    def at(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Final vectors of rows of users and of items, and their layer-0 vectors, (B + C, d)."""
        rows = torch.cat([users, items + self.n_users])
        final, first = self.graph.propagate_at(self.embeddings, self.n_layers, rows)
        of_users, of_items = final.split([len(users), len(items)])
        return of_users, of_items, first

    def ego_tables(self) -> tuple[Tensor, Tensor]:
        """Layer-0 vectors of users and items."""
        users, items = self.embeddings.split([self.n_users, self.n_items])
        return users, items

    def tables(self) -> tuple[Tensor, Tensor]:
        """Propagated vectors of all users and items, not divided by their lengths."""
        final = self.graph.propagate(self.embeddings, self.n_layers)
        users, items = final.split([self.n_users, self.n_items])
        return users, items
