"""FREEDOM: a frozen item graph, and a user-item graph that is pruned in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import (
    Batch,
    MultimodalConfig,
    Recommender,
    chosen_modalities,
)
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.models._registry import register
from modalign.models._shared.batch_items import distinct
from modalign.models._shared.item_graph import item_graph, modality_weights
from modalign.nn.losses.pairwise import bpr_loss
from modalign.nn.modality_input import ModalityInput


class FREEDOMConfig(MultimodalConfig):
    """Options of FREEDOM; the defaults are those of the paper."""

    n_layers: Annotated[int, Field(ge=0, le=8)] = 2
    """Number of propagation steps between users and items."""
    n_item_layers: Annotated[int, Field(ge=0, le=8)] = 1
    """Number of steps over the item graph; 0 adds the items' own vectors once more."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """Neighbours of an item in each modality, the item itself included."""
    modality_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Weights of the modalities in the item graph, scaled to sum to one; null: image (or visual)
    0.1 and text 0.9 where these are the two in use, equal weights otherwise."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.8
    """Share of the user-item edges that is left out in each epoch."""
    content_weight: Annotated[float, Field(ge=0)] = 1e-3
    """Weight of the BPR losses of the projected modalities, lambda in the paper."""


@register(
    "freedom",
    config=FREEDOMConfig,
    toy={
        "embedding_size": 8,
        "k": 5,
        "dropout": 0.3,
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 30,
    },
    family="multimodal",
    paper="Zhou & Shen, MM 2023",
    variants={
        "without-pruning": {"dropout": 0.0},
        "without-content-loss": {"content_weight": 0.0},
    },
)
class FREEDOM(Recommender):
    """LightGCN on a pruned user-item graph, plus item vectors smoothed over a frozen item graph.

    With A the normalised user-item matrix, S the item graph of nearest neighbours and
    [P; Q] the free vectors of users and items,

    `U, I = mean of A^l [P; Q], l = 0..n_layers`;  `score(u, i) = <U_u, I_i + (S^n Q)_i>`.

    In training A is the graph of the edges kept in this epoch, drawn without replacement with
    probability proportional to `1 / sqrt(d_u d_i)`, so that edges of high degree are left out
    first; scores use all edges. S is the weighted sum over modalities of the graphs from each item
    to its k most similar items, computed once. The loss is BPR on the scores plus
    `content_weight` times a BPR of `<U_u, X_i W_m + b_m>` for each modality m.

    Features are constants: the authors' code trains copies of them, which only the small last
    term reads. Only the items of a batch are projected.

    Source: Zhou and Shen, "A tale of two graphs: freezing and denoising graph structures for
    multimodal recommendation", MM 2023, equations 1 to 13.

    Raises:
        DataError: the data has no modality.
        UnknownName: a modality of the configuration is not there.
    """

    needs = ("negatives", "modalities")
    resamples = True

    def __init__(self, config: FREEDOMConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: FREEDOMConfig = config
        names = chosen_modalities(config, view.modalities)
        size = config.embedding_size
        self.users = nn.Parameter(torch.empty(view.n_users, size))
        self.items = nn.Parameter(torch.empty(view.n_items, size))
        for table in (self.users, self.items):
            nn.init.xavier_uniform_(table)
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        self.pruned = self.graph
        weights = modality_weights(config.modality_weights, names, view.modalities)
        self.item_graph = (
            item_graph(view, names, weights, config.k) if config.n_item_layers else None
        )
        read = names if config.content_weight > 0 else []
        sources = [ModalityInput(view.modalities[name], config.missing, view) for name in read]
        layers = [nn.Linear(source.dim, size) for source in sources]
        self.inputs = cast("Sequence[ModalityInput]", nn.ModuleList(sources))
        self.projections = cast("Sequence[nn.Linear]", nn.ModuleList(layers))

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Draw the edges that this epoch uses."""
        if self.config.dropout > 0:
            self.pruned = self.graph.drop_edges(self.config.dropout, rng, by="degree")

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """BPR of the scores and, unless its weight is zero, of the modalities."""
        n = len(batch)
        index = batch.items()
        nodes = torch.cat([batch.users, index + self.n_users])
        free = torch.cat([self.users, self.items])
        vectors = self.pruned.propagate(free, self.config.n_layers, rows=nodes)
        users, items = vectors[:n], vectors[n:] + self._smoothed(index)
        parts = {"bpr": _bpr(users, items)}
        if self.config.content_weight > 0:
            losses = [_bpr(users, content) for content in self._content(index)]
            parts["content"] = self.config.content_weight * torch.stack(losses).sum()
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """Final vectors by the graph of all edges."""
        vectors = self.graph.propagate(torch.cat([self.users, self.items]), self.config.n_layers)
        return vectors[: self.n_users], vectors[self.n_users :] + self._smoothed(None)

    def _smoothed(self, rows: Tensor | None) -> Tensor:
        """`S^n Q` of all items, or of `rows`, to which the last step is restricted."""
        items: Tensor = self.items
        if self.item_graph is None:
            return items if rows is None else functional.embedding(rows, items)
        for _ in range(self.config.n_item_layers - 1):
            items = self.item_graph.matmul(items)
        return self.item_graph.matmul(items, rows=rows)

    def _content(self, index: Tensor) -> Iterator[Tensor]:
        """`X_m W_m + b_m` at `index` for each modality m, (len(index), d)."""
        rows, places = distinct(index, self.n_items)
        for source, projection in zip(self.inputs, self.projections, strict=True):
            if rows is None:
                content = source.linear(projection)
            else:
                content = functional.linear(source.rows(rows), projection.weight, projection.bias)
            yield functional.embedding(places, content)


def _bpr(users: Tensor, items: Tensor) -> Tensor:
    """BPR of users (B, d) with items (2 B, d): the B positives, then the B negatives."""
    scores = torch.linalg.vecdot(users, items.view(2, *users.shape))  # (2, B)
    return bpr_loss(scores[0], scores[1])
