"""SelfCF: each vector predicts that of the other side under noise, without negatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import Batch, TrainedConfig
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.propagate import MaskedGraph, transposing
from modalign.models._registry import register
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.nn.dropout import kept

LARGEST_DRAW = 0.95
"""A drawn share of dropped entries is at most this, or the rest would be multiplied by too much."""


class SelfCFConfig(TrainedConfig):
    """Options of SelfCF; the defaults are those of the authors' release for embedding dropout."""

    n_layers: Annotated[int, Field(ge=0, le=16)] = 2
    """Number of propagation steps; 0 is matrix factorisation."""
    noise: Literal["dropout", "edges"] = "dropout"
    """Noise of the targets: dropout of the vectors' entries (SelfCF-ed), or one more propagation
    step over a graph with dropped entries (SelfCF-ep)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share that the noise of the targets drops; the release has 0.1 for edges."""
    encoder_edge_drop: Literal["random"] | Annotated[float, Field(ge=0, lt=1)] = "random"
    """Share of the graph's entries that the encoder drops in a step: drawn from 0 to 0.95, as in
    the release, or fixed; 0 is the paper."""
    reg: Annotated[float, Field(ge=0)] = 0.0
    """Weight of half the sum of the squared vectors of the batch; not divided by its size."""
    patience: Annotated[int, Field(ge=1)] = 50
    """Stop after this number of evaluations in a row without a better validation metric."""


@register(
    "selfcf",
    config=SelfCFConfig,
    toy={
        "embedding_size": 16,
        "learning_rate": 0.01,
        "epochs": 40,
        "batch_size": 128,
    },
    family="collaborative",
    paper="Zhou et al., TORS 2023",
    variants={
        "edge-pruning": {"noise": "edges", "n_layers": 1, "dropout": 0.1, "reg": 1e-5},
        "printed": {"encoder_edge_drop": 0.0},
        "without-noise": {"dropout": 0.0, "encoder_edge_drop": 0.0},
    },
)
class SelfCF(SeededLoss):
    """A Siamese network without negatives: a user's vector predicts the item's, and the reverse.

    With z the mean of the free vectors after 0 to L steps of propagation, h one linear layer for
    users and items, t a perturbed copy of z without a gradient, and observed pairs (u, i),

        loss = - 1/2 mean cos(h(z_u), t_i) - 1/2 mean cos(h(z_i), t_u)
               + reg / 2 sum (|z_u|^2 + |z_i|^2)
        score(u, i) = <h(z_u), z_i> + <z_u, h(z_i)>

    In training each entry of the graph is dropped with probability r (`encoder_edge_drop`), the
    two directions of an edge independently, and the others are multiplied by 1 / (1 - r).

    Limits: no term spreads the vectors; only h and the stopped gradient keep them apart. Watch
    `mean_cosine` in the log: near 1 all vectors are alike. The vector of an item without training
    interactions stays random.

    Source: Zhou et al., "SelfCF: a simple framework for self-supervised collaborative filtering",
    TORS 2023, sections 3.2 and 3.3.

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1]), items=torch.tensor([0, 1]))
        >>> model = SelfCF(SelfCFConfig(embedding_size=4), view)
        >>> [tuple(table.shape) for table in model.tables()]
        [(2, 8), (3, 8)]
    """

    order: Tensor

    def __init__(self, config: SelfCFConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: SelfCFConfig = config
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        self.register_buffer("order", transposing(self.graph.csr), persistent=False)
        size = config.embedding_size
        self.embeddings = nn.Parameter(torch.empty(view.n_users + view.n_items, size))
        nn.init.xavier_uniform_(self.embeddings[: view.n_users])
        nn.init.xavier_uniform_(self.embeddings[view.n_users :])
        self.predictor = nn.Linear(size, size)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`{"users": ..., "items": ..., "reg": ...}`, the last only where it has a weight."""
        config, size = self.config, len(batch)
        items = cast(Tensor, batch.positives) + self.n_users
        rows = torch.cat([batch.users, items])
        rng = self._rng(phase)
        graph = self._dropped(self._edge_drop(rng), rng)
        if config.noise == "edges":
            whole = self.graph.propagate(self.embeddings, config.n_layers, masked=graph)
            vectors = whole.index_select(0, rows)
            noisy = self._dropped(config.dropout if self.training else 0.0, rng)
            target = (
                noisy.matmul(whole.detach(), rows)
                if noisy
                else self.graph.matmul(whole.detach(), rows)
            )
        else:
            vectors = self.graph.propagate(
                self.embeddings, config.n_layers, rows=rows, masked=graph
            )
            target = vectors.detach()
            if self.training and config.dropout:
                target = target * kept(target.shape, config.dropout, rng)
        predicted = self.predictor(vectors)
        cosine = functional.cosine_similarity(predicted, target.roll(size, 0), dim=1)
        of_users, of_items = cosine.split(size)
        parts = {"users": -0.5 * of_users.mean(), "items": -0.5 * of_items.mean()}
        if config.reg:
            parts["reg"] = 0.5 * config.reg * vectors.square().sum()
        return parts

    def _edge_drop(self, rng: torch.Generator) -> float:
        share = self.config.encoder_edge_drop
        if not self.training:
            return 0.0
        if share == "random":
            return LARGEST_DRAW * float(torch.rand((), generator=rng, device=rng.device))
        return float(share)

    def _dropped(self, share: float, rng: torch.Generator) -> MaskedGraph | None:
        """The graph without a share of its entries; None for the whole graph."""
        if not share:
            return None
        return self.graph.masked(kept(self.graph.values.shape, share, rng), self.order)

    def tables(self) -> tuple[Tensor, Tensor]:
        """`[h(z_u), z_u]` and `[z_i, h(z_i)]`, whose products are the scores."""
        vectors = self.graph.propagate(self.embeddings, self.config.n_layers)
        predicted = self.predictor(vectors)
        n = self.n_users
        users = torch.cat([predicted[:n], vectors[:n]], dim=1)
        return users, torch.cat([vectors[n:], predicted[n:]], dim=1)

    def diagnostics(self) -> Mapping[str, float]:
        """The mean cosine of different users and of different items; 1 where all are alike."""
        with torch.no_grad():
            vectors = self.graph.propagate(self.embeddings, self.config.n_layers)
            sides = vectors.split([self.n_users, self.n_items])
            found = [_mean_cosine(side) for side in sides]
        return {"mean_cosine": sum(found) / 2}


def _mean_cosine(x: Tensor) -> float:
    """Of all pairs of different rows, by the length of the sum of their directions."""
    n = len(x)
    total = functional.normalize(x.double(), dim=1).sum(0).square().sum()
    return float((total - n) / max(1, n * (n - 1)))
