"""LGMRec: a LightGCN, propagated content, and a few hyperedges that connect all items and users."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from modalign.core.interfaces import Batch
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.models._registry import register
from modalign.models._shared.adjacency import user_means
from modalign.models._shared.content import ContentConfig, Projections, prepared
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.models._shared.unit import unit
from modalign.nn.dropout import kept
from modalign.nn.losses.infonce import info_nce
from modalign.nn.losses.pairwise import bpr_of_vectors
from modalign.nn.noise import gumbel_numbers


class LGMRecConfig(ContentConfig):
    """Options of LGMRec; the defaults are those of the authors for Amazon Baby."""

    n_layers: Annotated[int, Field(ge=0, le=8)] = 2
    """Number of propagation steps of the ids."""
    n_content_layers: Annotated[int, Field(ge=0, le=8)] = 2
    """Number of propagation steps of the content."""
    n_hyper_layers: Annotated[int, Field(ge=1, le=8)] = 1
    """Number of rounds from items to hyperedges and back."""
    n_hyperedges: Annotated[int, Field(ge=1, le=1024)] = 4
    """Hyperedges of each modality."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the memberships in hyperedges that dropout keeps."""
    global_weight: Annotated[float, Field(ge=0)] = 0.3
    """Weight of the hypergraph's unit vectors, alpha in the paper."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Temperature of the memberships and of the contrast."""
    contrast_weight: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of the contrast between the hypergraphs of two modalities, a sum over the batch."""
    reg: Annotated[float, Field(ge=0)] = 1e-6
    """Weight of the lengths of the batch's three matrices of final vectors, divided by its size."""


class _Vectors(NamedTuple):
    """Final vectors at the requested nodes, and the hypergraph's vectors of all by modality."""

    final: Tensor
    users: list[Tensor]
    items: list[Tensor]


@register(
    "lgmrec",
    config=LGMRecConfig,
    toy={
        "embedding_size": 8,
        "n_content_layers": 1,
        "n_hyperedges": 2,
        "keep": 0.8,
        "global_weight": 2.0,
        "learning_rate": 0.02,
        "weight_decay": 3e-3,
        "batch_size": 64,
        "epochs": 15,
    },
    family="multimodal",
    paper="Guo et al., AAAI 2024",
    variants={
        "without-hypergraph": {"global_weight": 0.0, "contrast_weight": 0.0},
        "without-contrast": {"contrast_weight": 0.0},
    },
)
class LGMRec(SeededLoss):
    """A LightGCN, propagated content, and a hypergraph that content defines.

    With A the normalised graph of interactions, R the interactions, D the users' degrees, and N(x)
    unit rows, all in training with Gumbel noise and dropout in the memberships I_m and U_m,

        C = mean of A^l [P; Q],   F_m = X_m W_m,   Z_m = A^K [D^-1 R F_m; F_m]
        I_m = softmax(X_m V_m / T),   U_m = softmax(R X_m V_m / T)
        E_m = I_m' Q_m,   Q_m <- I_m E_m  (from Q_m = the items of C),   J_m = U_m E_m
        H = C + sum_m N(Z_m) + global_weight N(sum_m [J_m; Q_m]),   score(u, i) = <H_u, H_i>

    The loss is BPR, `contrast_weight` times the sum over the batch of -log softmax of cos / T
    between a node's hypergraph vectors in two modalities, against all users or all items, and `reg`
    times the lengths of the matrices of the batch. With more than two modalities the contrast is
    the mean over pairs.

    Limits: all hypergraph vectors are computed in every step, and the contrast compares the batch
    with all users and items, B (n_users + n_items) d multiplications.

    Source: Guo et al., "LGMRec: local and global graph learning for multimodal recommendation",
    AAAI 2024, as in the authors' release after its correction of July 2024.
    """

    needs = ("negatives", "modalities")
    degrees: Tensor

    def __init__(self, config: LGMRecConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: LGMRecConfig = config
        size = config.embedding_size
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_users, size)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_items, size)))
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        self.means = user_means(view)
        degrees = view.user_counts().float()[:, None]
        self.register_buffer("degrees", degrees, persistent=False)
        # W_m and V_m side by side: one product.
        width = size + config.n_hyperedges
        self.content = Projections(prepared(config, view), config, view, width, bias=False)
        for layer in self.content.layers:
            for part in layer.weight.data.split([size, config.n_hyperedges]):
                nn.init.xavier_uniform_(part)

    def _vectors(self, rows: Tensor | None, rng: torch.Generator | None) -> _Vectors:
        config, size = self.config, self.config.embedding_size
        ids = self.graph.propagate(torch.cat([self.users, self.items]), config.n_layers)
        both = [one.split([size, config.n_hyperedges], dim=1) for one in self.content()]
        # The modalities side by side: one propagation.
        content = torch.cat([one for one, _ in both], dim=1)
        start = torch.cat([self.means.matmul(content), content])
        local = self.graph.propagate(start, config.n_content_layers, "last", rows=rows)
        final = ids if rows is None else ids[rows]
        final = final + torch.stack([unit(one) for one in local.split(size, dim=1)]).sum(0)
        of_users, of_items = [], []
        for _, logits in both:
            items = self._memberships(logits, rng)
            users = self._memberships(self.degrees * self.means.matmul(logits), rng)
            table = ids[self.n_users :]
            for _ in range(config.n_hyper_layers):
                edges = items.T @ table
                table = items @ edges
            of_users.append(users @ edges)
            of_items.append(table)
        if config.global_weight:
            whole = torch.cat([torch.stack(side).sum(0) for side in (of_users, of_items)])
            final = final + config.global_weight * unit(whole if rows is None else whole[rows])
        return _Vectors(final, of_users, of_items)

    def _memberships(self, logits: Tensor, rng: torch.Generator | None) -> Tensor:
        """Shares of the hyperedges in each row; noise and dropout with a generator."""
        if rng is None:
            return (logits / self.config.temperature).softmax(1)
        noise = gumbel_numbers(logits.shape, rng).to(logits)
        shares = ((logits + noise) / self.config.temperature).softmax(1)
        gone = 1 - self.config.keep
        return shares * kept(shares.shape, gone, rng).to(shares) if gone else shares

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`bpr`, and `contrast` and `reg` where they have a weight."""
        config, n, index = self.config, len(batch), batch.items()
        rows = torch.cat([batch.users, index + self.n_users])
        vectors = self._vectors(rows, self._rng(phase) if self.training else None)
        parts = {"bpr": bpr_of_vectors(vectors.final[:n], vectors.final[n:])}
        if config.contrast_weight and len(vectors.users) > 1:
            pairs = list(itertools.combinations(range(len(vectors.users)), 2))
            losses = [
                self._contrast(vectors, one, two, batch.users, index[:n]) for one, two in pairs
            ]
            parts["contrast"] = config.contrast_weight * torch.stack(losses).mean()
        if config.reg:
            lengths = torch.stack([torch.linalg.vector_norm(x) for x in vectors.final.split(n)])
            parts["reg"] = config.reg * lengths.sum() / n
        return parts

    def _contrast(
        self, vectors: _Vectors, one: int, two: int, users: Tensor, items: Tensor
    ) -> Tensor:
        """Sum over the batch, without items that lack one of the modalities."""
        there = self.content.present[one, items] & self.content.present[two, items]
        total = vectors.final.new_zeros(())
        for rows, side in ((users, vectors.users), (items[there], vectors.items)):
            if len(rows):
                loss = info_nce(side[one][rows], side[two], self.config.temperature, targets=rows)
                total = total + len(rows) * loss
        return total

    def tables(self) -> tuple[Tensor, Tensor]:
        """Final vectors, with memberships without noise."""
        users, items = self._vectors(None, None).final.split([self.n_users, self.n_items])
        return users, items
