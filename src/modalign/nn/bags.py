"""Sparse histories as bags: the entries of each row, and weighted sums of rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

CELLS = 2**22
"""Maximum size of a temporary: 16 MB in float32, which fits in the caches."""
GATHERED = 2**19
"""Maximum size of gathered rows: 2 MB, which are read again immediately."""
DENSE = 0.05
"""Share of filled cells above which dense products are faster than single entries; measured on a
CPU with both gradients (sums alone: from about 0.1, dots alone: from 0.02 to 0.04)."""


@dataclass(frozen=True)
class Bags:
    """The entries of a sparse matrix (n, width), sorted by row.

    Attributes:
        rows, columns: the position of each entry, int64, (nnz,).
        weights: values of the entries, float, (nnz,).
        starts: first entry of each row, and the number of entries, int64, (n + 1,).
        width: number of columns.
    """

    rows: Tensor
    columns: Tensor
    weights: Tensor
    starts: Tensor
    width: int

    @classmethod
    def of(cls, matrix: Tensor) -> Bags:
        """The entries of a sparse CSR tensor.

        Example:
            >>> from modalign.core.sparse import csr_tensor
            >>> starts, columns = torch.tensor([0, 2, 2]), torch.tensor([0, 3])
            >>> Bags.of(csr_tensor(starts, columns, torch.ones(2), (2, 4))).rows.tolist()
            [0, 0]
        """
        starts = matrix.crow_indices().long()
        rows = torch.repeat_interleave(
            torch.arange(matrix.shape[0], device=starts.device), starts.diff()
        )
        return cls(rows, matrix.col_indices().long(), matrix.values(), starts, matrix.shape[1])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def total(self, values: Tensor) -> Tensor:
        """Sums of the entries' values by row: (nnz,) to (n,), or (nnz, k) to (n, k)."""
        zeros = values.new_zeros(len(self), *values.shape[1:])
        return zeros.index_add_(0, self.rows, values)

    def unit(self, values: Tensor) -> Tensor:
        """Values scaled to norm 1 for each row and column k: (nnz, k) to (nnz, k).

        A row of zeros stays zero.
        """
        norms = self.total(values.square()).clamp_min(1e-24).sqrt()
        return values / norms[self.rows]

    def part(self, start: int, end: int) -> Bags:
        """Rows start to end."""
        first, last = int(self.starts[start]), int(self.starts[end])
        entries = slice(first, last)
        return Bags(
            self.rows[entries] - start,
            self.columns[entries],
            self.weights[entries],
            self.starts[start : end + 1] - first,
            self.width,
        )


def bag_sums(bags: Bags, values: Tensor, table: Tensor) -> Tensor:
    """`out[u, k] = sum over entries n of row u of values[n, k] table[column of n]`.

    The first layer of an autoencoder without its dense input, for K weightings of each bag at
    once. Sparse bags are summed entry by entry, denser ones multiplied as a matrix in blocks.

    Args:
        bags: with `len(table)` columns.
        values: (nnz, K).
        table: (width, d).

    Returns:
        (n, K, d). Gradients reach values and table.

    Example:
        >>> one = Bags(torch.tensor([0, 0]), torch.tensor([0, 2]), torch.ones(2),
        ...            torch.tensor([0, 2]), 3)
        >>> bag_sums(one, torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [5.0], [10.0]]))
        tensor([[[21.]]])
    """
    out: Tensor = _Sums.apply(bags, values, table)  # type: ignore[no-untyped-call]
    return out


def bag_dots(bags: Bags, vectors: Tensor, table: Tensor) -> Tensor:
    """`out[n, k] = <vectors[row of n, k], table[column of n]>` for each entry n.

    Args:
        bags: with `len(table)` columns.
        vectors: K vectors for each row, (n, K, d).
        table: (width, d).

    Returns:
        (nnz, K). Gradients reach vectors and table.

    Example:
        >>> one = Bags(torch.tensor([0]), torch.tensor([2]), torch.ones(1), torch.tensor([0, 1]), 3)
        >>> bag_dots(one, torch.tensor([[[2.0], [3.0]]]), torch.tensor([[1.0], [5.0], [10.0]]))
        tensor([[20., 30.]])
    """
    out: Tensor = _Dots.apply(bags, vectors, table)  # type: ignore[no-untyped-call]
    return out


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bags: Bags, values: Tensor, table: Tensor) -> Tensor:
        ctx.bags = bags
        ctx.save_for_backward(values, table)
        return _sums(bags, values, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (values, table) = gradients, ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            None,
            _dots(ctx.bags, gradient, table) if needed[1] else None,
            _scattered(ctx.bags, values, gradient, len(table)) if needed[2] else None,
        )


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bags: Bags, vectors: Tensor, table: Tensor) -> Tensor:
        ctx.bags = bags
        ctx.save_for_backward(vectors, table)
        return _dots(bags, vectors, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (vectors, table) = gradients, ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            None,
            _sums(ctx.bags, gradient, table) if needed[1] else None,
            _scattered(ctx.bags, gradient, vectors, len(table)) if needed[2] else None,
        )


def _sums(bags: Bags, values: Tensor, table: Tensor) -> Tensor:
    n_weightings = values.shape[1]
    if _is_dense(bags):
        out = table.new_empty(len(bags), n_weightings, table.shape[1])
        for rows, entries in _row_blocks(bags, n_weightings):
            block = _filled(bags, values, rows, entries)
            out[rows] = (block.flatten(0, 1) @ table).unflatten(0, block.shape[:2])
        return out
    starts = bags.starts[:-1]
    each = [
        embedding_bag(bags.columns, table, starts, mode="sum", per_sample_weights=weights)
        for weights in values.t().contiguous()
    ]
    return torch.stack(each, dim=1)


def _dots(bags: Bags, vectors: Tensor, table: Tensor) -> Tensor:
    n_weightings = vectors.shape[1]
    out = table.new_empty(len(bags.rows), n_weightings)
    if _is_dense(bags):
        for rows, entries in _row_blocks(bags, n_weightings):
            cells = (vectors[rows].flatten(0, 1) @ table.t()).flatten()
            out[entries] = cells[_places(bags, n_weightings, rows, entries)]
        return out
    size = max(1, GATHERED // max(1, n_weightings * table.shape[1]))
    for start in range(0, len(bags.rows), size):
        entries = slice(start, start + size)
        mine = vectors.index_select(0, bags.rows[entries])
        theirs = table.index_select(0, bags.columns[entries])
        out[entries] = (theirs.unsqueeze(1) @ mine.transpose(1, 2)).squeeze(1)
    return out


def _scattered(bags: Bags, values: Tensor, vectors: Tensor, width: int) -> Tensor:
    """`out[i] = sum over entries n of column i and k of values[n, k] vectors[row of n, k]`."""
    n_weightings = values.shape[1]
    if _is_dense(bags):
        out = vectors.new_zeros(width, vectors.shape[2])
        for rows, entries in _row_blocks(bags, n_weightings):
            block = _filled(bags, values, rows, entries)
            out.addmm_(block.flatten(0, 1).t(), vectors[rows].flatten(0, 1))
        return out
    order = torch.argsort(bags.columns, stable=True)
    counts = torch.bincount(bags.columns, minlength=width)
    weighting = torch.arange(n_weightings, device=bags.rows.device)
    flat_rows = bags.rows[order].unsqueeze(1) * n_weightings + weighting
    return embedding_bag(
        flat_rows.flatten(),
        vectors.flatten(0, 1),
        (counts.cumsum(0) - counts) * n_weightings,
        mode="sum",
        per_sample_weights=values[order].flatten(),
    )


def _is_dense(bags: Bags) -> bool:
    return len(bags.rows) > DENSE * len(bags) * bags.width


def _row_blocks(bags: Bags, n_weightings: int) -> list[tuple[slice, slice]]:
    """Blocks of rows whose dense cells fit in `CELLS`, each with its entries."""
    size = max(1, CELLS // max(1, n_weightings * bags.width))
    edges = [*range(0, len(bags), size), len(bags)]
    places = bags.starts[edges].tolist()
    return [
        (slice(edges[i], edges[i + 1]), slice(places[i], places[i + 1]))
        for i in range(len(edges) - 1)
    ]


def _places(bags: Bags, n_weightings: int, rows: slice, entries: slice) -> Tensor:
    """Positions of a block's values among its (rows, K, width) cells, (c, K)."""
    k = torch.arange(n_weightings, device=bags.rows.device)
    corner = (bags.rows[entries] - rows.start) * (n_weightings * bags.width)
    places: Tensor = (corner + bags.columns[entries]).unsqueeze(1) + k * bags.width
    return places


def _filled(bags: Bags, values: Tensor, rows: slice, entries: slice) -> Tensor:
    """A block of rows as dense cells, (rows, K, width)."""
    shape = (rows.stop - rows.start, values.shape[1], bags.width)
    block: Tensor = values.new_zeros(shape)
    block.view(-1)[_places(bags, values.shape[1], rows, entries)] = values[entries]
    return block
