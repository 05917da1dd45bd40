"""One LightGCN channel for ids and one for each modality, fused by a linear map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from modalign.core.view import TrainView
from modalign.graph.one_sided import TwoWayGraph
from modalign.models._shared.content import ContentConfig, Projections, prepared


class Propagated(NamedTuple):
    """Channels of some users and items.

    Attributes:
        users, items: what comes from the users' table, (n, d); the same in every channel.
        user_content, item_content: what comes from the items' tables, (n, (M + 1) d).
    """

    users: Tensor
    items: Tensor
    user_content: Tensor
    item_content: Tensor


def one_sided(
    graph: TwoWayGraph,
    table: Tensor,
    n_layers: int,
    rows: tuple[Tensor | None, Tensor | None],
    from_items: bool,
) -> tuple[Tensor, Tensor]:
    """Mean over layers 0 to `n_layers` of a table of one side, zeros on the other side.

    Every layer is on one side, so that it takes half the products of a propagation of both.

    Args:
        graph: symmetric.
        table: layer 0 of the users, or of the items where `from_items`.
        n_layers: number of steps.
        rows: requested users and items, int64; None for all.
        from_items: the side of the table.

    Returns:
        Vectors of the requested users and items.
    """

    def at(x: Tensor, side: int) -> Tensor:
        chosen = rows[side]
        return x if chosen is None else x[chosen]

    side = int(from_items)
    width, sizes = table.shape[1], (graph.n_users, graph.n_items)
    totals: list[Tensor] = []
    for one, chosen in enumerate(rows):
        totals.append(table.new_zeros(sizes[one] if chosen is None else len(chosen), width))
    totals[side] = at(table, side)
    for layer in range(1, n_layers + 1):
        side = 1 - side
        half = graph.to_items if side else graph.to_users
        if layer == n_layers:
            totals[side] = totals[side] + half.matmul(table, rows=rows[side])
        else:
            table = half.matmul(table)
            totals[side] = totals[side] + at(table, side)
    return totals[0] / (n_layers + 1), totals[1] / (n_layers + 1)


class Channels(nn.Module):
    """Users with one table P and items with a table Q and `N(X_m) W_m + b_m`, propagated and fused.

    Channel c of users and items is `LightGCN([P; Z_c])`, with Z_0 = Q and Z_m the projected
    features. LightGCN is linear: the part of P is computed once for all channels.

    Args:
        config: options of the model.
        view: training data.
        n_layers: number of propagation steps.
    """

    def __init__(self, config: ContentConfig, view: TrainView, n_layers: int) -> None:
        super().__init__()
        size, self.n_layers = config.embedding_size, n_layers
        self.size = size
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_users, size)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_items, size)))
        self.graph = TwoWayGraph(view.users, view.items, view.n_users, view.n_items, "symmetric")
        modalities = prepared(config, view)
        self.names = list(modalities)
        self.content = Projections(modalities, config, view, size)
        width = (1 + len(self.content)) * size
        self.fuse_users, self.fuse_items = nn.Linear(width, size), nn.Linear(width, size)
        for layer in (*self.content.layers, self.fuse_users, self.fuse_items):
            nn.init.xavier_uniform_(layer.weight)

    def propagate(
        self,
        users: Tensor | None = None,
        items: Tensor | None = None,
        graph: TwoWayGraph | None = None,
    ) -> Propagated:
        """The channels of some users and items (None: all), on a given graph or that of all edges.

        Args:
            users: rows, int64.
            items: rows, int64.
            graph: symmetric.
        """
        graph, rows = graph or self.graph, (users, items)
        own = one_sided(graph, self.users, self.n_layers, rows, from_items=False)
        stacked = torch.cat([self.items, *self.content()], dim=1)
        theirs = one_sided(graph, stacked, self.n_layers, rows, from_items=True)
        return Propagated(*own, *theirs)

    def channels(self, part: Propagated, masked: int | None = None) -> tuple[Tensor, Tensor]:
        """All channels side by side, (n, (M + 1) d), of users and items.

        Args:
            part: what `propagate` returned.
            masked: a modality, from 0, whose features count as zero.
        """
        both = []
        for own, content in ((part.users, part.user_content), (part.items, part.item_content)):
            kept = list(content.split(self.size, dim=1))
            if masked is not None:
                kept[masked + 1] = torch.zeros_like(kept[masked + 1])
            both.append(torch.cat([own + one for one in kept], dim=1))
        return both[0], both[1]

    def fuse(self, channels: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Users and items, (n, d) each."""
        return self.fuse_users(channels[0]), self.fuse_items(channels[1])
