"""Interactions as matrices and as edges whose weights are computed in each step."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.normalize import normalise
from modalign.graph.propagate import SparseGraph
from modalign.nn.bags import Bags


def user_means(view: TrainView) -> SparseGraph:
    """The matrix of users x items whose product is the mean over a user's training items.

    Example:
        >>> view = TrainView(2, 2, torch.tensor([0, 0]), torch.tensor([0, 1]))
        >>> user_means(view).matmul(torch.tensor([[1.0], [3.0]])).tolist()
        [[2.0], [0.0]]
    """
    pairs = view.users.cpu().numpy(), view.items.cpu().numpy()
    ones = sp.csr_array((np.ones(len(pairs[0])), pairs), shape=(view.n_users, view.n_items))
    return SparseGraph(normalise(ones, "row"))


class InteractionEdges(nn.Module):
    """The interactions by user and by item, for weights that have a gradient.

    Numbers of edges are in the order of `by_user` (by user, then item); `[order]` brings them into
    that of `by_item` (by item, then user).

    Example:
        >>> view = TrainView(2, 2, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]))
        >>> edges = InteractionEdges(view)
        >>> torch.tensor([10, 20, 30])[edges.order].tolist()
        [10, 30, 20]
    """

    users: Tensor
    items: Tensor
    order: Tensor
    starts: Tensor
    item_starts: Tensor

    def __init__(self, view: TrainView) -> None:
        super().__init__()
        graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        users, items = graph.edges()
        self.n_users, self.n_items = view.n_users, view.n_items
        named = {
            "users": users,
            "items": items,
            "order": torch.argsort(items, stable=True),
            "starts": _starts(users, view.n_users),
            "item_starts": _starts(items, view.n_items),
        }
        for name, values in named.items():
            self.register_buffer(name, values, persistent=False)

    @property
    def by_user(self) -> Bags:
        """The items of each user."""
        ones = torch.ones_like(self.users, dtype=torch.float32)
        return Bags(self.users, self.items, ones, self.starts, self.n_items)

    @property
    def by_item(self) -> Bags:
        """The users of each item."""
        users, items = self.users[self.order], self.items[self.order]
        ones = torch.ones_like(users, dtype=torch.float32)
        return Bags(items, users, ones, self.item_starts, self.n_users)


def _starts(rows: Tensor, n: int) -> Tensor:
    counts = torch.bincount(rows, minlength=n)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
