"""The items with the highest scores for each user, as a graph that changes during training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modalign.graph.one_sided import TwoWayGraph
from modalign.graph.propagate import CSR, cut

NOBODY = -1
BLOCK = 1024


def best_items(
    users: Tensor,
    items: Tensor,
    k: int,
    seen: CSR,
    *,
    seen_score: float | None = -torch.inf,
    rows: Tensor | None = None,
    block: int = BLOCK,
) -> Tensor:
    """The k items with the largest `<u, i>` for each user, (n, k) int64.

    A user with a zero vector has no items. If fewer than k items are available the rest is -1.

    Args:
        users: (n, d).
        items: (n_items, d).
        k: number of items, may be 0.
        seen: items of all users by row.
        seen_score: score of an item that the user has; minus infinity excludes it.
        rows: rows of `seen` that belong to the users, int64 (n,); None for all rows.
        block: number of users processed at a time; memory is about 8 block n_items bytes.

    Example:
        >>> seen = TwoWayGraph(torch.tensor([0]), torch.tensor([1]), 1, 3).seen
        >>> best_items(torch.tensor([[1.0]]), torch.tensor([[1.0], [9.0], [2.0]]), 2, seen).tolist()
        [[2, 0]]
    """
    n = len(users)
    chosen = torch.full((n, k), NOBODY, dtype=torch.int64, device=users.device)
    width = min(k, len(items))
    for start in range(0, n if width else 0, block):
        end = min(start + block, n)
        mine = seen.rows(start, end) if rows is None else cut(seen, rows[start:end])
        scores = users[start:end] @ items.T
        if seen_score is not None:
            scores[mine.owner, mine.indices.long()] = seen_score
        values, columns = scores.topk(width, dim=1)
        columns[values == -torch.inf] = NOBODY
        chosen[start:end, :width] = columns
    chosen[(users == 0).all(dim=1)] = NOBODY
    return chosen


class PreferenceGraph(nn.Module):
    """A graph of k items for each user that changes during training, initially another graph.

    The chosen items are a saved buffer, so that a loaded model gives the same scores; the matrices
    are computed from it.

    Shapes:
        neighbours (n_users, k) int32, -1 for none.

    Args:
        observed: the initial graph.
        k: number of items per user.
    """

    neighbours: Tensor
    chosen: Tensor

    def __init__(self, observed: TwoWayGraph, k: int) -> None:
        super().__init__()
        self.n_users, self.n_items, self.k = observed.n_users, observed.n_items, k
        empty = torch.full((observed.n_users, k), NOBODY, dtype=torch.int32)
        self.register_buffer("neighbours", empty)
        self.register_buffer("chosen", torch.zeros((), dtype=torch.bool))
        self._edges: TwoWayGraph | None = None

    def set(self, neighbours: Tensor) -> None:
        """Replace the chosen items by these, (n_users, k)."""
        self.neighbours.copy_(neighbours)
        self.chosen.fill_(True)
        self._build()

    def reset(self) -> None:
        """Return to the observed graph."""
        self.neighbours.fill_(NOBODY)
        self.chosen.fill_(False)
        self._edges = None

    def graph(self, observed: TwoWayGraph) -> TwoWayGraph:
        """The current graph: `observed` until items have been chosen."""
        return observed if self._edges is None else self._edges

    def _build(self) -> None:
        users, places = torch.nonzero(self.neighbours >= 0, as_tuple=True)
        items = self.neighbours[users, places].long()
        graph = TwoWayGraph(users, items, self.n_users, self.n_items)
        self._edges = graph.to(self.neighbours.device)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._edges = None
        if bool(self.chosen):
            self._build()
