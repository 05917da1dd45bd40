"""Sparse CSR tensors from their three arrays, and products of two of them."""

from __future__ import annotations

import warnings

import scipy.sparse as sp
from torch import Tensor, from_numpy
from torch import sparse_csr_tensor as _make


def csr_tensor(indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A CSR tensor that is not checked again: the caller made the arrays.

    torch tells on first use that CSR tensors are in beta; that is no news to people who train a
    recommender, and is kept from them here.

    Example:
        >>> import torch
        >>> ones = torch.ones(2)
        >>> csr_tensor(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), ones, (2, 2)).to_dense()
        tensor([[0., 1.],
                [1., 0.]])
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return _make(indptr, indices, values, shape, check_invariants=False)


def sparse_product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` of two sparse CSR tensors, sparse CSR too; no gradient flows.

    On a CPU it is scipy's: torch multiplies two sparse matrices there only where it was built
    with MKL, and then loses memory of the size of the product at every call (torch issue
    109445). Columns are sorted within a row.

    Example:
        >>> import torch
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
