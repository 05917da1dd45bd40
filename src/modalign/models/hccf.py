"""HCCF: propagation over the interactions beside propagation over learned hyperedges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from modalign.core.interfaces import Batch, TrainedConfig
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.propagate import transposing
from modalign.models._registry import register
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.nn.dropout import kept
from modalign.nn.losses.infonce import info_nce
from modalign.nn.losses.pairwise import bpr_loss


class HCCFConfig(TrainedConfig):
    """Options of HCCF; the defaults are those of the authors' PyTorch release for MovieLens-10M."""

    embedding_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Width of a user or item vector."""
    n_layers: Annotated[int, Field(ge=1, le=8)] = 2
    """Number of layers."""
    n_hyperedges: Annotated[int, Field(ge=1, le=4096)] = 128
    """Hyperedges of the users, and of the items."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the graph's entries, and of the hyperedges' entries, dropped in each layer."""
    contrast_weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the contrast, lambda_1 in the paper."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Temperature of the contrast, tau in the paper."""
    reg: Annotated[float, Field(ge=0)] = 1e-6
    """Weight of the squares of all parameters, in every step."""
    batch_size: Annotated[int, Field(ge=1)] = 4096
    """Training pairs in a training step."""


@register(
    "hccf",
    config=HCCFConfig,
    toy={
        "embedding_size": 16,
        "n_hyperedges": 8,
        "contrast_weight": 0.1,
        "learning_rate": 0.01,
        "epochs": 30,
        "batch_size": 128,
    },
    family="collaborative",
    paper="Xia et al., SIGIR 2022",
    variants={
        "without-contrast": {"contrast_weight": 0.0},
        "without-dropout": {"dropout": 0.0},
    },
)
class HCCF(SeededLoss):
    """Each layer adds neighbours in the graph and fellows in learned hyperedges of the same side.

    With E the free vectors, A the normalised graph of training interactions, W a matrix of d x q
    for each side, H = E W its nodes' shares in q hyperedges, and F_0 = E,

        Z_l = A F_{l-1},   G_l = H (H' F_{l-1}) within each side,   F_l = Z_l + G_l
        F = F_0 + ... + F_L,   score(u, i) = <F_u, F_i>
        loss = BPR(F) + lambda_1 sum_l (C_l(users) + C_l(items)) + reg sum of squares
        C_l = - mean over v of log( exp(cos(Z_v, G_v) / tau) / sum_w exp(cos(Z_v, G_w) / tau) )

    C_l takes the different users, then the different chosen items, of the batch; Z has no
    gradient there. In training entries of A and of H are dropped, anew in every layer.

    Limits: G sums over all nodes of a side, so that vectors grow with their number. A step takes
    4 (n_users + n_items) q d operations in each layer. An item without training interactions has
    neighbours by hyperedges only, computed from its random row.

    Source: Xia et al., "Hypergraph contrastive collaborative filtering", SIGIR 2022, with the
    layers and losses of the authors' PyTorch release.

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1]), items=torch.tensor([0, 1]))
        >>> model = HCCF(HCCFConfig(embedding_size=4), view)
        >>> [tuple(table.shape) for table in model.tables()]
        [(2, 4), (3, 4)]
    """

    needs = ("negatives",)
    order: Tensor

    def __init__(self, config: HCCFConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: HCCFConfig = config
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        self.register_buffer("order", transposing(self.graph.csr), persistent=False)
        size, edges = config.embedding_size, config.n_hyperedges

        def table(n: int, width: int) -> nn.Parameter:
            return nn.Parameter(nn.init.xavier_uniform_(torch.empty(n, width)))

        self.users, self.items = table(view.n_users, size), table(view.n_items, size)
        self.user_edges, self.item_edges = table(size, edges), table(size, edges)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`bpr`; `contrast` and `reg` where they have a weight."""
        config = self.config
        rng = self._rng(phase) if self.training and config.dropout else None
        final, layers = self.propagated(rng)
        user = final.index_select(0, batch.users)
        both = final.index_select(0, batch.items() + self.n_users).view(2, len(batch), -1)
        parts = {"bpr": bpr_loss(*torch.linalg.vecdot(user, both))}
        if config.contrast_weight:
            positives = cast(Tensor, batch.positives)
            sides = batch.users.unique(), positives.unique() + self.n_users
            found = [
                info_nce(
                    local.detach().index_select(0, rows),
                    fellows.index_select(0, rows),
                    config.temperature,
                )
                for local, fellows in layers
                for rows in sides
            ]
            parts["contrast"] = config.contrast_weight * torch.stack(found).sum()
        if config.reg:
            squares = [one.square().sum() for one in self.parameters()]
            parts["reg"] = config.reg * torch.stack(squares).sum()
        return parts

    def propagated(
        self, rng: torch.Generator | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Final vectors of all nodes, and Z and G of each layer.

        Args:
            rng: of the dropout; None for none.
        """
        shares = self.users @ self.user_edges, self.items @ self.item_edges
        now = total = torch.cat([self.users, self.items])
        layers = []
        for _ in range(self.config.n_layers):
            local = self._neighbours(now, rng)
            fellows = torch.cat(
                [
                    _through(self._dropped(share, rng), side)
                    for share, side in zip(
                        shares, now.split([self.n_users, self.n_items]), strict=True
                    )
                ]
            )
            layers.append((local, fellows))
            now = local + fellows
            total = total + now
        return total, layers

    def _neighbours(self, x: Tensor, rng: torch.Generator | None) -> Tensor:
        if rng is None:
            return self.graph.matmul(x)
        factors = kept(self.graph.values.shape, self.config.dropout, rng)
        return self.graph.masked(factors, self.order).matmul(x)

    def _dropped(self, shares: Tensor, rng: torch.Generator | None) -> Tensor:
        return shares if rng is None else shares * kept(shares.shape, self.config.dropout, rng)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Final vectors of all users and items, without dropout."""
        users, items = self.propagated()[0].split([self.n_users, self.n_items])
        return users, items


def _through(shares: Tensor, x: Tensor) -> Tensor:
    """`H (H' x)`, without the matrix of nodes x nodes."""
    return shares @ (shares.T @ x)
