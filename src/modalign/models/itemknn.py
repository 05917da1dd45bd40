"""ItemKNN: an item is scored by its similarity to the items that the user has chosen."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor

from modalign.core.interfaces import Config, Queries, Recommender
from modalign.core.sparse import csr_tensor, sparse_product
from modalign.core.topk import top
from modalign.core.view import TrainView
from modalign.data.interactions import Interactions
from modalign.models._registry import register

# Size of the block of similarities that is computed at a time: 32 MB of float32.
BLOCK_CELLS = 8_000_000


class ItemKNNConfig(Config):
    """Options of ItemKNN."""

    neighbours: Annotated[int, Field(ge=1)] = 100
    """Number of most similar items kept for each item."""
    shrinkage: Annotated[float, Field(ge=0)] = 0.0
    """Constant in the denominator of the cosine: shrinks similarities that rest on few users."""
    weighting: Literal["none", "tfidf", "bm25"] = "none"
    """Weight of an interaction before the cosine: one, smaller for users with many items (tfidf),
    or also smaller for popular items (bm25)."""


@register(
    "itemknn",
    config=ItemKNNConfig,
    toy={"neighbours": 1000},
    family="baseline",
    paper="Sarwar et al., WWW 2001; Deshpande & Karypis, TOIS 2004",
)
class ItemKNN(Recommender):
    """Neighbourhoods of items by the cosine of their users.

    `score(u, j) = sum of s(i, j) over the items i of u's history that are among the k nearest
    of j`, where `s(i, j) = <x_i, x_j> / (|x_i| |x_j| + shrinkage)` and `x_i` is the column of
    item i in the binary (or weighted) matrix of training interactions; `s(j, j) = 0`. Of
    equally similar items at the k-th place the lower rows are kept.

    Only the history is read, so a user that training never saw is scored in the same way.

    Limits: the similarities of all pairs are computed, in blocks of rows; `n_items * k` of them
    are kept.

    Source: Deshpande and Karypis, "Item-based top-N recommendation algorithms",
    ACM Transactions on Information Systems 22(1), 2004, section 4 (cosine, no row
    normalisation of the kept similarities).

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 0, 1]), items=torch.tensor([0, 1, 1]))
        >>> model = ItemKNN(ItemKNNConfig(neighbours=2), view)
        >>> model.solve(view)
        >>> one = torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1)
        >>> history = csr_tensor(*one, (1, 3))  # the first item
        >>> scores = model.score(Queries(torch.tensor([-1]), history))
        >>> [round(score, 4) for score in scores[0].tolist()]  # 1 / sqrt(1 * 2) for item 1
        [0.0, 0.7071, 0.0]
    """

    needs = ("history",)
    unseen_users = True
    factorised = False

    row_starts: Tensor
    columns: Tensor
    similarities: Tensor

    def __init__(self, config: ItemKNNConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: ItemKNNConfig = config
        self.kept = max(0, min(config.neighbours, view.n_items - 1))
        # A CSR matrix whose row i lists the items j that have i among their neighbours. It has
        # exactly `kept` entries in each column, so that its three arrays have fixed shapes.
        n_entries = self.kept * view.n_items
        self.register_buffer("row_starts", torch.zeros(view.n_items + 1, dtype=torch.int64))
        self.register_buffer("columns", torch.zeros(n_entries, dtype=torch.int32))
        self.register_buffer("similarities", torch.zeros(n_entries))

    def solve(self, view: TrainView) -> None:
        """Find the neighbours of every item, block by block."""
        matrix = Interactions(view.users.numpy(), view.items.numpy()).csr(
            view.n_users, view.n_items
        )
        weighted = sp.csc_array(_weighted(matrix, self.config.weighting))
        nearest, values = _neighbours(weighted, self.kept, self.config.shrinkage)
        targets = np.repeat(np.arange(view.n_items), self.kept)
        order = np.argsort(nearest.ravel(), kind="stable")
        counts = np.bincount(nearest.ravel(), minlength=view.n_items)
        self.row_starts[1:] = torch.from_numpy(np.cumsum(counts))
        self.columns.copy_(torch.from_numpy(targets[order]))
        self.similarities.copy_(torch.from_numpy(values.ravel()[order]))

    def score(self, queries: Queries) -> Tensor:
        """Sums of similarities to the history's items, (B, n_items)."""
        arrays = self.row_starts.int(), self.columns, self.similarities
        weights = csr_tensor(*arrays, (self.n_items, self.n_items))
        return sparse_product(queries.histories(), weights).to_dense()


def _weighted(matrix: sp.csr_array, weighting: str) -> sp.csr_array:
    """`matrix` (users x items) with each one replaced by its weight.

    tfidf: `log(n_items / n_u)`, `n_u` the interactions of the user: the item's column is a
    document, its users are the words. bm25: `log(1 + (n_items - n_u + 0.5) / (n_u + 0.5)) *
    (k1 + 1) / (1 + k1 * (1 - b + b * n_i / mean n_i))` with k1 = 1.2, b = 0.75.
    """
    if weighting == "none":
        return matrix
    n_users, n_items = matrix.shape
    per_user = np.diff(matrix.indptr)
    per_item = np.bincount(matrix.indices, minlength=n_items)
    if weighting == "tfidf":
        user_weight = np.log(n_items / np.maximum(per_user, 1))
        item_weight = np.ones(n_items)
    else:
        k1, b = 1.2, 0.75
        user_weight = np.log1p((n_items - per_user + 0.5) / (per_user + 0.5))
        length = per_item / max(per_item.mean(), 1e-12)
        item_weight = (k1 + 1) / (1 + k1 * (1 - b + b * length))
    weights = np.repeat(user_weight, per_user) * item_weight[matrix.indices]
    return sp.csr_array(
        (weights.astype(np.float32), matrix.indices, matrix.indptr), shape=(n_users, n_items)
    )


def _neighbours(weighted: sp.csc_array, k: int, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n_items, k) of each item's nearest items and their similarities, float32."""
    n_items = weighted.shape[1]
    nearest = np.zeros((n_items, k), np.int64)
    values = np.zeros((n_items, k), np.float32)
    norms = np.sqrt(np.asarray((weighted * weighted).sum(axis=0), np.float32)).ravel()
    step = max(1, BLOCK_CELLS // max(n_items, 1))
    items_by_users = sp.csr_array(weighted.T)
    for start in range(0, n_items, step):
        rows = np.arange(start, min(start + step, n_items))
        block = (items_by_users[rows] @ weighted).toarray()  # (b, n_items)
        block /= np.maximum(norms[rows, None] * norms + np.float32(shrinkage), 1e-12)
        block[np.arange(len(rows)), rows] = -np.inf  # an item is not its own neighbour
        best = top(torch.from_numpy(block), k)[1].sort(1).values.numpy()
        nearest[rows] = best
        values[rows] = np.take_along_axis(block, best, axis=1)
    return nearest, values
