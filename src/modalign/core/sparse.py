"""Sparse CSR tensors from their three arrays, their products, and rows of different lengths."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, from_numpy


def csr_tensor(indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A CSR tensor whose arrays are taken on trust.

    torch warns on first use that CSR tensors are in beta; the warning is suppressed here.

    Args:
        indptr: start of each row among the entries, and their number, (n + 1,).
        indices: columns of the entries, (nnz,).
        values: values of the entries, (nnz,).
        shape: n and the number of columns.

    Example:
        >>> ones = torch.ones(2)
        >>> csr_tensor(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), ones, (2, 2)).to_dense()
        tensor([[0., 1.],
                [1., 0.]])
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(indptr, indices, values, shape, check_invariants=False)


def from_scipy(matrix: sp.csr_array) -> Tensor:
    """A scipy matrix as a CSR tensor, with int64 indices and float32 values.

    Example:
        >>> from_scipy(sp.csr_array(np.array([[0, 2], [1, 0]]))).to_dense()
        tensor([[0., 2.],
                [1., 0.]])
    """
    indptr, indices = (from_numpy(a.astype(np.int64)) for a in (matrix.indptr, matrix.indices))
    values = from_numpy(matrix.data.astype(np.float32))
    return csr_tensor(indptr, indices, values, matrix.shape)


def ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """The numbers `starts[i], ..., starts[i] + counts[i] - 1` of all i, one range after the other.

    Args:
        starts: int64, (n,).
        counts: int64, (n,), each 0 or more.

    Returns:
        int64, (sum of counts,).

    Example:
        >>> ranges(torch.tensor([5, 0, 7]), torch.tensor([2, 0, 3])).tolist()
        [5, 6, 7, 8, 9]
    """
    at = torch.repeat_interleave(starts - (counts.cumsum(0) - counts), counts)
    return at.add_(torch.arange(len(at), device=at.device))


def row_of_entries(matrix: sp.csr_array) -> np.ndarray:
    """The row of each stored entry, int64, (nnz,).

    Example:
        >>> row_of_entries(sp.csr_array(np.array([[1, 1], [0, 0], [0, 1]]))).tolist()
        [0, 0, 2]
    """
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def place_in_row(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... within each of several rows of these lengths, one after the other, int64.

    Example:
        >>> place_in_row(np.array([2, 0, 3])).tolist()
        [0, 1, 0, 1, 2]
    """
    places: np.ndarray = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return places


def sparse_product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` of two sparse CSR tensors as a sparse CSR tensor, without a gradient.

    On a CPU scipy multiplies: torch does so only if it was built with MKL, and then leaks memory
    of the size of the product at every call (torch issue 109445). Columns are sorted within a row.

    Example:
        >>> some = torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.tensor([2.0, 3.0])
        >>> matrix = csr_tensor(*some, (2, 2))
        >>> sparse_product(matrix, matrix).to_dense()
        tensor([[6., 0.],
                [0., 6.]])
    """
    return (_by_scipy if left.device.type == "cpu" else _by_torch)(left, right)


def _by_scipy(left: Tensor, right: Tensor) -> Tensor:
    product = sp.csr_array(_scipy(left) @ _scipy(right))
    product.sort_indices()
    indptr, indices, values = map(from_numpy, (product.indptr, product.indices, product.data))
    return csr_tensor(indptr.long(), indices.long(), values, (left.shape[0], right.shape[1]))


def _by_torch(left: Tensor, right: Tensor) -> Tensor:
    # Both with the same type of index, which torch asks for.
    first, second = (
        csr_tensor(m.crow_indices().long(), m.col_indices().long(), m.values().detach(), m.shape)
        for m in (left, right)
    )
    product: Tensor = first @ second
    return product


def _scipy(matrix: Tensor) -> sp.csr_array:
    arrays = matrix.values(), matrix.col_indices(), matrix.crow_indices()
    height, width = matrix.shape
    return sp.csr_array(tuple(one.detach().numpy() for one in arrays), shape=(height, width))
