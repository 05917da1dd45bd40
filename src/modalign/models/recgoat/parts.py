"""RecGOAT's parts without transport: preferences of users, attention branches, fusion.

The equations R2 to R13 that comments cite are listed in `docs/models/recgoat.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional

from modalign.core import seeds
from modalign.core.modality import Modality
from modalign.core.sparse import row_of_entries
from modalign.core.view import TrainView
from modalign.errors import ConfigError, DataError
from modalign.features.fill import present_mean
from modalign.features.history import history_mean
from modalign.features.reduce import thin_svd
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.knn import knn_graph
from modalign.models._shared.feature_rank import fewer_columns
from modalign.models._shared.unit import unit
from modalign.models.recgoat.config import RecGOATConfig
from modalign.nn.dropout import kept
from modalign.nn.gat import SLOPE, GraphAttention, NeighbourGraph
from modalign.nn.modality_input import ModalityInput

FIRST_SIZE = 0.1
"""Standard deviation of the free vectors at the start."""
RANDOM_WIDTH = 64
ID_SHARE, TEXT_SHARE, OTHER_SHARE = 0.15, 0.8, 0.05
KNN_BLOCK = 256
ROWS = 4096
"""Rows that are copied at a time."""
SHORTEST = 1e-6
"""Rows not longer than this after centring are rounding errors."""
LEAST_WEIGHT = 1e-3
"""Weight of an edge whose ends have a cosine of zero or less."""


# ------------------------------------------------------------------ preferences of users


def preferences(config: RecGOATConfig, view: TrainView, names: Sequence[str]) -> Modality | None:
    """R1 or R2: a row for each user, zeros where there is none; None without preferences.

    Args:
        config: options.
        view: training interactions, features of items and users.
        names: modalities of items in use.

    Raises:
        DataError: the data lacks the modality of users that `preference_modality` names, or has
            no modality of items for the means.
    """
    users, items = view.users.numpy(), view.items.numpy()
    if config.preference == "none":
        return None
    if config.preference == "file":
        return centred(_from_file(config.preference_modality, view))
    if config.preference == "random":
        # Not saved: every model draws the same numbers again.
        rng = seeds.numpy_generator(0, "recgoat", "preference")
        rows = rng.normal(size=(view.n_users, RANDOM_WIDTH)).astype(np.float32)
        return centred(Modality("random", rows, np.ones(view.n_users, bool), "user"))
    chosen = ["text"] if "text" in names else list(names)
    if not chosen:
        raise DataError(
            "features of items, whose means are the users' preferences",
            "data without any modality",
            "run `modalign encode` first, or set preference=none",
        )
    means = [history_mean(view.modalities[name], users, items, view.n_users) for name in chosen]
    if len(means) == 1:
        return means[0]
    # Side by side, the cosine of two users is the mean over the modalities that both have.
    joined = np.concatenate([one.features for one in means], axis=1)
    there = np.stack([one.present for one in means]).sum(axis=0)
    joined /= np.sqrt(np.maximum(there, 1))[:, None]
    return Modality("history", joined.astype(np.float32), there > 0, "user")


def _from_file(name: str, view: TrainView) -> Modality:
    if name not in view.user_modalities:
        there = ", ".join(sorted(view.user_modalities)) or "none"
        raise DataError(
            f"a modality of users named {name!r} for preference=file",
            f"modalities of users: {there}",
            "run `modalign describe` first, or set preference=history_mean",
        )
    return view.user_modalities[name]


def centred(modality: Modality) -> Modality:
    """Rows less their mean, scaled to length one; missing rows are zeros."""
    middle = present_mean(modality)
    rows = np.zeros(modality.features.shape, np.float32)
    present = modality.present.copy()
    for start in range(0, len(modality), ROWS):
        at = slice(start, start + ROWS)
        block = np.where(present[at, None], modality.features[at] - middle, 0.0)
        lengths = np.linalg.norm(block, axis=1)
        present[at] &= lengths > SHORTEST
        np.divide(block, lengths[:, None], out=rows[at], where=present[at, None])
    return replace(modality, features=rows, present=present)


def spread_of(modality: Modality, middle: np.ndarray) -> float:
    """Root mean square distance of the present rows from `middle`; 1 if there is none."""
    total = 0.0
    for start in range(0, len(modality), ROWS):
        at = slice(start, start + ROWS)
        difference = (modality.features[at] - middle)[modality.present[at]]
        total += float(np.einsum("nd,nd->", difference, difference, dtype=np.float64))
    return math.sqrt(total / max(1, int(modality.present.sum()))) or 1.0


def principal_start(modality: Modality, size: int) -> Tensor:
    """Principal components of the users' rows, each of standard deviation 0.1, (n_users, size).

    Columns beyond the rank, and users without a row, are drawn at random.
    """
    start = torch.empty(len(modality), size).normal_(std=FIRST_SIZE)
    there = modality.present
    if not there.any():
        return start
    rows = modality.features[there]
    found = thin_svd(rows - rows.mean(axis=0), rank=size).features
    deviation = found.std(axis=0)
    real = deviation > 1e-6
    columns = torch.from_numpy(found[:, real] * (FIRST_SIZE / deviation[real]))
    start[torch.from_numpy(np.flatnonzero(there)), : columns.shape[1]] = columns
    return start


# ------------------------------------------------------------------ graphs and branches


def neighbour_graph(modality: Modality, k: int, listen: bool, weighted: bool) -> NeighbourGraph:
    """Each row with its k nearest by cosine, in both directions, and itself.

    Args:
        modality: features of the rows.
        k: number of nearest rows.
        listen: False connects each row only to itself.
        weighted: give an edge the cosine of its ends as weight, at least 0.001.
    """
    n = len(modality)
    if not listen:
        return NeighbourGraph(sp.csr_array((n, n)), weighted)
    nearest = knn_graph(
        modality.features,
        modality.present,
        k,
        include_self=False,
        block=KNN_BLOCK,
        normalisation="none",
    ).scipy()
    if weighted:
        nearest.data = np.maximum(_edge_cosines(modality, nearest), LEAST_WEIGHT)
    return NeighbourGraph(nearest, weighted)


def _edge_cosines(modality: Modality, edges: sp.csr_array) -> np.ndarray:
    owners = row_of_entries(edges)
    lengths = np.linalg.norm(modality.features, axis=1)
    found = np.empty(edges.nnz, np.float32)
    for start in range(0, edges.nnz, KNN_BLOCK * 16):
        at = slice(start, start + KNN_BLOCK * 16)
        one, other = owners[at], edges.indices[at]
        products = np.einsum("nd,nd->n", modality.features[one], modality.features[other])
        found[at] = products / np.maximum(lengths[one] * lengths[other], 1e-12)
    return found


class Branch(nn.Module):
    """R3: frozen features, a projection to width d, layers of attention over a graph.

    `h = (X - c) W + b` with c the mean row, then in each layer
    `h = Dropout(LeakyReLU(attention(h)))`.

    Args:
        modality: the features, of items or of users.
        view: training data, for the policies for missing rows that read other data.
        config: options.
        k: number of nearest rows.
        listen: False connects each row only to itself.
    """

    middle: Tensor

    def __init__(
        self, modality: Modality, view: TrainView, config: RecGOATConfig, k: int, listen: bool
    ) -> None:
        super().__init__()
        narrow = fewer_columns(modality, config.feature_rank)
        policy = config.missing if modality.entity == "item" else "zero"
        self.input = ModalityInput(narrow, policy, view)
        size, self.rate = config.embedding_size, config.dropout
        self.projection = nn.Linear(narrow.dim, size)
        middle = present_mean(narrow) * np.float32(config.centre)
        self.register_buffer("middle", torch.from_numpy(middle), persistent=False)
        self._initialise(narrow, modality.dim, config.centre)
        layers = [
            GraphAttention(size, size, config.n_heads, self.rate)
            for _ in range(config.n_attention_layers)
        ]
        self.layers = cast("Sequence[GraphAttention]", nn.ModuleList(layers))
        self.graph: NeighbourGraph | None = None
        if layers:
            alike = centred(modality) if config.centre else modality
            self.graph = neighbour_graph(alike, k, listen, config.weigh_edges)

    def _initialise(self, narrow: Modality, width: int, centred: bool) -> None:
        """Gaussian weights, whose distribution an exact rotation to fewer columns does not change.

        For centred features they are divided by the features' root mean square length, so that
        the result has the size that the default initialisation gives standardised features.
        """
        bound = 1 / math.sqrt(width)
        if centred:
            length = spread_of(narrow, self.middle.numpy())
            nn.init.normal_(self.projection.weight, std=1 / math.sqrt(3) / length)
            nn.init.zeros_(self.projection.bias)
        else:
            nn.init.normal_(self.projection.weight, std=bound / math.sqrt(3))
            nn.init.uniform_(self.projection.bias, -bound, bound)

    def projected(self) -> Tensor:
        """`(X - c) W + b` of all rows, with c the mean row or, not centred, zero."""
        product = self.input.linear(self.projection).to(self.middle.dtype)
        with torch.autocast(product.device.type, enabled=False):
            return product - self.projection.weight @ self.middle

    def forward(self, rows: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Vectors of all rows, or of `rows`; without dropout unless given `rng`."""
        h = self.projected()
        if self.graph is None:
            return h if rows is None else functional.embedding(rows, h)
        last = len(self.layers) - 1
        for at, layer in enumerate(self.layers):
            h = layer(h, self.graph, rows if at == last else None, rng)
            h = functional.leaky_relu(h, SLOPE)
            if rng is not None and self.rate:
                h = h * kept(h.shape, self.rate, rng)
        return h

    @torch.no_grad()
    def entropy(self, rows: Tensor) -> float | None:
        """Entropy of the first layer's attention at `rows`; None without a graph."""
        if self.graph is None:
            return None
        return self.layers[0].entropy(self.projected(), self.graph, rows)


class Collaborative(nn.Module):
    """R4: users' and items' free vectors, propagated over the interactions, mean of all layers.

    Args:
        config: options.
        view: training interactions.
        users: users' free vectors at the start, (n_users, d).
    """

    def __init__(self, config: RecGOATConfig, view: TrainView, users: Tensor) -> None:
        super().__init__()
        self.n_layers = config.n_layers
        self.users = nn.Parameter(users)
        items = torch.empty(view.n_items, config.embedding_size).normal_(std=FIRST_SIZE)
        self.items = nn.Parameter(items)
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        self.attention: Sequence[GraphAttention] | None = None
        if config.user_item == "attentive" and config.n_layers:
            size = config.embedding_size
            layers = [
                GraphAttention(size, size, config.n_heads, config.dropout)
                for _ in range(config.n_layers)
            ]
            self.attention = cast("Sequence[GraphAttention]", nn.ModuleList(layers))
            self.neighbours = NeighbourGraph(self.graph.scipy())

    def forward(
        self, users: Tensor | None = None, rng: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Propagated vectors of users (all, or the rows `users`) and of all items."""
        if self.attention is None:
            return self.graph.propagate_sides(self.users, self.items, self.n_layers, rows=users)
        layer = torch.cat([self.users, self.items])
        total = layer
        for attention in self.attention:
            layer = attention(layer, self.neighbours, rng=rng)
            total = total + layer
        of_users, of_items = (total / (self.n_layers + 1)).split([len(self.users), len(self.items)])
        return of_users if users is None else functional.embedding(users, of_users), of_items

    def to_users(self, items: Tensor, rows: Tensor | None) -> Tensor:
        """One step from all items to users: `A items`, of all users or of `rows`."""
        nothing = torch.zeros_like(self.users)
        return self.graph.propagate_sides(nothing, items, 1, "last", rows)[0]


# ------------------------------------------------------------------ fusion


def first_weights(names: Sequence[str]) -> list[float]:
    """Initial weights of the id and of each modality, summing to one.

    Example:
        >>> first_weights(["image", "text"]), first_weights(["image"])
        ([0.15, 0.05, 0.8], [0.15, 0.85])
    """
    shares = [TEXT_SHARE if name == "text" else OTHER_SHARE for name in names]
    rest = (1 - ID_SHARE) / sum(shares) if shares else 0.0
    of_id = ID_SHARE if shares else 1.0
    return [of_id, *(round(share * rest, 12) for share in shares)]


class Fusion(nn.Module):
    """R13 and its alternatives: one vector of length one from an id's and the modalities'.

    "oat" adds `w_id z_id + sum_m w_m z_m`; "sum" passes the sum, "concat" all side by side,
    through a linear map. Then LayerNorm, dropout, and length one.

    Args:
        config: options.
        names: modalities in order.
    """

    def __init__(self, config: RecGOATConfig, names: Sequence[str]) -> None:
        super().__init__()
        size, n = config.embedding_size, len(names)
        self.kind, self.weighting, self.rate = config.fusion, config.weights, config.dropout
        if config.weight_floor * (n + 1) >= 1:
            raise ConfigError(
                f"a weight_floor below 1 over the number of sources, {n + 1}",
                f"{config.weight_floor:g}",
                "choose a smaller one",
            )
        self.floor = config.weight_floor
        self.n = n
        self.norm = nn.LayerNorm(size)
        self.linear: nn.Linear | None = None
        self.logits: nn.Parameter | None = None
        self.gate: nn.Sequential | None = None
        start = torch.tensor(first_weights(names))
        if self.kind != "oat":
            self.linear = nn.Linear(size * (1 + n) if self.kind == "concat" else size, size)
        elif n and self.weighting in ("softmax", "free"):
            self.logits = nn.Parameter(start.log() if self.weighting == "softmax" else start[1:])
        elif n and self.weighting == "per_item":
            last = nn.Linear(max(1, size // 2), n + 1)
            with torch.no_grad():
                last.bias.copy_(start.log())
            self.gate = nn.Sequential(nn.Linear(size * (n + 1), max(1, size // 2)), nn.Tanh(), last)

    def weights(self, vectors: Sequence[Tensor]) -> Tensor:
        """Weights of the id and of each modality, (M + 1,), or by a gate, (n, M + 1)."""
        if self.gate is not None:
            return self._floored(self.gate(torch.cat(list(vectors), dim=1)))
        if self.logits is None:
            return vectors[0].new_full((self.n + 1,), 1 / (self.n + 1))
        if self.weighting == "free":
            return torch.cat([1 - self.logits.sum(0, keepdim=True), self.logits])
        return self._floored(self.logits)

    def _floored(self, logits: Tensor) -> Tensor:
        """A softmax in which no weight is below the floor."""
        return self.floor + (1 - self.floor * (self.n + 1)) * torch.softmax(logits, dim=-1)

    def forward(self, vectors: Sequence[Tensor], rng: torch.Generator | None = None) -> Tensor:
        """The fused vectors (n, d) of the id vectors and the modalities' vectors, (n, d) each."""
        if self.kind == "concat":
            fused = torch.cat(list(vectors), dim=1)
        elif self.kind == "sum":
            fused = torch.stack(list(vectors)).sum(0)
        else:
            weights = self.weights(vectors)
            fused = weights[..., 0:1] * vectors[0]
            for at, vector in enumerate(vectors[1:], 1):
                fused = fused + weights[..., at : at + 1] * vector
        if self.linear is not None:
            fused = self.linear(fused)
        fused = self.norm(fused)
        if rng is not None and self.rate:
            fused = fused * kept(fused.shape, self.rate, rng)
        return unit(fused)
