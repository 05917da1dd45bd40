"""MMGCN: one graph network of users and items for each modality, with shared ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import Batch, Recommender
from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.normalize import normalise
from modalign.graph.propagate import SparseGraph
from modalign.models._registry import register
from modalign.models._shared.content import ContentConfig, prepared
from modalign.models._shared.unit import unit
from modalign.nn.losses.pairwise import bpr_of_vectors
from modalign.nn.modality_input import ModalityInput

N_LAYERS = 3


class MMGCNConfig(ContentConfig):
    """Options of MMGCN; the defaults are those of the authors' release, with trained ids."""

    widest: Annotated[int, Field(ge=1)] = 512
    """Features with more columns are projected to `content_size` numbers, others are used as they
    are."""
    content_size: Annotated[int, Field(ge=1, le=4096)] = 256
    """Width of wide features after their projection."""
    combine: Literal["concatenate", "sum"] = "concatenate"
    """Join a node's neighbours and itself side by side, as the release does, or add them."""
    frozen_ids: bool = False
    """Keep ids and preferences of users at their random start, as the release does."""
    reg: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of the mean squares of the batch's ids and of all preferences."""


@register(
    "mmgcn",
    config=MMGCNConfig,
    toy={
        "embedding_size": 8,
        "widest": 10,
        "content_size": 8,
        "learning_rate": 0.01,
        "batch_size": 64,
        "epochs": 15,
    },
    family="multimodal",
    paper="Wei et al., MM 2019",
    variants={"frozen-ids": {"frozen_ids": True}, "sum": {"combine": "sum"}},
)
class MMGCN(Recommender):
    """One graph network for each modality over users and items, with shared ids, averaged.

    For each modality, with A the interactions with rows that sum to one, E free ids of users and
    items, N(x) unit rows, Y the features (projected where they are wide), free preferences of
    users, and f the leaky ReLU, three layers

        x = N([preferences; Y]),   x <- f([f(A x W1), f(x W2 + b2) + E] W3 + b3)

    with weights of their own; `combine="sum"` is `f(f(A x W1) W3 + b3 + f(x W2 + b2) + E)`. A
    vector is the mean over modalities, the score an inner product, the loss BPR plus `reg` times
    the mean squares of the batch's ids and of the preferences.

    Limits: the cost grows with the square of the features' widths (`widest`, `content_size`). An
    item without interactions is ranked by its content and a random id.

    Source: Wei et al., "MMGCN: multi-modal graph convolution network for personalized
    recommendation of micro-video", ACM Multimedia 2019.
    """

    needs = ("negatives", "modalities")

    def __init__(self, config: MMGCNConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: MMGCNConfig = config
        n_nodes, size = view.n_users + view.n_items, config.embedding_size
        edges = BipartiteGraph(view.users, view.items, view.n_users, view.n_items).scipy()
        edges.data = np.ones_like(edges.data)
        self.graph = SparseGraph(normalise(edges, "row"))
        self.ids = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_nodes, size)))
        towers = [_Tower(one, config, view) for one in prepared(config, view).values()]
        self.towers = cast("Sequence[_Tower]", nn.ModuleList(towers))
        if config.frozen_ids:
            for table in (self.ids, *(tower.preferences for tower in towers)):
                table.requires_grad_(False)

    def _vectors(self, rows: Tensor | None = None) -> Tensor:
        vectors = [tower(self.ids, self.graph, rows) for tower in self.towers]
        return torch.stack(vectors).mean(0)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`bpr`, and `reg` where it has a weight and ids are trained."""
        n, index = len(batch), batch.items() + self.n_users
        vectors = self._vectors(torch.cat([batch.users, index]))
        parts = {"bpr": bpr_of_vectors(vectors[:n], vectors[n:])}
        if self.config.reg and not self.config.frozen_ids:
            squares = self.ids[batch.users].square().mean() + self.ids[index].square().mean()
            for tower in self.towers:
                squares = squares + tower.preferences.square().mean()
            parts["reg"] = self.config.reg * squares
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items."""
        users, items = self._vectors().split([self.n_users, self.n_items])
        return users, items


class _Tower(nn.Module):
    """The network of one modality."""

    def __init__(self, modality: Modality, config: MMGCNConfig, view: TrainView) -> None:
        super().__init__()
        self.summed, size = config.combine == "sum", config.embedding_size
        self.input = ModalityInput(modality, config.missing, view)
        self.project = None
        width = modality.dim
        if width > config.widest:
            width = config.content_size
            self.project = nn.Linear(modality.dim, width)
        self.preferences = nn.Parameter(nn.init.xavier_normal_(torch.empty(view.n_users, width)))
        widths = [width, *[size] * (N_LAYERS - 1)]
        joined = [one if self.summed else one + size for one in widths]
        around = [nn.Linear(one, one, bias=False) for one in widths]
        own = [nn.Linear(one, size) for one in widths]
        join = [nn.Linear(one, size) for one in joined]
        for layer in (*around, *own, join[0]):
            nn.init.xavier_normal_(layer.weight)
        self.around, self.own, self.join = (nn.ModuleList(x) for x in (around, own, join))

    def forward(self, ids: Tensor, graph: SparseGraph, rows: Tensor | None) -> Tensor:
        content = self.input() if self.project is None else self.input.linear(self.project)
        x = unit(torch.cat([self.preferences, content]))
        layers = list(zip(self.around, self.own, self.join, strict=True))
        for at, (around, own, join) in enumerate(layers):
            here = rows if at == len(layers) - 1 else None  # the last layer at the batch only
            near = functional.leaky_relu(graph.matmul(around(x), rows=here))
            x, e = (x, ids) if here is None else (x[here], ids[here])
            self_part = functional.leaky_relu(own(x)) + e
            if self.summed:
                x = functional.leaky_relu(join(near) + self_part)
            else:
                x = functional.leaky_relu(join(torch.cat([near, self_part], dim=1)))
        return x
