"""MGCN: item ids gated by content, smoothed in each modality, fused with a LightGCN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from modalign.core.interfaces import Batch, Phase, Recommender
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.one_sided import TwoWayGraph
from modalign.graph.propagate import SparseGraph
from modalign.models._registry import register
from modalign.models._shared.content import ContentConfig, Projections, prepared
from modalign.models._shared.item_graph import cosine_graph
from modalign.models._shared.presence import present_softmax, user_presence
from modalign.models._shared.schedule import decaying
from modalign.nn.losses.infonce import info_nce
from modalign.nn.losses.pairwise import bpr_of_vectors, l2_penalty


class Fused(ContentConfig):
    """Options of the loss that MGCN and SMORE share."""

    contrast_weight: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the contrast between the fused content and the LightGCN, for users and items."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Temperature of the contrast."""
    reg: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of half the squared final vectors of the batch."""
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = 0.96
    """Factor of the learning rate in 50 epochs."""


class MGCNConfig(Fused):
    """Options of MGCN; the defaults are those of the authors' release."""

    n_layers: Annotated[int, Field(ge=0, le=8)] = 2
    """Number of propagation steps between users and items."""
    n_item_layers: Annotated[int, Field(ge=1, le=8)] = 1
    """Number of steps over the item graph of each modality."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """Neighbours of an item in each modality, the item itself included."""


@register(
    "mgcn",
    config=MGCNConfig,
    toy={
        "embedding_size": 8,
        "k": 5,
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 20,
    },
    family="multimodal",
    paper="Yu et al., MM 2023",
    variants={"without-contrast": {"contrast_weight": 0.0}},
)
class MGCN(Recommender):
    """Item ids gated by content, smoothed in each modality, and fused with a LightGCN.

    With A the normalised graph of interactions, R its block of users x items, S_m the graph of
    the k most similar items in modality m, s the logistic function and (x) the elementwise product,

        C = mean of A^l [P; Q]
        G_m = Q (x) s((X_m W_m + b_m) A_m + a_m),   Y_m = S_m^n G_m,   Z_m = [R Y_m; Y_m]
        w = softmax over m of q . tanh(Z_m T + t),  Z = sum_m w_m Z_m
        K = (Z + sum_m s(C B_m + b'_m) (x) (Z_m - Z)) / (M + 1),       H = C + K

    and score(u, i) = <H_u, H_i>. The loss is BPR(H), `reg` times half the squared vectors of the
    batch, and `contrast_weight` times the InfoNCE from K to C of the items and users of the batch.
    The softmax runs over the modalities that the item has, or that one of the user's items has.

    Limits: a step projects all items, n_items (sum of feature widths) d multiplications, since a
    vector needs those of the neighbours.

    Source: Yu et al., "Multi-view graph convolutional network for multimedia recommendation", ACM
    Multimedia 2023; the divisor M + 1 is that of the authors' release.
    """

    needs = ("negatives", "modalities")
    there: Tensor

    def __init__(self, config: MGCNConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: MGCNConfig = config
        size = config.embedding_size
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_users, size)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_items, size)))
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        pairs = (view.users, view.items, view.n_users, view.n_items)
        self.to_users = TwoWayGraph(*pairs, adjacency="symmetric").to_users
        modalities = prepared(config, view)
        smooth = [SparseGraph(cosine_graph(one, config.k)) for one in modalities.values()]
        self.item_graphs = cast("Sequence[SparseGraph]", nn.ModuleList(smooth))
        self.content = Projections(modalities, config, view, size)
        names = list(modalities)
        self.gates = cast("Sequence[nn.Linear]", linears(len(names), size))
        self.shares = cast("Sequence[nn.Linear]", linears(len(names), size))
        self.attention = None
        if len(names) > 1:
            last = nn.Linear(size, 1, bias=False)
            self.attention = nn.Sequential(nn.Linear(size, size), nn.Tanh(), last)
        there = torch.cat([user_presence(view, self.content.present), self.content.present], dim=1)
        self.register_buffer("there", there, persistent=False)  # (M, n_users + n_items)

    def phases(self) -> Sequence[Phase]:
        """One phase whose learning rate decays."""
        return decaying(self, self.config, self.config.learning_rate_decay)

    def _vectors(self, users: Tensor | None, items: Tensor | None) -> tuple[Tensor, Tensor]:
        """C and K at some users and items (None: all), users first."""
        free = torch.cat([self.users, self.items])
        if users is None or items is None:
            rows, there = None, self.there
        else:
            rows = torch.cat([users, items + self.n_users])
            there = self.there[:, rows]
        ids = self.graph.propagate(free, self.config.n_layers, rows=rows)
        views = []
        for content, gate, graph in zip(self.content(), self.gates, self.item_graphs, strict=True):
            table = self.items * gate(content).sigmoid()
            for _ in range(self.config.n_item_layers):
                table = graph.matmul(table)
            of_items = table if items is None else table[items]
            views.append(torch.cat([self.to_users.matmul(table, rows=users), of_items]))
        if self.attention is None:
            shared = views[0]
        else:
            weights = present_softmax(torch.stack([self.attention(z) for z in views]), there)
            shared = (weights * torch.stack(views)).sum(0)
        kept = [g(ids).sigmoid() * (z - shared) for g, z in zip(self.shares, views, strict=True)]
        return ids, (shared + torch.stack(kept).sum(0)) / (len(views) + 1)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`bpr`, `reg` and `contrast`, the last two where they have a weight."""
        ids, content = self._vectors(batch.users, batch.items())
        return fused_losses(ids, content, self.config)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Final vectors of all users and items."""
        ids, content = self._vectors(None, None)
        users, items = (ids + content).split([self.n_users, self.n_items])
        return users, items


def linears(count: int, size: int) -> nn.ModuleList:
    """`count` linear layers from `size` to `size` numbers."""
    return nn.ModuleList(nn.Linear(size, size) for _ in range(count))


def fused_losses(ids: Tensor, content: Tensor, config: Fused) -> dict[str, Tensor]:
    """`bpr` of H = C + K, `reg` of H and `contrast` from K to C, the last two with a weight.

    Args:
        ids: C of the users, positives and negatives of a batch, (3 B, d).
        content: K of the same nodes, (3 B, d).
        config: weights and temperature.
    """
    final, n = ids + content, len(ids) // 3
    parts = {"bpr": bpr_of_vectors(final[:n], final[n:])}
    if config.reg:
        parts["reg"] = config.reg * l2_penalty(final, batch_size=n)
    if config.contrast_weight:
        both = [
            info_nce(content[at], ids[at], config.temperature)
            for at in (slice(0, n), slice(n, 2 * n))
        ]
        parts["contrast"] = config.contrast_weight * (both[0] + both[1])
    return parts
