"""MMRec: LightGCN whose items start from their id and their content; the teacher of TARec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
import scipy.sparse as sp
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
from modalign.graph.propagate import SparseGraph
from modalign.models._registry import register
from modalign.models._shared.content import FeatureScale, scaled
from modalign.nn.losses.pairwise import bpr_loss, l2_penalty
from modalign.nn.modality_input import ModalityInput


class MMRecConfig(MultimodalConfig):
    """Options of MMRec."""

    n_layers: Annotated[int, Field(ge=0, le=16)] = 2
    """Number of propagation steps; 0 is matrix factorisation with content."""
    fusion: Literal["mean", "concat", "post"] = "mean"
    """How content and ids are joined: added in the item's layer 0 (mean), mixed there by a linear
    map of all segments (concat), or propagated separately and added at the end (post)."""
    content_weight: Annotated[float, Field(ge=0)] = 0.55
    """Weight of each modality's propagated unit vectors; used by fusion=post only."""
    normalisation: Literal["symmetric", "left"] = "symmetric"
    """Weight of an edge: 1 / sqrt(d_u d_i) (symmetric), or 1 / sqrt of the receiving node's degree
    (left)."""
    reg: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of the squared layer-0 vectors of the batch."""
    feature_scale: FeatureScale = "unit"
    """Subtract the mean row, then scale rows to length 1 (unit) or all rows by one number to a mean
    square of 1 per column (width); or keep the features (raw)."""

    earlier: ClassVar[Mapping[str, Any]] = {"feature_scale": "raw"}


@register(
    "mmrec",
    config=MMRecConfig,
    toy={
        "embedding_size": 8,
        "n_layers": 1,
        "reg": 0.03,
        "learning_rate": 0.02,
        "epochs": 12,
        "batch_size": 128,
    },
    family="multimodal",
    paper="Zhuang et al., 2025 (the teacher of TARec)",
    variants={
        "concat": {"fusion": "concat"},
        "post": {"fusion": "post"},
        "left-normalised": {"normalisation": "left"},
    },
)
class MMRec(Recommender):
    """LightGCN over items whose layer 0 adds their features: the teacher of TARec.

    With x_i^m the frozen features of item i in modality m, centred and scaled, M modalities, A the
    normalised graph of training interactions over users and items, and L layers,

        h_i^m = W_m x_i^m + b_m
        e_i   = id_i + (1 / M) sum_m h_i^m,   e_u = id_u
        Z     = (E + A E + ... + A^L E) / (L + 1),   score(u, i) = <z_u, z_i>

    trained by BPR plus `reg / (2 B) sum |e|^2` over the layer-0 vectors of the batch. The paper
    leaves the fusion open. `concat` is `e_i = W [id_i | h_i^1 | ... | h_i^M] + b`. `post`
    propagates ids and each `[0 | h^m]` separately and adds
    `content_weight * sum_m unit(propagated h^m)` to Z, for users and for items.

    With `normalisation="left"` A_ui is `1 / sqrt(d_u)` and A_iu `1 / sqrt(d_i)`: popular
    neighbours are not weighted down, and vectors grow with the degrees.

    Limits: a step projects all items, because two layers reach nearly all of them, and computes
    the last layer at the nodes of the batch only. Computing the tables costs the projection of
    all features and the whole propagation; a student of this model needs neither.

    Source: Zhuang et al. 2025 (TARec), its equation 1; He et al., "LightGCN", SIGIR 2020,
    equations 3 to 8; Wei et al., "PromptMM", WWW 2024, for `post` and `left`.

    Raises:
        DataError: the data has no modality.
        UnknownName: a modality of the configuration is not there.
    """

    needs = ("negatives", "modalities")

    def __init__(self, config: MMRecConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: MMRecConfig = config
        size = config.embedding_size
        names = chosen_modalities(config, view.modalities)
        read = [scaled(view.modalities[name], config.feature_scale) for name in names]
        sources = [ModalityInput(one, config.missing, view) for one in read]
        self.inputs = cast("Sequence[ModalityInput]", nn.ModuleList(sources))
        self.projections = cast(
            "Sequence[nn.Linear]", nn.ModuleList(nn.Linear(source.dim, size) for source in sources)
        )
        self.mixing = (
            nn.Linear((1 + len(names)) * size, size) if config.fusion == "concat" else None
        )
        self.users = nn.Parameter(torch.empty(view.n_users, size))
        self.items = nn.Parameter(torch.empty(view.n_items, size))
        for table in (self.users, self.items, *(layer.weight for layer in self.projections)):
            nn.init.xavier_uniform_(table)
        symmetric = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        self.graph: SparseGraph = (
            symmetric if config.normalisation == "symmetric" else left_normalised(symmetric)
        )

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`{"bpr": ..., "reg": ...}`, the second only where it has a weight."""
        size = len(batch)
        final, first = self._final(torch.cat([batch.users, batch.items() + self.n_users]))
        user, positive, negative = final.view(3, size, -1)
        scores = torch.linalg.vecdot(user, positive), torch.linalg.vecdot(user, negative)
        parts = {"bpr": bpr_loss(*scores)}
        if self.config.reg:
            parts["reg"] = self.config.reg * l2_penalty(first, batch_size=size)
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """Propagated vectors of all users and items, computed from the features."""
        users, items = self._final(None)[0].split([self.n_users, self.n_items])
        return users, items

    def _final(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Final and layer-0 vectors at `rows`, users first; None for all nodes."""
        content = [
            source.linear(layer)
            for source, layer in zip(self.inputs, self.projections, strict=True)
        ]
        if self.config.fusion != "post":
            first = torch.cat([self.users, self._fused(content)])
            return self._propagated(first, rows)
        # The segments propagate side by side: one product with the graph for all of them.
        nobody = self.users.new_zeros(self.n_users, self.config.embedding_size * len(content))
        first = torch.cat(
            [torch.cat([self.users, nobody], 1), torch.cat([self.items, *content], 1)]
        )
        final, first = self._propagated(first, rows)
        ids, *segments = final.split(self.config.embedding_size, dim=1)
        units = torch.stack([functional.normalize(one, dim=1) for one in segments]).sum(0)
        return ids + self.config.content_weight * units, first[:, : self.config.embedding_size]

    def _fused(self, content: Sequence[Tensor]) -> Tensor:
        """Layer 0 of the items, (n_items, d)."""
        if self.mixing is not None:
            mixed: Tensor = self.mixing(torch.cat([self.items, *content], dim=1))
            return mixed
        return self.items + torch.stack(list(content)).mean(0)

    def _propagated(self, first: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """The mean of all layers, and layer 0, at `rows`."""
        n_layers = self.config.n_layers
        if isinstance(self.graph, BipartiteGraph):
            if rows is None:
                return self.graph.propagate(first, n_layers), first
            return self.graph.propagate_at(first, n_layers, rows)
        start = first if rows is None else functional.embedding(rows, first)
        total, layer = start, first
        for step in range(n_layers):
            last = step == n_layers - 1
            layer = self.graph.matmul(layer, rows=rows if last else None)
            at_rows = layer if rows is None or last else functional.embedding(rows, layer)
            total = total + at_rows
        return total / (n_layers + 1), start


def left_normalised(graph: BipartiteGraph) -> SparseGraph:
    """The graph with every edge weighted `1 / sqrt(d)` of the node that receives.

    Example:
        >>> graph = BipartiteGraph(torch.tensor([0, 0]), torch.tensor([0, 1]), 1, 2)
        >>> left_normalised(graph).matmul(torch.ones(3, 1)).flatten().tolist()
        [1.4142135381698608, 1.0, 1.0]
    """
    matrix = graph.scipy()
    degrees = np.diff(matrix.indptr)
    weights = np.repeat(np.maximum(degrees, 1) ** -0.5, degrees)
    return SparseGraph(sp.csr_array((weights, matrix.indices, matrix.indptr), shape=matrix.shape))
