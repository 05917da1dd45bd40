"""Products of two sparse matrices: the numbers, and that no memory is lost."""

from __future__ import annotations

import ctypes
import platform

import pytest
import torch
from torch import Tensor

from modalign.core import sparse


def some(height: int, width: int, seed: int, index: torch.dtype = torch.int64) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    kept = torch.rand(height, width, generator=drawn) < 0.2
    dense = torch.randn(height, width, generator=drawn) * kept
    dense[0] = 0.0  # a row of nothing
    rows, columns = dense.nonzero(as_tuple=True)
    starts = torch.searchsorted(rows, torch.arange(height + 1))
    arrays = starts.to(index), columns.to(index), dense[rows, columns]
    return sparse.csr_tensor(*arrays, (height, width))


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("way", ["scipy", "torch"])
def test_the_product_is_that_of_the_dense_matrices(way: str, index: torch.dtype) -> None:
    # What a device computes runs on a CPU too where torch has MKL.
    if way == "torch" and not torch.backends.mkl.is_available():
        pytest.skip("torch was built without MKL: no product of sparse matrices on this CPU")
    left, right = some(30, 40, 1), some(40, 50, 2, index)
    product = (sparse._by_torch if way == "torch" else sparse.sparse_product)(left, right)
    assert product.layout == torch.sparse_csr
    assert product.shape == (30, 50)
    torch.testing.assert_close(product.to_dense(), left.to_dense() @ right.to_dense())


def test_columns_are_sorted_and_double_precision_stays() -> None:
    left, right = some(30, 40, 3), some(40, 50, 4)
    product = sparse.sparse_product(left, right)
    rows = torch.repeat_interleave(torch.arange(30), product.crow_indices().diff())
    place = rows * 50 + product.col_indices()
    assert (place.diff() > 0).all()
    doubled = (
        sparse.csr_tensor(m.crow_indices(), m.col_indices(), m.values().double(), m.shape)
        for m in (left, right)
    )
    assert sparse.sparse_product(*doubled).dtype == torch.float64


class _Heap(ctypes.Structure):
    """What glibc says of its heap (malloc.h)."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks")),
        ("keepcost", ctypes.c_size_t),
    ]


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc what is in use")
def test_a_product_keeps_no_memory() -> None:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("glibc before 2.33 counts in 32 bits")
    libc.mallinfo2.restype = _Heap
    left, right = some(300, 400, 5), some(400, 500, 6)
    size = 8 * len(sparse.sparse_product(left, right).values())

    def in_use() -> int:
        heap = libc.mallinfo2()
        return int(heap.uordblks + heap.hblkhd)

    before = in_use()
    for _ in range(50):
        sparse.sparse_product(left, right)
    assert in_use() - before < 5 * size
