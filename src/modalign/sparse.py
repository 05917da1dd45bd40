"""Sparse CSR tensors from their three arrays: the one place that makes them."""

from __future__ import annotations

import warnings

from torch import Tensor
from torch import sparse_csr_tensor as _make


def csr_tensor(indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
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
