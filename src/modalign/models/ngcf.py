"""NGCF: graph convolution with weight matrices and products of neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, cast

import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import Batch, TrainedConfig
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.normalize import normalise
from modalign.graph.propagate import SparseGraph
from modalign.models._registry import register
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.nn.dropout import kept
from modalign.nn.losses.pairwise import bpr_loss, l2_penalty

SLOPE = 0.2


class NGCFConfig(TrainedConfig):
    """Options of NGCF; the defaults are those of the authors' release."""

    n_layers: Annotated[int, Field(ge=1, le=8)] = 3
    """Number of layers of graph convolution."""
    form: Literal["release", "paper"] = "release"
    """The layers of the authors' release, from which the printed results come, or as printed."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the entries of each layer's result that is dropped in training."""
    reg: Annotated[float, Field(ge=0)] = 1e-5
    """Weight of the squared final vectors of the batch."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-4
    """Learning rate of the optimizer."""
    batch_size: Annotated[int, Field(ge=1)] = 1024
    """Training pairs in a training step."""


@register(
    "ngcf",
    config=NGCFConfig,
    toy={
        "embedding_size": 8,
        "n_layers": 2,
        "learning_rate": 0.01,
        "epochs": 30,
        "batch_size": 128,
    },
    family="collaborative",
    paper="Wang et al., SIGIR 2019",
    variants={"printed": {"form": "paper"}, "without-dropout": {"dropout": 0.0}},
)
class NGCF(SeededLoss):
    """Vectors of all layers of a graph convolution, joined; each layer also reads products.

    With E the free vectors, A the graph of training interactions, P = D^-1 (A + I) with D the sums
    of its rows, S = P E_l, o the product of entries, f the leaky ReLU of slope 0.2, and n(x) =
    x / |x|, a layer and the final vectors are

        E_{l+1} = dropout( f(S W + b) + f((E_l o S) V + c) )
        z = [E_0, n(E_1), ..., n(E_L)],   score(u, i) = <z_u, z_i>

    trained by BPR plus `reg / (2 B) sum |z|^2` over the vectors of the batch. As printed (`form =
    paper`) a layer is `f((A' + I) E_l W + (A' E_l o E_l) V)` with A' the symmetric normalised
    graph, and the results are joined without n. The last layer is computed at the nodes of a
    batch only.

    Limits: a step multiplies all nodes by 2 (L - 1) matrices of d x d, three times as many
    operations with the gradient. An item without training interactions has a vector computed from
    its random row.

    Source: Wang et al., "Neural graph collaborative filtering", SIGIR 2019, equations 3 to 12.

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1]), items=torch.tensor([0, 1]))
        >>> model = NGCF(NGCFConfig(embedding_size=4), view)
        >>> [tuple(table.shape) for table in model.tables()]
        [(2, 16), (3, 16)]
    """

    needs = ("negatives",)

    def __init__(self, config: NGCFConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: NGCFConfig = config
        graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        printed = config.form == "paper"
        self.graph: SparseGraph = graph if printed else _with_loops(graph)
        size = config.embedding_size
        self.embeddings = nn.Parameter(torch.empty(view.n_users + view.n_items, size))
        nn.init.xavier_uniform_(self.embeddings[: view.n_users])
        nn.init.xavier_uniform_(self.embeddings[view.n_users :])
        both = range(2 * config.n_layers)
        layers = [nn.Linear(size, size, bias=not printed) for _ in both]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.xavier_uniform_(layer.bias[None])
        self.of_sums = cast("Sequence[nn.Linear]", nn.ModuleList(layers[::2]))
        self.of_products = cast("Sequence[nn.Linear]", nn.ModuleList(layers[1::2]))

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`{"bpr": ..., "reg": ...}`, the second only where it has a weight."""
        size = len(batch)
        nodes = torch.cat([batch.users, batch.items() + self.n_users])
        rows, places = nodes.unique(return_inverse=True)
        rng = self._rng(phase) if self.training and self.config.dropout else None
        final = self.vectors(rows, rng).index_select(0, places).view(3, size, -1)
        user, positive, negative = final
        scores = torch.linalg.vecdot(user, positive), torch.linalg.vecdot(user, negative)
        parts = {"bpr": bpr_loss(*scores)}
        if self.config.reg:
            parts["reg"] = self.config.reg * l2_penalty(final, batch_size=size)
        return parts

    def vectors(self, rows: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Final vectors of all nodes or of `rows`, (n, d (n_layers + 1)).

        Args:
            rows: int64 nodes; None for all.
            rng: of the dropout; None for none.
        """
        printed, last = self.config.form == "paper", self.config.n_layers - 1
        x: Tensor = self.embeddings
        found = [x if rows is None else x.index_select(0, rows)]
        for number, (first, second) in enumerate(zip(self.of_sums, self.of_products, strict=True)):
            asked = rows if number == last else None
            sums = self.graph.matmul(x, rows=asked)
            own = x if asked is None else x.index_select(0, asked)
            if printed:
                x = functional.leaky_relu(first(sums + own) + second(own * sums), SLOPE)
            else:
                x = functional.leaky_relu(first(sums), SLOPE)
                x = x + functional.leaky_relu(second(own * sums), SLOPE)
            if rng is not None:
                x = x * kept(x.shape, self.config.dropout, rng)
            shown = x if rows is None or number == last else x.index_select(0, rows)
            found.append(shown if printed else functional.normalize(shown, dim=1))
        return torch.cat(found, dim=1)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Final vectors of all users and items, without dropout."""
        users, items = self.vectors().split([self.n_users, self.n_items])
        return users, items


def _with_loops(graph: BipartiteGraph) -> SparseGraph:
    """`D^-1 (A + I)`: the mean over a node and its neighbours."""
    matrix = graph.scipy()
    matrix.data[:] = 1.0
    return SparseGraph(normalise(sp.csr_array(matrix + sp.eye_array(matrix.shape[0])), "row"))
