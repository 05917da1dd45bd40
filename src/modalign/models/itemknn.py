"""ItemKNN: an item is scored by its similarity to the items that the user has chosen."""

from __future__ import annotations

from collections.abc import Iterator
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

BLOCK_CELLS = 4_000_000
"""Similarities that are computed at a time."""
DENSE = 0.1
"""Share of pairs with a common user from which a block is sorted as a dense one."""


class ItemKNNConfig(Config):
    """Options of ItemKNN."""

    neighbours: Annotated[int, Field(ge=1)] = 100
    """Number of most similar items kept for each item."""
    shrinkage: Annotated[float, Field(ge=0)] = 100.0
    """Constant in the denominator of the cosine: shrinks similarities that rest on few users."""
    weighting: Literal["none", "tfidf", "bm25"] = "tfidf"
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

    Limits: the similarities of all pairs of items that have a user in common are computed, in
    blocks of rows; `n_items * k` of them are kept.

    Source: Deshpande and Karypis, "Item-based top-N recommendation algorithms",
    ACM Transactions on Information Systems 22(1), 2004, section 4 (cosine, no row
    normalisation of the kept similarities).

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 0, 1]), items=torch.tensor([0, 1, 1]))
        >>> model = ItemKNN(ItemKNNConfig(shrinkage=0, weighting="none"), view)
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
    """Rows (n_items, k) of each item's nearest items and their similarities, float32.

    Only pairs of items with a common user are computed: the cost is the number of pairs of items
    over the histories, not that of all pairs.
    """
    n_items = weighted.shape[1]
    nearest = np.zeros((n_items, k), np.int64)
    values = np.zeros((n_items, k), np.float32)
    norms = np.sqrt(np.asarray((weighted * weighted).sum(axis=0), np.float32)).ravel()
    items_by_users = sp.csr_array(weighted.T)
    for rows in _blocks(items_by_users):
        block = sp.csr_array(items_by_users[rows] @ weighted)  # (b, n_items)
        block.sort_indices()
        at = np.repeat(np.arange(len(rows)), np.diff(block.indptr))
        scale = norms[rows][at] * norms[block.indices] + np.float32(shrinkage)
        block.data /= np.maximum(scale, 1e-12)
        block.data[rows[at] == block.indices] = -np.inf  # an item is not its own neighbour
        if block.nnz > DENSE * len(rows) * n_items:
            dense = block.toarray()
            dense[np.arange(len(rows)), rows] = -np.inf
            best = top(torch.from_numpy(dense), k)[1].sort(1).values.numpy()
            nearest[rows], values[rows] = best, np.take_along_axis(dense, best, axis=1)
        else:
            nearest[rows], values[rows] = _best_of_sparse(block, rows, k)
    return nearest, values


def _blocks(items_by_users: sp.csr_array) -> Iterator[np.ndarray]:
    """Rows of items whose similarities fit into a block."""
    n_items = items_by_users.shape[0]
    ones = sp.csr_array(
        (np.ones(items_by_users.nnz), items_by_users.indices, items_by_users.indptr),
        shape=items_by_users.shape,
    )
    met = ones @ np.asarray(ones.sum(axis=0)).ravel()  # pairs over the histories, of each item
    cells = np.cumsum(np.minimum(met, n_items) + 1)
    block = (cells // BLOCK_CELLS).astype(np.int64)
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], n_items], strict=True):
        yield np.arange(start, stop)


def _best_of_sparse(block: sp.csr_array, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of each sparse row, by columns; then the lowest columns with nothing."""
    n, n_items = block.shape
    of = np.repeat(np.arange(n), np.diff(block.indptr))
    kept = block.data > 0
    of, columns, data = of[kept], block.indices[kept], block.data[kept]
    order = np.lexsort((columns, -data, of))
    of, columns, data = of[order], columns[order], data[order]
    counts = np.bincount(of, minlength=n)
    place = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = place < k
    nearest = np.full((n, k), n_items, np.int64)
    values = np.zeros((n, k), np.float32)
    nearest[of[first], place[first]] = columns[first]
    values[of[first], place[first]] = data[first]
    # A row with fewer is filled up with similarities of zero. It has less than k neighbours, so
    # that k of the first 2 k columns are free.
    short = np.flatnonzero(counts < k)
    if len(short):
        width = min(2 * k + 1, n_items)
        free = np.ones((len(short), width), bool)
        at, column = np.nonzero(nearest[short] < width)
        free[at, nearest[short][at, column]] = False
        inside = rows[short] < width
        free[np.flatnonzero(inside), rows[short][inside]] = False
        rank = free.cumsum(axis=1)
        free &= rank <= (k - counts[short])[:, None]
        at, column = np.nonzero(free)
        nearest[short[at], counts[short][at] + rank[at, column] - 1] = column
    order = np.argsort(nearest, axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1), np.take_along_axis(values, order, axis=1)
