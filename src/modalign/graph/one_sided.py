"""Propagation over a graph of users and items whose sides may be normalised separately."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from modalign.graph.normalize import power
from modalign.graph.propagate import CSR, SparseGraph

Adjacency = Literal["one-sided", "symmetric"]


class TwoWayGraph(nn.Module):
    """Two constant matrices of a set of edges S: to users from items, and to items from users.

        one-sided    `D_U^-1/2 S`           and  `D_I^-1/2 S^T`
        symmetric    `D_U^-1/2 S D_I^-1/2`  and its transpose

    with D the degrees in S. A row without edges is zero. One-sided rows have length one, not sum
    one: a node becomes `sqrt(degree)` times the mean of its neighbours, so that lengths grow with
    every layer; the symmetric matrix has no singular value above one.

    Args:
        users, items: user and item of each edge, int64, (n,); a repeated edge counts once.
        n_users, n_items: numbers of users and items.
        adjacency: "one-sided" or "symmetric".

    Source: Wei et al., "Multi-modal self-supervised learning for recommendation", WWW 2023,
    section 2 (one-sided); He et al., SIGIR 2020, equation 3 (symmetric).

    Memory: 32 bytes per edge.

    Example:
        >>> graph = TwoWayGraph(torch.tensor([0, 0]), torch.tensor([0, 1]), 1, 2)
        >>> graph.to_users.matmul(torch.tensor([[1.0], [3.0]])).tolist()[0][0]
        2.828427...
        >>> graph.to_items.matmul(torch.tensor([[5.0]])).tolist()
        [[5.0], [5.0]]
    """

    def __init__(
        self,
        users: Tensor,
        items: Tensor,
        n_users: int,
        n_items: int,
        adjacency: Adjacency = "one-sided",
    ) -> None:
        super().__init__()
        ends = users.cpu().numpy(), items.cpu().numpy()
        edges = sp.csr_array((np.ones(len(ends[0])), ends), shape=(n_users, n_items))
        edges.sum_duplicates()
        edges.data[:] = 1.0
        left, right = (power(edges.sum(axis=axis), -0.5) for axis in (1, 0))
        other_left, other_right = left, right
        if adjacency == "one-sided":
            other_left, other_right = np.ones_like(left), np.ones_like(right)
        self.to_users = SparseGraph(sp.diags_array(left) @ edges @ sp.diags_array(other_right))
        self.to_items = SparseGraph(sp.diags_array(right) @ edges.T @ sp.diags_array(other_left))
        self.n_users, self.n_items = n_users, n_items

    @property
    def seen(self) -> CSR:
        """The edges by user; `indptr` and `indices` say which items each user has."""
        return self.to_users.csr

    def propagate(
        self,
        users: Tensor,
        items: Tensor,
        n_layers: int,
        *,
        sequential: bool = False,
        soften_last: bool = False,
        user_rows: Tensor | None = None,
        item_rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mean over layers 0 to `n_layers`, of all nodes or of some rows.

        Layer l + 1 of the users is `to_users @ items_l`, of the items `to_items @ users_l`. The
        last layer is computed only at the requested rows.

        Args:
            users: layer 0 of the users, (n_users, d).
            items: layer 0 of the items, (n_items, d).
            n_layers: number of steps.
            sequential: compute layer l + 1 of the items from layer l + 1 of the users.
            soften_last: apply a softmax over the columns of the last layer.
            user_rows: requested users, int64; None for all.
            item_rows: requested items, int64; None for all.

        Returns:
            Users, (n_users or len(user_rows), d), and items, (n_items or len(item_rows), d).
        """
        sums = [_rows(users, user_rows), _rows(items, item_rows)]
        for layer in range(1, n_layers + 1):
            last = layer == n_layers
            at = (user_rows, item_rows) if last else (None, None)
            new_users = self.to_users.matmul(items, rows=None if sequential else at[0])
            items = self.to_items.matmul(new_users if sequential else users, rows=at[1])
            if sequential and at[0] is not None:
                new_users = new_users[at[0]]
            users = new_users
            if last and soften_last:
                users, items = users.softmax(dim=1), items.softmax(dim=1)
            here = [users, items] if last else [_rows(users, user_rows), _rows(items, item_rows)]
            sums = [total + one for total, one in zip(sums, here, strict=True)]
        return sums[0] / (n_layers + 1), sums[1] / (n_layers + 1)


def _rows(x: Tensor, rows: Tensor | None) -> Tensor:
    return x if rows is None else torch.nn.functional.embedding(rows, x)
