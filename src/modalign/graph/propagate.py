"""Products with a sparse matrix that is constant during training.

On a CPU in float32 the product is torch's embedding bag: each row of the result is a weighted
sum of looked-up rows, and its kernel is compiled for the machine's vector width and the number
of columns when it first runs, with prefetching. torch's sparse kernels have none of that (three
times slower in CSR, eight in COO; `benchmarks/propagation.py`). On other devices and in other
types it is torch's CSR product.

The backward pass multiplies by the transpose, which is computed once, or by the matrix itself if
it is symmetric. Nothing is stored in the forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from modalign.core.sparse import csr_tensor, ranges

# Extracting rows of a matrix takes about three times as long per non-zero as multiplying by it
# (copying indices and weights), so that rows with more than a third of all non-zeros are cheaper
# to take from the whole product.
WHOLE_IS_CHEAPER = 3


class CSR(NamedTuple):
    """Compressed sparse rows: int32 `indptr` (n + 1,), int32 `indices`, `values`; m columns."""

    indptr: Tensor
    indices: Tensor
    values: Tensor
    n_columns: int

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @property
    def counts(self) -> Tensor:
        """Entries of each row, int64, (n,)."""
        return self.indptr.diff().long()

    @property
    def owner(self) -> Tensor:
        """The row of each entry, int64, (nnz,)."""
        return torch.repeat_interleave(self.counts, output_size=len(self.indices))

    def rows(self, start: int, end: int) -> CSR:
        """Rows start to end, as views of this matrix's non-zeros."""
        first, last = int(self.indptr[start]), int(self.indptr[end])
        return CSR(
            self.indptr[start : end + 1] - first,
            self.indices[first:last],
            self.values[first:last],
            self.n_columns,
        )


def multiply(matrix: CSR, x: Tensor) -> Tensor:
    """`matrix @ x` of shape (n, d), without a gradient, for a dense x (m, d) on one device.

    Args:
        matrix: (n, m), on the device of x.
        x: dense (m, d).
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and len(matrix.indices):
        return functional.embedding_bag(
            matrix.indices,
            x,
            matrix.indptr,
            mode="sum",
            per_sample_weights=matrix.values,
            include_last_offset=True,
        )
    # Half precision is not accurate enough for sums over thousands of neighbours, and not every
    # device has the kernel.
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    with torch.autocast(x.device.type, enabled=False):
        sparse = csr_tensor(
            matrix.indptr,
            matrix.indices,
            matrix.values.to(wide.dtype),
            (matrix.n_rows, matrix.n_columns),
        )
        product: Tensor = sparse @ wide
    return product.to(x.dtype)


def plain(x: Tensor) -> Tensor:
    """The detached, contiguous tensor: embedding bag prepares for a gradient if its input requires
    one, even in no-grad mode, and its fast kernel needs contiguous rows.
    """
    return x.detach().contiguous()


def cut(matrix: CSR, rows: Tensor) -> CSR:
    """A matrix of some rows, in the order given, repeats allowed."""
    start = matrix.indptr.index_select(0, rows).long()
    counts = matrix.indptr.index_select(0, rows + 1).long() - start
    indptr = torch.zeros(len(rows) + 1, dtype=torch.int64, device=rows.device)
    torch.cumsum(counts, 0, out=indptr[1:])
    at = ranges(start, counts)
    return CSR(
        indptr.int(),
        matrix.indices.index_select(0, at),
        matrix.values.index_select(0, at),
        matrix.n_columns,
    )


def multiply_rows(matrix: CSR, x: Tensor, rows: Tensor) -> Tensor:
    """`(matrix @ x)[rows]` of shape (len(rows), d), without a gradient, by the cheaper method.

    Args:
        matrix: (n, m), on the device of x.
        x: dense (m, d).
        rows: int64, repeats allowed.
    """
    if x.device.type != "cpu":  # the whole product is cheaper than waiting for the counts
        return multiply(matrix, x).index_select(0, rows)
    counts = matrix.indptr.index_select(0, rows + 1) - matrix.indptr.index_select(0, rows)
    if WHOLE_IS_CHEAPER * int(counts.sum()) < len(matrix.indices):
        return multiply(cut(matrix, rows), x)
    return multiply(matrix, x).index_select(0, rows)


def scatter(values: Tensor, rows: Tensor, n_rows: int) -> Tensor:
    """Zeros (n_rows, d) with `values` added at `rows`; repeats add up.

    Args:
        values: (n, d).
        rows: int64, (n,).
        n_rows: number of rows of the result.
    """
    dense = values.new_zeros(n_rows, values.shape[1])
    return dense.index_add_(0, rows, values)


class _Product(torch.autograd.Function):
    """`(matrix @ x)[rows]`; the gradient is `transpose @ scatter(gradient, rows)`. With a residual
    the identity is added to the matrix.

    With rows, the gradient is a dense scatter and a product with the whole transpose. Extracting
    the columns of `rows` from the transpose instead reads every non-zero, which alone takes longer
    than multiplying by them: 2.7 ms against 1.7 ms on the amazon-baby graph with a batch of 2,048
    pairs; adding the outer products row by row takes 9 ms.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, matrix: CSR, transpose: CSR, rows: Tensor | None, residual: bool
    ) -> Tensor:
        ctx.transpose, ctx.rows, ctx.n_rows = transpose, rows, matrix.n_rows
        ctx.residual = residual
        x = plain(x)
        result = multiply(matrix, x) if rows is None else multiply_rows(matrix, x, rows)
        if residual:
            result += x if rows is None else x.index_select(0, rows)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        if ctx.rows is not None:
            gradient = scatter(gradient, ctx.rows, ctx.n_rows)
        result = multiply(ctx.transpose, gradient)
        if ctx.residual:
            result += gradient
        return result, None, None, None, None


class SparseGraph(nn.Module):
    """A constant sparse matrix (n, m) to multiply dense matrices by.

    The matrix is stored with 32-bit indices, and also transposed unless it is symmetric. The
    buffers move with `.to(device)` and are not saved: a graph is computed from the data.

    Args:
        matrix: scipy sparse, (n, m); repeated entries are added.
        symmetric: the matrix equals its transpose; this is not checked.

    Raises:
        ValueError: more than 2^31 - 1 non-zeros, or a symmetric matrix that is not square.

    Memory: 8 bytes per non-zero, 16 if not symmetric.

    Example:
        >>> graph = SparseGraph(sp.csr_array(np.array([[0.0, 2.0], [1.0, 1.0]])))
        >>> graph.matmul(torch.tensor([[1.0], [10.0]])).tolist()
        [[20.0], [11.0]]
        >>> graph.matmul(torch.tensor([[1.0], [10.0]]), rows=torch.tensor([1])).tolist()
        [[11.0]]
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    transpose_indptr: Tensor
    transpose_indices: Tensor
    transpose_values: Tensor

    def __init__(self, matrix: sp.csr_array | sp.coo_array, symmetric: bool = False) -> None:
        super().__init__()
        csr = _canonical(matrix)
        self.shape: tuple[int, int] = (int(csr.shape[0]), int(csr.shape[1]))
        self.symmetric = symmetric
        if symmetric and self.shape[0] != self.shape[1]:
            raise ValueError(f"expected a square matrix for symmetric=True, got {self.shape}")
        self._hold("", csr)
        if not symmetric:
            self._hold("transpose_", _canonical(csr.T))

    def _hold(self, prefix: str, csr: sp.csr_array) -> None:
        for name, array in (
            ("indptr", csr.indptr.astype(np.int32)),
            ("indices", csr.indices.astype(np.int32)),
            ("values", csr.data.astype(np.float32)),
        ):
            self.register_buffer(prefix + name, torch.from_numpy(array), persistent=False)

    @property
    def csr(self) -> CSR:
        """The matrix."""
        return CSR(self.indptr, self.indices, self.values, self.shape[1])

    @property
    def transposed(self) -> CSR:
        """Its transpose; the same buffers where it is symmetric."""
        if self.symmetric:
            return self.csr
        return CSR(
            self.transpose_indptr, self.transpose_indices, self.transpose_values, self.shape[0]
        )

    def matmul(self, x: Tensor, rows: Tensor | None = None, residual: bool = False) -> Tensor:
        """`matrix @ x`, (n, d), or only its rows `rows`, (len(rows), d); differentiable in x.

        Args:
            x: (m, d).
            rows: int64, repeats allowed; None for all. Faster if they have few non-zeros.
            residual: add x, or its rows, to the result; for a square matrix.
        """
        result: Tensor = _Product.apply(x, self.csr, self.transposed, rows, residual)  # type: ignore[no-untyped-call]
        return result

    def masked(self, factors: Tensor, order: Tensor) -> MaskedGraph:
        """The matrix with each entry multiplied by a factor, on the same structure.

        Args:
            factors: float, (nnz,), in the order of the entries; 0 drops an entry.
            order: `transposing(self.csr)`.
        """
        matrix, transpose = self.csr, self.transposed
        values = matrix.values * factors
        return MaskedGraph(matrix._replace(values=values), transpose._replace(values=values[order]))

    def scipy(self) -> sp.csr_array:
        """A copy as a scipy matrix."""
        return sp.csr_array(
            (
                self.values.float().cpu().numpy().copy(),
                self.indices.cpu().numpy().copy(),
                self.indptr.cpu().numpy().copy(),
            ),
            shape=self.shape,
        )

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        kind = ", symmetric" if self.symmetric else ""
        return f"{self.shape[0]} x {self.shape[1]}, {len(self.indices)} non-zeros{kind}"


class MaskedGraph(NamedTuple):
    """A sparse matrix (n, m) for one step of training, and its transpose."""

    matrix: CSR
    transpose: CSR

    def matmul(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """`matrix @ x`, (n, d), or only its rows `rows`, (len(rows), d); differentiable in x."""
        result: Tensor = _Product.apply(x, self.matrix, self.transpose, rows, False)  # type: ignore[no-untyped-call]
        return result


def transposing(matrix: CSR) -> Tensor:
    """For each entry of the transpose its place among the entries of the matrix, int64 (nnz,).

    Example:
        >>> graph = SparseGraph(sp.csr_array(np.array([[0.0, 2.0], [1.0, 3.0]])))
        >>> graph.values[transposing(graph.csr)].tolist(), graph.transpose_values.tolist()
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    """
    return torch.argsort(matrix.indices, stable=True)


def _canonical(matrix: Any) -> sp.csr_array:
    """CSR with sorted indices and no repeats, so that results do not depend on the edges' order."""
    csr: sp.csr_array = sp.csr_array(matrix)
    csr.sum_duplicates()
    if csr.nnz > np.iinfo(np.int32).max:
        raise ValueError(f"expected at most 2^31 - 1 non-zeros, got {csr.nnz}")
    return csr


def layer_weights(n_layers: int, readout: str) -> Sequence[float]:
    """Weight of layers 0 to n_layers in the result: "mean", "sum" or "last".

    Raises:
        ValueError: another readout.
    """
    if readout == "mean":
        return [1.0 / (n_layers + 1)] * (n_layers + 1)
    if readout == "sum":
        return [1.0] * (n_layers + 1)
    if readout == "last":
        return [0.0] * n_layers + [1.0]
    raise ValueError(f"expected a readout of mean, sum or last, got {readout!r}")
