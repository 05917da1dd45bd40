"""Graphs of items with similar content: k nearest neighbours by cosine."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from modalign.core.topk import top
from modalign.graph.normalize import normalise
from modalign.graph.propagate import SparseGraph


def knn_graph(
    features: Tensor | np.ndarray,
    present: Tensor | np.ndarray,
    k: int,
    include_self: bool = True,
    block: int = 1024,
    normalisation: Literal["row", "symmetric", "none"] = "row",
) -> SparseGraph:
    """The directed graph from each row to its k nearest rows by cosine, S of shape (n, n).

    Row i has ones at the k rows with the largest `<x_i, x_j> / (|x_i| |x_j|)`, including itself
    with `include_self`; then `normalisation` applies: with "row", `S_ij = 1 / k`. Among equally
    near rows the smaller index comes first. Rows that are missing or have norm zero are isolated:
    they are no neighbours of other rows, and have only themselves as neighbours, or none without
    `include_self`. If there are fewer than k other rows, all are neighbours.

    Args:
        features: (n, d).
        present: bool (n,); False for missing rows, whose features are ignored.
        k: number of neighbours, at least 1; with `include_self` the row itself is one of them.
        include_self: count a row as its own nearest neighbour.
        block: number of rows compared at a time; affects memory and speed, not the result.
        normalisation: "row", "symmetric" or "none", see `modalign.graph.normalize`.

    Raises:
        ValueError: k or block is below 1, or the shapes do not fit.

    Time and memory: n^2 d multiplications; about 20 block d + 12 block n bytes, not n^2.
    Cosines are computed in float64 and compared in float32, so that equal rows are equally
    near in whatever order a matrix product adds.

    Source: Zhang et al. (LATTICE), MM 2021, equations 1 and 2; frozen as in Zhou and Shen
    (FREEDOM), MM 2023, equations 1 to 3.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> knn_graph(features, torch.ones(3, dtype=torch.bool), k=2).scipy().toarray().tolist()
        [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    features, present = torch.as_tensor(features), torch.as_tensor(present)
    n = len(features)
    if k < 1 or block < 1:
        raise ValueError(f"expected k and block of at least 1, got {k} and {block}")
    if features.ndim != 2 or present.shape != (n,):
        raise ValueError(
            f"expected features (n, d) and present (n,), got {features.shape} and {present.shape}"
        )
    known = torch.nonzero(present).flatten()
    # In blocks: norms in float64 of all rows at once copy all features in float64.
    blocks = features.split(min(block, 64))
    parts = [torch.linalg.vector_norm(x, dim=1, dtype=torch.float64) for x in blocks]
    norms = torch.cat(parts)[known]
    known, norms = known[norms > 0], norms[norms > 0]
    cosines = _Cosines(features, known, norms, block)
    edges = [_nearest(cosines, k, include_self, at) for at in range(0, len(known), block)]
    lonely = torch.ones(n, dtype=torch.bool)
    lonely[known] = False
    alone = torch.nonzero(lonely).flatten() if include_self else known[:0]
    rows = torch.cat([*(row for row, _ in edges), alone]).cpu().numpy()
    columns = torch.cat([*(column for _, column in edges), alone]).cpu().numpy()
    ones = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    return SparseGraph(normalise(ones, normalisation))


class _Cosines:
    """Cosines of some rows to all known rows, in buffers that are allocated once.

    Allocating blocks of megabytes for every pair of blocks would leave a heap of several times
    their size.
    """

    def __init__(self, features: Tensor, known: Tensor, norms: Tensor, block: int) -> None:
        self.features, self.known, self.norms, self.block = features, known, norms, block
        size = min(block, len(known))
        shape = (size, features.shape[1])
        self._rows = features.new_empty(shape)
        self._left = features.new_empty(shape, dtype=torch.float64)
        self._right = features.new_empty(shape, dtype=torch.float64)
        self._product = features.new_empty((size, size), dtype=torch.float64)
        self._all = features.new_empty((size, len(known)), dtype=torch.float32)

    def of(self, at: int) -> Tensor:
        """Cosines of the known rows `at` to `at + block`, float32, (b, n_known)."""
        left = self._unit(at, self._left)
        for start in range(0, len(self.known), self.block):
            right = self._unit(start, self._right)
            product = self._product.view(-1)[: len(left) * len(right)]
            product = product.view(len(left), len(right))
            torch.mm(left, right.T, out=product)
            self._all[: len(left), start : start + len(right)] = product
        return self._all[: len(left)]

    def _unit(self, at: int, buffer: Tensor) -> Tensor:
        chosen = self.known[at : at + self.block]
        rows = self._rows[: len(chosen)]
        torch.index_select(self.features, 0, chosen, out=rows)
        return buffer[: len(chosen)].copy_(rows).div_(self.norms[at : at + self.block, None])


def _nearest(cosines: _Cosines, k: int, include_self: bool, at: int) -> tuple[Tensor, Tensor]:
    """Edges, as rows and columns of the graph, from the known rows `at` to `at + block`."""
    known, cosine = cosines.known, cosines.of(at)  # (b, n_known)
    b = len(cosine)
    own = torch.arange(at, at + b, device=cosine.device)
    cosine[torch.arange(b), own] = torch.inf if include_self else -torch.inf
    choices = min(k, len(known) - (not include_self))
    columns = top(cosine, choices)[1]
    return known[own].repeat_interleave(choices), known[columns.flatten()]
