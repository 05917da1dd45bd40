"""The graph of users and items, and light propagation over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modalign.graph.normalize import normalise
from modalign.graph.propagate import (
    CSR,
    MaskedGraph,
    SparseGraph,
    layer_weights,
    multiply,
    multiply_rows,
    plain,
    scatter,
)

Readout = Literal["mean", "sum", "last"]
By = Literal["uniform", "degree"]


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
        masked: MaskedGraph | None = None,
    ) -> Tensor:
        """The layers `x, A x, ..., A^L x` read out as their mean, sum, or the last alone.

        Args:
            x: (n_users + n_items, d), users first.
            n_layers: L >= 0.
            readout: "mean", "sum" or "last".
            rows: int64 nodes; the result is then (len(rows), d), and layer L is computed only
                there.
            masked: a result of `masked` that replaces A.

        Returns:
            (n_users + n_items, d), or (len(rows), d); differentiable in x.
        """
        weights = layer_weights(n_layers, readout)
        if rows is not None:
            return self.propagate_at(x, n_layers, rows, readout, masked)[0]
        both = masked or (self.csr, self.csr)
        result: Tensor = _Propagation.apply(x, *both, weights)  # type: ignore[no-untyped-call]
        return result

    def propagate_at(
        self,
        x: Tensor,
        n_layers: int,
        rows: Tensor,
        readout: Readout = "mean",
        masked: MaskedGraph | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`propagate` at `rows` and `x[rows]`, each (len(rows), d).

        For losses that also penalise the first layer: the two gradients share one table.

        Args:
            x: (n_users + n_items, d), users first.
            n_layers: L >= 0.
            rows: int64 nodes.
            readout: "mean", "sum" or "last".
            masked: a result of `masked` that replaces A.
        """
        weights = layer_weights(n_layers, readout)
        both = masked or (self.csr, self.csr)
        final, start = _PropagationAt.apply(  # type: ignore[no-untyped-call]
            x, *both, self.n_users, weights, rows
        )
        return final, start

    def propagate_sides(
        self,
        users: Tensor,
        items: Tensor,
        n_layers: int,
        readout: Readout = "mean",
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`propagate` of users and items in separate tables, with less memory.

        Args:
            users: (n_users, d).
            items: (n_items, d).
            n_layers: L >= 0.
            readout: "mean", "sum" or "last".
            rows: int64 users, repeats allowed; None for all.

        Returns:
            Users, (n_users, d) or (len(rows), d), and all items, (n_items, d).

        Example:
            >>> graph = BipartiteGraph(torch.tensor([0, 0]), torch.tensor([0, 1]), 1, 2)
            >>> user, items = torch.tensor([[1.0]]), torch.tensor([[0.0], [2.0]])
            >>> users, items = graph.propagate_sides(user, items, 1, "sum")
            >>> [[round(one, 4) for one in row] for row in (*users.tolist(), *items.tolist())]
            [[2.4142], [0.7071], [2.7071]]
        """
        weights = layer_weights(n_layers, readout)
        of_users, of_items = _Sides.apply(  # type: ignore[no-untyped-call]
            users, items, self.halves(), weights, rows
        )
        return of_users, of_items

    def halves(self) -> tuple[CSR, CSR]:
        """The matrix of users x items and its transpose; the weights are views of those of A."""
        n_edges = len(self.indices) // 2
        at = self.n_users
        of_users = CSR(
            self.indptr[: at + 1], self.indices[:n_edges] - at, self.values[:n_edges], self.n_items
        )
        of_items = CSR(
            self.indptr[at:] - n_edges, self.indices[n_edges:], self.values[n_edges:], at
        )
        return of_users, of_items

    def edges(self) -> tuple[Tensor, Tensor]:
        """Users and items of all edges, int64, ordered by user and then item."""
        of_users = self.halves()[0]
        return of_users.owner, of_users.indices.long()

    def drop_edges(self, rate: float, rng: torch.Generator, by: By = "uniform") -> BipartiteGraph:
        """A graph without a share `rate` of the edges, normalised again, on the same device.

        Args:
            rate: in [0, 1).
            rng: a generator on the CPU.
            by: "uniform", or "degree" to drop edges of popular nodes first, see `kept_edges`.

        Raises:
            ValueError: the rate is out of bounds, or `by` is unknown.
        """
        users, items = (ends.cpu() for ends in self.edges())
        kept = torch.zeros(len(users), dtype=torch.bool)
        kept[kept_edges(users, items, rate, rng, by)] = True
        return self.thinned(kept.to(self.indptr.device))

    def thinned(self, kept: Tensor) -> BipartiteGraph:
        """The graph of some of the edges, normalised by its own degrees.

        It takes parts of this graph's arrays, without a search for repeats: a quarter of the time
        of building it from the edges.

        Args:
            kept: bool, in the order of `edges()`.
        """
        of_users, of_items = self.halves()
        order = torch.argsort(of_users.indices, stable=True)
        return BipartiteGraph._of_halves(_part(of_users, kept), _part(of_items, kept[order]))

    @classmethod
    def _of_halves(cls, of_users: CSR, of_items: CSR) -> BipartiteGraph:
        """A graph from the structure of users x items and of its transpose."""
        graph = cls.__new__(cls)
        nn.Module.__init__(graph)
        graph.n_users, graph.n_items = of_users.n_rows, of_items.n_rows
        graph.shape, graph.symmetric = (of_users.n_rows + of_items.n_rows,) * 2, True
        indptr = torch.cat([of_users.indptr, of_items.indptr[1:] + len(of_users.indices)])
        indices = torch.cat([of_users.indices + graph.n_users, of_items.indices])
        degrees = indptr.diff()
        factor = degrees.clamp(min=1).double().pow(-0.5)
        values = torch.repeat_interleave(factor, degrees.long()) * factor[indices.long()]
        for name, array in (("indptr", indptr), ("indices", indices), ("values", values.float())):
            graph.register_buffer(name, array, persistent=False)
        return graph


def _part(half: CSR, kept: Tensor) -> CSR:
    """The structure of some entries."""
    before = torch.zeros(len(kept) + 1, dtype=torch.int32, device=kept.device)
    torch.cumsum(kept, 0, out=before[1:])
    indptr = before[half.indptr.long()]
    return CSR(indptr, half.indices[kept], half.values[:0], half.n_columns)


def kept_edges(
    users: Tensor, items: Tensor, rate: float, rng: torch.Generator, by: By = "uniform"
) -> Tensor:
    """Positions of the edges that stay: `n - round(rate * n)` of them, ascending, int64.

    "uniform" keeps every set of that size with the same probability. "degree" draws the edges
    that stay one after the other without replacement, with probability proportional to
    `1 / sqrt(d_u d_i)`, so that edges between popular nodes are dropped first. Both draw Gumbel
    noise once per edge: the largest keys `log weight + noise` are such a sample.

    Args:
        users: user of each edge, int64, shape (n,).
        items: item of each edge, int64, shape (n,).
        rate: share of edges to drop, in [0, 1).
        rng: a generator on the CPU.
        by: "uniform" or "degree".

    Raises:
        ValueError: the rate is out of bounds, or `by` is unknown.

    Source: Zhou and Shen, "A tale of two graphs" (FREEDOM), MM 2023, section 3.3
    (degree-sensitive edge pruning); Efraimidis and Spirakis 2006 (sampling by keys).

    Example:
        >>> edges = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 2])
        >>> len(kept_edges(*edges, rate=0.5, rng=torch.Generator().manual_seed(1)))
        2
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"expected a share of edges to drop in [0, 1), got {rate}")
    draw = torch.rand(len(users), generator=rng, dtype=torch.float64)
    keys = -torch.log(-torch.log(draw.clamp(min=torch.finfo(torch.float64).tiny)))
    if by == "degree":
        degree_of_user = torch.bincount(users).double()[users]
        degree_of_item = torch.bincount(items).double()[items]
        keys -= 0.5 * torch.log(degree_of_user * degree_of_item)
    elif by != "uniform":
        raise ValueError(f"expected edges to be dropped by uniform or degree, got {by!r}")
    n_kept = len(users) - round(rate * len(users))
    return torch.topk(keys, n_kept, sorted=False).indices.sort().values


class _Propagation(torch.autograd.Function):
    """`sum_l weights[l] A^l x`; the gradient is the same polynomial in the transpose of A."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, matrix: CSR, transpose: CSR, weights: Sequence[float]
    ) -> Tensor:
        ctx.transpose, ctx.weights = transpose, weights
        return _polynomial(matrix, plain(x), weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _polynomial(ctx.transpose, plain(gradients[0]), ctx.weights), None, None, None


class _PropagationAt(torch.autograd.Function):
    """The rows `rows` of `sum_l weights[l] A^l x` and of x itself.

    One function for both, so that both gradients are added in one dense table: autograd would
    allocate a second table for the rows of x and add the two.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        matrix: CSR,
        transpose: CSR,
        n_users: int,
        weights: Sequence[float],
        rows: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.transpose, ctx.weights, ctx.rows = transpose, weights, rows
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
        weights, rows, n = ctx.weights, ctx.rows, ctx.transpose.n_rows
        if gradient is None:
            if of_start is None:
                return None, None, None, None, None, None
            result = scatter(plain(of_start), rows, n)
        else:
            gradient = plain(gradient)
            result = scatter(gradient * weights[-1], rows, n)
            for weight in reversed(weights[:-1]):
                result = multiply(ctx.transpose, result)
                if weight:
                    result.index_add_(0, rows, gradient, alpha=weight)
            if of_start is not None:
                result.index_add_(0, rows, plain(of_start))
        return result, None, None, None, None, None


class _Sides(torch.autograd.Function):
    """Users and items of `sum_l weights[l] A^l x`, each by a separate chain of products."""

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        halves: tuple[CSR, CSR],
        weights: Sequence[float],
        rows: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.halves, ctx.weights, ctx.rows, ctx.dtype = halves, weights, rows, users.dtype
        sides = (_SideTable(plain(users)), _SideTable(plain(items)))
        return _chain(halves, sides, weights, 0, rows), _chain(halves, sides, weights, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        some = [None if one is None else plain(one) for one in gradients]
        width = next((one.shape[1] for one in some if one is not None), None)
        if width is None:
            return None, None, None, None, None
        users, items = (
            ctx.halves[side].values.new_zeros(ctx.halves[side].n_rows, width, dtype=ctx.dtype)
            if one is None
            else one
            for side, one in enumerate(some)
        )
        sides = (_SideTable(users, None if some[0] is None else ctx.rows), _SideTable(items))
        for_users, for_items = (_chain(ctx.halves, sides, ctx.weights, side) for side in (0, 1))
        return for_users, for_items, None, None, None


class _SideTable(NamedTuple):
    """A table of one side; with rows, zeros but for `values` added at them."""

    values: Tensor
    rows: Tensor | None = None

    def dense(self, n_rows: int, weight: float) -> Tensor:
        """`weight` times the table; read-only, since it may be the table itself."""
        values = self.values if weight == 1 else self.values * weight
        return values if self.rows is None else scatter(values, self.rows, n_rows)

    def add_to(self, result: Tensor, weight: float) -> None:
        """Add `weight` times the table."""
        if self.rows is None:
            result.add_(self.values, alpha=weight)
        else:
            result.index_add_(0, self.rows, self.values, alpha=weight)


def _chain(
    halves: tuple[CSR, CSR],
    sides: tuple[_SideTable, _SideTable],
    weights: Sequence[float],
    side: int,
    rows: Tensor | None = None,
) -> Tensor:
    """One side of `sum_l weights[l] A^l x` by Horner's rule, or its rows `rows`.

    A maps one side to the other, so that the users' result is `w_0 u + R (w_1 i + R' (w_2 u +
    ...))`, where R is the users' half: only one table at a time is in memory.
    """
    last = len(weights) - 1
    at = side ^ (last % 2)
    result = sides[at].dense(halves[at].n_rows, weights[-1])
    for layer in range(last - 1, 0, -1):
        at = side ^ (layer % 2)
        result = multiply(halves[at], result)
        if weights[layer]:
            sides[at].add_to(result, weights[layer])
    start = sides[side].values
    if not last:
        return result.clone() if rows is None else result.index_select(0, rows)
    if rows is not None:
        result = multiply_rows(halves[side], result, rows)
        return result.add_(start.index_select(0, rows), alpha=weights[0])
    result = multiply(halves[side], result)
    if weights[0]:
        sides[side].add_to(result, weights[0])
    return result


def _polynomial(matrix: CSR, x: Tensor, weights: Sequence[float]) -> Tensor:
    """`w_0 x + A (w_1 x + A (w_2 x + ...))`, by Horner's rule with one matrix in memory."""
    result = x * weights[-1]
    for weight in reversed(weights[:-1]):
        result = multiply(matrix, result)
        if weight:
            result.add_(x, alpha=weight)
    return result


def _last_layer(matrix: CSR, x: Tensor, rows: Tensor, n_users: int) -> Tensor:
    """`(A x)[rows]`, computed separately for users and items: a batch has few of the users' edges
    and most of the items', for which rows of the whole product are cheaper.
    """
    if x.device.type != "cpu":
        return multiply_rows(matrix, x, rows)
    of_users, of_items = matrix.rows(0, n_users), matrix.rows(n_users, matrix.n_rows)
    is_item = rows >= n_users
    result = x.new_empty(len(rows), x.shape[1])
    for half, where, first in ((of_users, ~is_item, 0), (of_items, is_item, n_users)):
        at = torch.nonzero(where).flatten()
        if len(at):
            mine = rows.index_select(0, at) - first
            result.index_copy_(0, at, multiply_rows(half, x, mine))
    return result
