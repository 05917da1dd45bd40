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
    plain,
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
        if rows is not None:
            return self.propagate_at(x, n_layers, rows, readout)[0]
        result: Tensor = _Propagation.apply(x, self.csr, weights)  # type: ignore[no-untyped-call]
        return result

    def propagate_at(
        self, x: Tensor, n_layers: int, rows: Tensor, readout: Readout = "mean"
    ) -> tuple[Tensor, Tensor]:
        """`propagate` at `rows` and, beside it, `x[rows]`, each (len(rows), d).

        For losses that also penalise the first layer: the two gradients share one table.
        """
        weights = layer_weights(n_layers, readout)
        final, start = _PropagationAt.apply(  # type: ignore[no-untyped-call]
            x, self.csr, self.n_users, weights, rows
        )
        return final, start

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


class _Propagation(torch.autograd.Function):
    """`sum_l weights[l] A^l x` for a symmetric A; the gradient is the same of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: CSR, weights: Sequence[float]) -> Tensor:
        ctx.matrix, ctx.weights = matrix, weights
        return _polynomial(matrix, plain(x), weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _polynomial(ctx.matrix, plain(gradients[0]), ctx.weights), None, None


class _PropagationAt(torch.autograd.Function):
    """The rows `rows` of `sum_l weights[l] A^l x` and of x itself, for a symmetric A.

    Both in one function, so that both gradients meet in one dense table: autograd alone would
    fill a second one for the rows of x and add the two.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, matrix: CSR, n_users: int, weights: Sequence[float], rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.matrix, ctx.weights, ctx.rows = matrix, weights, rows
        x = plain(x)
        start = x.index_select(0, rows)
        result = start * weights[0]
        layer = x
        for weight in weights[1:-1]:
            layer = multiply(matrix, layer)
            if weight:
                result.add_(layer.index_select(0, rows), alpha=weight)
        if len(weights) > 1:
            result.add_(_last_layer(matrix, layer, rows, n_users), alpha=weights[-1])
        return result, start

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, of_start = gradients
        weights, rows, n = ctx.weights, ctx.rows, ctx.matrix.n_rows
        layers = [] if gradient is None else [plain(gradient) * weight for weight in weights]
        if of_start is not None:
            layers[:1] = [layers[0] + of_start if layers else plain(of_start)]
        if not layers:
            return None, None, None, None, None
        result = scatter(layers[-1], rows, n)
        for layer in reversed(layers[:-1]):
            result = multiply(ctx.matrix, result).index_add_(0, rows, layer)
        return result, None, None, None, None


def _polynomial(matrix: CSR, x: Tensor, weights: Sequence[float]) -> Tensor:
    """`w_0 x + A (w_1 x + A (w_2 x + ...))`: Horner's rule, one running matrix."""
    result = x * weights[-1]
    for weight in reversed(weights[:-1]):
        result = multiply(matrix, result)
        if weight:
            result.add_(x, alpha=weight)
    return result


def _last_layer(matrix: CSR, x: Tensor, rows: Tensor, n_users: int) -> Tensor:
    """`(A x)[rows]`, decided for users and items apart: a batch has few of the users' edges and
    most of the items', where taking rows from the whole product is cheaper.
    """
    if x.device.type != "cpu":
        return multiply_rows(matrix, x, rows)
    n_edges = len(matrix.indices) // 2
    of_users = CSR(
        matrix.indptr[: n_users + 1],
        matrix.indices[:n_edges],
        matrix.values[:n_edges],
        matrix.n_columns,
    )
    of_items = CSR(
        matrix.indptr[n_users:] - n_edges,
        matrix.indices[n_edges:],
        matrix.values[n_edges:],
        matrix.n_columns,
    )
    is_item = rows >= n_users
    result = x.new_empty(len(rows), x.shape[1])
    for half, where, first in ((of_users, ~is_item, 0), (of_items, is_item, n_users)):
        at = torch.nonzero(where).flatten()
        if len(at):
            mine = rows.index_select(0, at) - first
            result.index_copy_(0, at, multiply_rows(half, x, mine))
    return result
