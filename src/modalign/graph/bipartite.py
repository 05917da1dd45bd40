"""The graph of users and items, and light propagation over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modalign.graph.augment import By, kept_edges
from modalign.graph.normalize import normalise
from modalign.graph.propagate import (
    CSR,
    SparseGraph,
    layer_weights,
    multiply,
    multiply_rows,
    scatter,
)

Readout = Literal["mean", "sum", "last"]


class BipartiteGraph(SparseGraph):
    """The symmetric normalised matrix A of training interactions over users, then items.

    Node u is user u, node `n_users + i` is item i, and `A_ui = A_iu = (d_u d_i)^-1/2` for each
    interaction, with d the degrees; a node without interactions has a row of zeros. The
    eigenvalues of A lie in [-1, 1].

    A is its own transpose, and propagation is a polynomial in A: the gradient is the same
    polynomial of the gradient, and nothing is stored for it.

    Args:
        users, items: training interactions, int64, (n,); an interaction given twice counts once.
        n_users, n_items: sizes.

    Source: He et al., "LightGCN", SIGIR 2020, equations 3 to 8.

    Example:
        >>> graph = BipartiteGraph(torch.tensor([0, 0]), torch.tensor([0, 1]), 1, 2)
        >>> x = torch.tensor([[1.0], [0.0], [2.0]])  # one user, two items
        >>> [[round(one, 4) for one in row] for row in graph.propagate(x, 1, "sum").tolist()]
        [[2.4142], [0.7071], [2.7071]]
    """

    def __init__(self, users: Tensor, items: Tensor, n_users: int, n_items: int) -> None:
        pairs = torch.unique(users * n_items + items).cpu().numpy()  # sorted by user, then item
        user, item = pairs // max(n_items, 1), pairs % max(n_items, 1)
        rows = np.concatenate([user, item + n_users])
        columns = np.concatenate([item + n_users, user])
        nodes = n_users + n_items
        ones = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(nodes, nodes))
        super().__init__(normalise(ones, "symmetric"), symmetric=True)
        self.n_users, self.n_items = n_users, n_items

    def propagate(
        self,
        x: Tensor,
        n_layers: int,
        readout: Readout = "mean",
        rows: Tensor | None = None,
    ) -> Tensor:
        """The layers `x, A x, ..., A^L x` read out as their mean, sum, or the last alone.

        Args:
            x: (n_users + n_items, d), users first.
            n_layers: L >= 0.
            readout: "mean", "sum" or "last".
            rows: int64 nodes; the result is then (len(rows), d), and layer L is computed where
                it is wanted only.

        Returns:
            (n_users + n_items, d), or (len(rows), d); differentiable in x.
        """
        weights = layer_weights(n_layers, readout)
        return propagate(x, self.csr, weights, rows)

    def edges(self) -> tuple[Tensor, Tensor]:
        """Users and items of all edges, int64, ordered by user and then item."""
        n_edges = len(self.indices) // 2
        counts = (self.indptr[1 : self.n_users + 1] - self.indptr[: self.n_users]).long()
        users = torch.repeat_interleave(counts)
        return users, self.indices[:n_edges].long() - self.n_users

    def drop_edges(self, rate: float, rng: torch.Generator, by: By = "uniform") -> BipartiteGraph:
        """A graph with a share `rate` of the edges gone, normalised anew, on the same device.

        Args:
            rate: in [0, 1).
            rng: a generator on the CPU.
            by: "uniform", or "degree": edges of popular nodes go first. See
                `augment.kept_edges`.
        """
        users, items = (ends.cpu() for ends in self.edges())
        kept = kept_edges(users, items, rate, rng, by)
        smaller = BipartiteGraph(users[kept], items[kept], self.n_users, self.n_items)
        return smaller.to(self.indptr.device)


def propagate(
    x: Tensor, matrix: CSR, weights: Sequence[float], rows: Tensor | None = None
) -> Tensor:
    """`sum_l weights[l] A^l x` for a symmetric A, at `rows` only where given."""
    result: Tensor = _Propagation.apply(x, matrix, weights, rows)  # type: ignore[no-untyped-call]
    return result


class _Propagation(torch.autograd.Function):
    """`sum_l weights[l] A^l x`, at `rows` only where given, for a symmetric A."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        matrix: CSR,
        weights: Sequence[float],
        rows: Tensor | None,
    ) -> Tensor:
        ctx.matrix, ctx.weights, ctx.rows = matrix, weights, rows
        x = x.contiguous()
        if rows is None:
            return _polynomial(matrix, x, weights)
        return _polynomial_at(matrix, x, weights, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        if ctx.rows is not None:
            gradient = scatter(gradient, ctx.rows, ctx.matrix.n_rows)
        return _polynomial(ctx.matrix, gradient, ctx.weights), None, None, None


def _polynomial(matrix: CSR, x: Tensor, weights: Sequence[float]) -> Tensor:
    """`w_0 x + A (w_1 x + A (w_2 x + ...))`: Horner's rule, one running matrix."""
    result = x * weights[-1]
    for weight in reversed(weights[:-1]):
        result = multiply(matrix, result)
        if weight:
            result.add_(x, alpha=weight)
    return result


def _polynomial_at(matrix: CSR, x: Tensor, weights: Sequence[float], rows: Tensor) -> Tensor:
    """The same at `rows`: layers below the last in full, the last at the rows."""
    result = x.index_select(0, rows) * weights[0]
    layer = x
    for weight in weights[1:-1]:
        layer = multiply(matrix, layer)
        if weight:
            result.add_(layer.index_select(0, rows), alpha=weight)
    if len(weights) > 1:
        result.add_(multiply_rows(matrix, layer, rows), alpha=weights[-1])
    return result
