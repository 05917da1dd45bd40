"""SGL: LightGCN, and a contrast between two randomly thinned graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from modalign.core.interfaces import Batch
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.models._registry import register
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.nn.losses.infonce import info_nce


class SGLConfig(LightGCNConfig):
    """Options of SGL; the authors choose weight, temperature and share for each data set."""

    n_layers: Annotated[int, Field(ge=0, le=16)] = 3
    """Number of propagation steps; 0 is BPR-MF."""
    augmentation: Literal["edges", "nodes", "walk"] = "edges"
    """What a view leaves out: edges, all edges of some nodes, or other edges in every layer."""
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share that a view leaves out, rho in the paper."""
    contrast_weight: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the contrast, lambda_1 in the paper, which tries 0.005 to 1."""
    temperature: Annotated[float, Field(gt=0)] = 0.5
    """Temperature of the contrast, tau in the paper, which tries 0.1 to 1."""
    contrast_negatives: Literal["all", "batch"] = "all"
    """Negatives of the contrast: all nodes of the same side, or those of the batch."""


@register(
    "sgl",
    config=SGLConfig,
    toy={"embedding_size": 16, "learning_rate": 0.02, "epochs": 30, "batch_size": 128},
    family="collaborative",
    paper="Wu et al., SIGIR 2021",
    variants={
        "yelp2018": {"contrast_weight": 0.1, "temperature": 0.2},
        "amazon-book": {"contrast_weight": 0.5, "temperature": 0.2},
        "node-drop": {"augmentation": "nodes"},
        "random-walk": {"augmentation": "walk"},
        "batch-negatives": {"contrast_negatives": "batch"},
        "without-contrast": {"contrast_weight": 0.0},
    },
)
class SGL(LightGCN):
    """LightGCN whose vectors tell nodes apart across two randomly thinned graphs.

    With z LightGCN's vectors, and z' and z'' those over two graphs that each leave out a random
    share `drop` of the edges and are normalised by their own degrees, drawn anew in every epoch,

        loss = BPR(z) + lambda_1 (S(users) + S(items)) + reg / (2 B) sum |e|^2
        S = - mean over the batch of log( exp(cos(z'_u, z''_u) / tau)
                                          / sum_v exp(cos(z'_u, z''_v) / tau) )

    S takes the users of the batch, then the chosen items, with repeats; v are all nodes of the
    same side. Scores are those of LightGCN over the whole graph.

    Limits: the contrast takes 6 d operations for each node of the batch and each node of its side,
    most of a step; `contrast_negatives=batch` is another, cheaper loss. The vector of an item
    without training interactions stays random.

    Source: Wu et al., "Self-supervised graph learning for recommendation", SIGIR 2021,
    equations 2 to 13.

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1]), items=torch.tensor([0, 1]))
        >>> model = SGL(SGLConfig(embedding_size=4), view)
        >>> [tuple(table.shape) for table in model.tables()]
        [(2, 4), (3, 4)]
    """

    resamples = True
    config: SGLConfig

    def __init__(self, config: SGLConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.views: Sequence[nn.ModuleList] = [nn.ModuleList([self.graph])] * 2

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Draw the two views of the epoch."""
        each = self.config.n_layers if self.config.augmentation == "walk" else 1
        self.views = [nn.ModuleList(self._thinned(rng) for _ in range(each)) for _ in range(2)]

    def _thinned(self, rng: torch.Generator) -> BipartiteGraph:
        drop = self.config.drop
        if self.config.augmentation != "nodes":
            return self.graph.drop_edges(drop, rng)
        users, items = self.graph.edges()
        stay = [
            torch.randperm(n, generator=rng) >= int(drop * n) for n in (self.n_users, self.n_items)
        ]
        return self.graph.thinned(stay[0].to(users.device)[users] & stay[1].to(users.device)[items])

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """The parts of LightGCN, and `contrast` where it has a weight."""
        parts = dict(super().loss(batch, phase))
        if self.config.contrast_weight:
            parts["contrast"] = self.config.contrast_weight * self.contrast(batch)
        return parts

    def contrast(self, batch: Batch) -> Tensor:
        """S of the users plus S of the chosen items of a batch."""
        users, of_users = batch.users.unique(return_counts=True)
        items, of_items = cast(Tensor, batch.positives).unique(return_counts=True)
        anchors = torch.cat([users, items + self.n_users])
        query = self._view(0, anchors)
        if self.config.contrast_negatives == "all":
            keys = self._view(1, None).split([self.n_users, self.n_items])
            places = [users, items]
        else:
            keys = self._view(1, anchors).split([len(users), len(items)])
            places = [torch.arange(len(one), device=one.device) for one in (users, items)]
        total = query.new_zeros(())
        for rows, columns, targets, counts in zip(
            query.split([len(users), len(items)]), keys, places, (of_users, of_items), strict=True
        ):
            total = total + info_nce(
                rows, columns, self.config.temperature, targets=targets, weights=counts
            )
        return total

    def _view(self, number: int, rows: Tensor | None) -> Tensor:
        """Vectors over a thinned graph, of all nodes or of `rows`."""
        graphs = cast("Sequence[BipartiteGraph]", self.views[number])
        if len(graphs) == 1 or not self.config.n_layers:
            return graphs[0].propagate(self.embeddings, self.config.n_layers, rows=rows)
        layers: list[Tensor] = [self.embeddings]
        for graph in graphs:
            layers.append(graph.matmul(layers[-1]))
        mean = torch.stack(layers).mean(0)
        return mean if rows is None else mean.index_select(0, rows)
