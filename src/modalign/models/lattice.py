"""LATTICE: item graphs learnt from projected features, mixed with those of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, cast

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor, nn

from modalign.core.interfaces import Batch, Phase, Recommender
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.knn import knn_graph
from modalign.graph.normalize import normalise
from modalign.graph.propagate import SparseGraph
from modalign.models._registry import register
from modalign.models._shared.content import ContentConfig, Projections, prepared
from modalign.models._shared.item_graph import cosine_graph
from modalign.models._shared.schedule import decaying
from modalign.models._shared.unit import unit
from modalign.nn.losses.pairwise import bpr_of_vectors, l2_penalty


class LATTICEConfig(ContentConfig):
    """Options of LATTICE; the defaults are those of the authors' release."""

    content_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Width of the space in which similarities are learnt."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """Neighbours of an item in each graph, the item itself included."""
    raw_share: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Weight of the fixed graphs against the learnt ones, lambda in the paper."""
    n_item_layers: Annotated[int, Field(ge=1, le=8)] = 1
    """Number of steps over the item graph."""
    n_layers: Annotated[int, Field(ge=0, le=8)] = 2
    """Number of propagation steps between users and items; 0 is matrix factorisation."""
    adjacency: Literal["self-loops", "symmetric"] = "self-loops"
    """User-item graph: each node the mean of its neighbours and itself, as in the release, or
    symmetric without self-loops, as in LightGCN."""
    reg: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of half the squared final vectors of the batch."""
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = 0.96
    """Factor of the learning rate in 50 epochs."""


class _Learnt(NamedTuple):
    """The edges of one modality's learnt graph: rows and columns, int64, (n_edges,)."""

    rows: Tensor
    columns: Tensor


@register(
    "lattice",
    config=LATTICEConfig,
    toy={
        "embedding_size": 8,
        "content_size": 8,
        "k": 5,
        "raw_share": 0.5,
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 20,
    },
    family="multimodal",
    paper="Zhang et al., MM 2021",
    variants={"fixed-graph": {"raw_share": 1.0}, "lightgcn": {"adjacency": "symmetric"}},
)
class LATTICE(Recommender):
    """Item vectors smoothed over item graphs that are learnt from the features.

    With Z_m = X_m W_m + b_m, top(.) the cosines of each row's k nearest, sym(S) = D^-1/2 S D^-1/2
    with D the sums of rows, and weights a = softmax of one number per modality,

        S_m = sym(top(cos(X_m)))
        G = (1 - raw_share) sym(sum_m a_m top(cos(Z_m))) + raw_share sum_m a_m S_m
        h = G^n Q,    [U; I] = mean of A^l [P; Q] over l = 0..n_layers
        score(u, i) = <U_u, I_i + h_i / |h_i|>

    A has self-loops and rows that sum to one. The loss is BPR and half the squared final vectors of
    the batch. G is computed with a gradient in the first batch of an epoch and is constant in the
    others; scores compute it from the current weights. An item without m has no edge in the graphs
    of m; negative cosines count as zero.

    Limits: W_m, b_m and a have one step of training in an epoch. The learnt graphs need a search
    for neighbours among all items in each epoch, n_items^2 content_size multiplications.

    Source: Zhang et al., "Mining latent structures for multimedia recommendation", ACM Multimedia
    2021, with the order of sums and the graph A of the authors' release.
    """

    needs = ("negatives", "modalities")

    def __init__(self, config: LATTICEConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: LATTICEConfig = config
        size = config.embedding_size
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_users, size)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_items, size)))
        self.graph = _user_item_graph(view, config.adjacency)
        modalities = prepared(config, view)
        fixed = [SparseGraph(cosine_graph(one, config.k)) for one in modalities.values()]
        self.fixed = cast("Sequence[SparseGraph]", nn.ModuleList(fixed))
        self.logits = nn.Parameter(torch.full((len(fixed),), 0.5)) if len(fixed) > 1 else None
        self.content: Projections | None = None
        if config.raw_share < 1:
            self.content = Projections(modalities, config, view, config.content_size)
        self.fresh = False
        self._renew()

    def phases(self) -> Sequence[Phase]:
        """One phase whose learning rate decays."""
        return decaying(self, self.config, self.config.learning_rate_decay)

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Search the neighbours by the current weights; the first batch differentiates G."""
        self._renew()
        self.fresh = True

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """G is a constant from now on."""
        self.fresh = False

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`bpr`, and `reg` where it has a weight."""
        n, index = len(batch), batch.items()
        table = torch.cat([self.users, self.items])
        vectors = self._propagated(table, torch.cat([batch.users, index + self.n_users]))
        smooth = self._differentiated()[index] if self.fresh else self._smooth(self.mixed, index)
        users, items = vectors[:n], vectors[n:] + unit(smooth)
        parts = {"bpr": bpr_of_vectors(users, items)}
        if self.config.reg:
            parts["reg"] = self.config.reg * l2_penalty(users, items, batch_size=n)
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """Final vectors, with the graph of the current weights."""
        vectors = self._propagated(torch.cat([self.users, self.items]))
        with torch.no_grad():
            mixed = self._mixed(self._neighbours())
        return vectors[: self.n_users], vectors[self.n_users :] + unit(self._smooth(mixed))

    def _propagated(self, table: Tensor, rows: Tensor | None = None) -> Tensor:
        n_layers = self.config.n_layers
        total = table if rows is None else table[rows]
        for layer in range(1, n_layers + 1):
            last = layer == n_layers
            table = self.graph.matmul(table, rows=rows if last else None)
            total = total + (table if last or rows is None else table[rows])
        return total / (n_layers + 1)

    def _smooth(self, graph: SparseGraph, rows: Tensor | None = None) -> Tensor:
        items: Tensor = self.items
        for _ in range(self.config.n_item_layers - 1):
            items = graph.matmul(items)
        return graph.matmul(items, rows=rows)

    def _weights(self) -> Tensor:
        return self.items.new_ones(1) if self.logits is None else self.logits.softmax(0)

    @torch.no_grad()
    def _renew(self) -> None:
        self.learnt = self._neighbours()
        self.mixed = self._mixed(self.learnt)

    def _neighbours(self) -> list[_Learnt]:
        """The k nearest items in each projected modality."""
        found = []
        for at, content in enumerate([] if self.content is None else self.content()):
            assert self.content is not None
            present = self.content.present[at]
            graph = knn_graph(content.detach(), present, self.config.k, normalisation="none")
            rows, columns = graph.csr.owner, graph.indices.long()
            there = present.cpu()[rows]
            device = self.items.device
            found.append(_Learnt(rows[there].to(device), columns[there].to(device)))
        return found

    def _learnt_edges(self, learnt: Sequence[_Learnt]) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns and values of the learnt part of G; repeats add up."""
        assert self.content is not None
        rows, columns = (torch.cat(side) for side in zip(*learnt, strict=True))
        cosines = []
        for content, weight, edges in zip(self.content(), self._weights(), learnt, strict=True):
            ends = unit(content)
            cosine = torch.linalg.vecdot(ends[edges.rows], ends[edges.columns])
            cosines.append(weight * cosine.clamp(min=0))
        values = torch.cat(cosines)
        sums = values.new_zeros(self.n_items).index_add(0, rows, values)
        scale = torch.where(sums > 0, sums, 1.0).rsqrt()
        return rows, columns, (1 - self.config.raw_share) * values * scale[rows] * scale[columns]

    def _differentiated(self) -> Tensor:
        """`G^n Q` with a gradient of G, (n_items, d)."""
        items: Tensor = self.items
        edges = self._learnt_edges(self.learnt) if self.learnt else None
        for _ in range(self.config.n_item_layers):
            pairs = zip(self._weights(), self.fixed, strict=True)
            fixed = torch.stack([weight * graph.matmul(items) for weight, graph in pairs]).sum(0)
            result = self.config.raw_share * fixed
            if edges is not None:
                rows, columns, values = edges
                result = result.index_add(0, rows, values[:, None] * items[columns])
            items = result
        return items

    def _mixed(self, learnt: Sequence[_Learnt]) -> SparseGraph:
        """G as one constant matrix."""
        shape = (self.n_items, self.n_items)
        total = sp.csr_array(shape)
        for weight, graph in zip(self._weights().tolist(), self.fixed, strict=True):
            total = total + self.config.raw_share * weight * graph.scipy()
        if learnt:
            rows, columns, values = (one.cpu().numpy() for one in self._learnt_edges(learnt))
            total = total + sp.csr_array((values, (rows, columns)), shape=shape)
        return SparseGraph(sp.csr_array(total)).to(self.items.device)


def _user_item_graph(view: TrainView, adjacency: str) -> SparseGraph:
    """The matrix A over users, then items."""
    symmetric = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
    if adjacency == "symmetric":
        return symmetric
    edges = symmetric.scipy()
    edges.data = np.ones_like(edges.data)
    return SparseGraph(normalise(sp.csr_array(edges + sp.eye_array(edges.shape[0])), "row"))
