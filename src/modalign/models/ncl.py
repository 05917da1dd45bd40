"""NCL: LightGCN, and contrasts of a node with its two-step context and with its cluster."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from modalign.core.interfaces import Batch
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.nn.losses.infonce import info_nce

log = logging.getLogger("modalign.models")
ITERATIONS = 25
"""Of k-means, as in the library that the authors use."""


class NCLConfig(LightGCNConfig):
    """Options of NCL; the defaults are those of the authors for MovieLens-1M."""

    n_layers: Annotated[int, Field(ge=0, le=16)] = 3
    """Number of propagation steps of the scores."""
    hyper_layers: Annotated[int, Field(ge=1, le=8)] = 1
    """Half the number of steps to a node's context."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Temperature of both contrasts, tau in the paper."""
    structure_weight: Annotated[float, Field(ge=0)] = 1e-7
    """Weight of the contrast with the context, a sum over the batch."""
    item_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the items in that contrast, alpha in the paper."""
    prototype_weight: Annotated[float, Field(ge=0)] = 8e-8
    """Weight of the contrast with the clusters, a sum over the batch."""
    n_clusters: Annotated[int, Field(ge=1)] = 1000
    """Clusters of users, and of items; at most half of them."""
    warm_up: Annotated[int, Field(ge=0)] = 20
    """Epochs without the contrast with the clusters."""
    batch_size: Annotated[int, Field(ge=1)] = 4096
    """Training pairs in a training step."""


@register(
    "ncl",
    config=NCLConfig,
    toy={
        "embedding_size": 16,
        "learning_rate": 0.02,
        "epochs": 20,
        "batch_size": 128,
        "n_clusters": 4,
        "warm_up": 0,
        "structure_weight": 1e-4,
        "prototype_weight": 1e-4,
    },
    family="collaborative",
    paper="Lin et al., WWW 2022",
    variants={
        "without-structure": {"structure_weight": 0.0},
        "without-prototypes": {"prototype_weight": 0.0},
    },
)
class NCL(LightGCN):
    """LightGCN with two contrasts: each node finds itself in its context, and its cluster.

    With e a free vector, e'' the layer of propagation after 2 h steps, and mu the centres of
    k-means of the free vectors of a side, made anew in every epoch, a the cluster of a node,

        S = sum over the batch of -log( exp(cos(e''_u, e_u) / tau) / sum_v exp(cos(e''_u, e_v) / tau) )
        P = sum over the batch of -log( exp(cos(e_u, mu_a(u)) / tau) / sum_c exp(cos(e_u, mu_c) / tau) )
        loss = LightGCN + lambda_S (S(users) + alpha S(items)) + lambda_P (P(users) + P(items))

    S runs over all nodes of a side, P over all centres; items are those chosen. Scores are those
    of LightGCN.

    Limits: k-means takes 25 n k d operations an epoch for a side of n nodes, and S 6 d for each
    node of the batch and each node of its side. The weights multiply sums: they depend on
    batch_size. The vector of an item without training interactions stays random.

    Source: Lin et al., "Improving graph collaborative filtering with neighborhood-enriched
    contrastive learning", WWW 2022, equations 6 to 14.

    Example:
        >>> view = TrainView(2, 4, users=torch.tensor([0, 1]), items=torch.tensor([0, 1]))
        >>> model = NCL(NCLConfig(embedding_size=4), view)
        >>> [tuple(table.shape) for table in model.tables()]
        [(2, 4), (4, 4)]
    """  # noqa: E501

    resamples = True
    config: NCLConfig

    def __init__(self, config: NCLConfig, view: TrainView) -> None:
        super().__init__(config, view)
        for side, n in (("user", view.n_users), ("item", view.n_items)):
            k = max(1, min(config.n_clusters, n // 2))
            if k < config.n_clusters and config.prototype_weight:
                log.info("ncl: %d clusters of %ss instead of %d", k, side, config.n_clusters)
            zeros = torch.zeros(k, config.embedding_size)
            self.register_buffer(f"{side}_centres", zeros, persistent=False)
            self.register_buffer(
                f"{side}_cluster", torch.zeros(n, dtype=torch.int64), persistent=False
            )
        self.clustered = False

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Cluster the free vectors of both sides, once the warm-up is over."""
        self.clustered = epoch >= self.config.warm_up and self.config.prototype_weight > 0
        if self.clustered:
            for side, table in zip(("user", "item"), self.ego_tables(), strict=True):
                centres, cluster = self.get_buffer(f"{side}_centres"), f"{side}_cluster"
                found, assigned = k_means(table.detach(), len(centres), rng)
                centres.copy_(found)
                self.get_buffer(cluster).copy_(assigned)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """The parts of LightGCN; `structure` and `prototypes` where they have a weight."""
        config, parts = self.config, dict(super().loss(batch, phase))
        sides = [
            one.unique(return_counts=True) for one in (batch.users, cast(Tensor, batch.positives))
        ]
        if config.structure_weight:
            weights = (1.0, config.item_weight)
            found = [w * one for w, one in zip(weights, self._structure(sides), strict=True)]
            parts["structure"] = config.structure_weight * len(batch) * (found[0] + found[1])
        if self.clustered:
            total = sum(self._prototypes(name, *side) for name, side in self._named(sides))
            parts["prototypes"] = config.prototype_weight * len(batch) * cast(Tensor, total)
        return parts

    def _named(
        self, sides: list[tuple[Tensor, Tensor]]
    ) -> list[tuple[str, tuple[Tensor, Tensor, Tensor]]]:
        """Name of a side, its free vectors, nodes of the batch and how often they are there."""
        tables = self.ego_tables()
        return [
            (name, (table, *side))
            for name, table, side in zip(("user", "item"), tables, sides, strict=True)
        ]

    def _structure(self, sides: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """S of users and of items as means over the batch."""
        rows = torch.cat([sides[0][0], sides[1][0] + self.n_users])
        steps = 2 * self.config.hyper_layers
        context = self.graph.propagate(self.embeddings, steps, "last", rows)
        split = context.split([len(sides[0][0]), len(sides[1][0])])
        return [
            info_nce(query, table, self.config.temperature, targets=nodes, weights=counts)
            for query, (_, (table, nodes, counts)) in zip(split, self._named(sides), strict=True)
        ]

    def _prototypes(self, name: str, table: Tensor, nodes: Tensor, counts: Tensor) -> Tensor:
        """P of a side as a mean over the batch."""
        return info_nce(
            table.index_select(0, nodes),
            self.get_buffer(f"{name}_centres"),
            self.config.temperature,
            targets=self.get_buffer(f"{name}_cluster")[nodes],
            weights=counts,
        )


def k_means(rows: Tensor, k: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centres of k-means scaled to length 1, (k, d), and the cluster of each row, int64 (n,).

    Distances are Euclidean, between the rows as they are.

    Args:
        rows: (n, d), n >= k.
        k: number of clusters.
        rng: seeds the start.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 5.0]])
        >>> centres, cluster = k_means(rows, 2, torch.Generator().manual_seed(1))
        >>> centres[cluster].tolist()
        [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    # Heavy, and not needed by most importers of this module.
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    seed = int(torch.randint(2**31, (), generator=rng, device=rng.device))
    # With several threads the order of sums varies, and one seed gives several results.
    with threadpool_limits(limits=1):
        fitted = KMeans(k, init="random", n_init=1, max_iter=ITERATIONS, random_state=seed)
        cluster = fitted.fit_predict(rows.cpu().numpy())
    centres = torch.from_numpy(fitted.cluster_centers_).to(rows)
    return normalize(centres, dim=1), torch.from_numpy(cluster).long().to(rows.device)
