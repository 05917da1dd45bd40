"""Products with sparse matrices against dense oracles."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from modalign.graph.propagate import SparseGraph, cut, layer_weights, multiply, multiply_rows


def random_matrix(n: int = 7, m: int = 5, density: float = 0.4, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, m)) * (rng.random((n, m)) < density)


ROWS = [
    None,
    torch.tensor([3]),
    torch.tensor([0, 6, 6, 2, 0, 1]),
    torch.tensor([], dtype=torch.long),
]


@pytest.mark.parametrize("rows", ROWS, ids=["all", "one", "repeats", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matmul_equals_the_dense_product(rows, dtype):
    dense = random_matrix().astype(np.float32)
    x = torch.randn(5, 3, dtype=dtype, generator=torch.Generator().manual_seed(1))
    expected = torch.from_numpy(dense).to(dtype) @ x
    result = SparseGraph(sp.csr_array(dense)).matmul(x, rows)
    assert_close(result, expected if rows is None else expected[rows])


@pytest.mark.parametrize("rows", ROWS[:3], ids=["all", "one", "repeats"])
def test_gradient_of_matmul_is_right(rows):
    graph = SparseGraph(sp.csr_array(random_matrix()))
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: graph.matmul(x, rows), x)


def test_gradient_in_float32_equals_that_of_coo():
    dense = random_matrix(20, 9, seed=3).astype(np.float32)
    x = torch.randn(9, 4, requires_grad=True)
    weight = torch.randn(20, 4)
    (SparseGraph(sp.csr_array(dense)).matmul(x) * weight).sum().backward()
    ours, x.grad = x.grad, None
    (torch.sparse.mm(torch.from_numpy(dense).to_sparse_coo(), x) * weight).sum().backward()
    assert_close(ours, x.grad)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 9), st.floats(0, 1), st.integers(0, 99)
)
def test_every_shape_and_density(n, m, width, density, seed):
    dense = random_matrix(n, m, density, seed).astype(np.float32)
    graph = SparseGraph(sp.csr_array(dense))
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(m, width)).astype(np.float32))
    rows = torch.from_numpy(np.random.default_rng(seed).integers(0, n, size=n))
    assert_close(graph.matmul(x), torch.from_numpy(dense) @ x, rtol=1e-5, atol=1e-5)
    assert_close(
        multiply(graph.transposed, graph.matmul(x)),
        torch.from_numpy(dense).T @ graph.matmul(x),
        rtol=1e-4,
        atol=1e-4,
    )
    assert_close(multiply(cut(graph.csr, rows), x), graph.matmul(x)[rows])
    assert_close(multiply_rows(graph.csr, x, rows), graph.matmul(x)[rows])


def test_both_ways_to_the_rows_have_the_same_bits():
    graph = SparseGraph(sp.csr_array(random_matrix(200, 50, 0.3)))
    x = torch.randn(50, 64)
    few, many = torch.tensor([5, 190, 5]), torch.arange(150)
    whole = graph.matmul(x)
    assert torch.equal(graph.matmul(x, few), whole[few])
    assert torch.equal(graph.matmul(x, many), whole[many])


def test_repeated_entries_are_added_in_any_order():
    rows, columns = np.array([0, 1, 0, 2]), np.array([1, 0, 1, 1])
    values = np.array([1.0, 2.0, 4.0, 8.0])
    order = np.array([2, 0, 3, 1])
    one = SparseGraph(sp.coo_array((values, (rows, columns)), shape=(3, 2)))
    other = SparseGraph(sp.coo_array((values[order], (rows[order], columns[order])), shape=(3, 2)))
    np.testing.assert_array_equal(one.scipy().toarray(), [[0, 5], [2, 0], [0, 8]])
    np.testing.assert_array_equal(one.scipy().toarray(), other.scipy().toarray())


def test_a_strided_input_and_a_strided_gradient():
    dense = random_matrix().astype(np.float32)
    x = torch.randn(3, 5).T.requires_grad_()
    result = SparseGraph(sp.csr_array(dense)).matmul(x)
    assert_close(result, torch.from_numpy(dense) @ x)
    result.sum().backward()  # the gradient of a sum is expanded: strides of zero
    assert_close(x.grad, torch.from_numpy(dense).T @ torch.ones(7, 3))


def test_half_precision_is_summed_in_float32():
    dense = random_matrix(6, 300, 1.0).astype(np.float32)
    x = torch.randn(300, 4).bfloat16()
    result = SparseGraph(sp.csr_array(dense)).matmul(x)
    assert result.dtype == torch.bfloat16
    assert_close(result, (torch.from_numpy(dense) @ x.float()).bfloat16())


def test_a_product_under_autocast_stays_as_precise_as_its_input():
    dense = random_matrix().astype(np.float32)
    for x in (torch.randn(5, 3), torch.randn(5, 3).double()):
        with torch.autocast("cpu", torch.bfloat16):
            result = SparseGraph(sp.csr_array(dense)).matmul(x)
        assert_close(result, torch.from_numpy(dense).to(x.dtype) @ x)


def test_buffers_move_but_are_not_saved():
    graph = SparseGraph(sp.csr_array(random_matrix()))
    assert graph.state_dict() == {}
    assert all(buffer.is_meta for buffer in graph.to("meta").buffers())


def test_a_symmetric_matrix_is_held_once():
    dense = random_matrix(6, 6)
    graph = SparseGraph(sp.csr_array(dense + dense.T), symmetric=True)
    assert len(list(graph.buffers())) == 3
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(graph.matmul, x)
    with pytest.raises(ValueError, match="square"):
        SparseGraph(sp.csr_array(random_matrix()), symmetric=True)


@pytest.mark.parametrize(
    ("readout", "weights"),
    [("mean", [0.25] * 4), ("sum", [1.0] * 4), ("last", [0.0, 0.0, 0.0, 1.0])],
)
def test_readouts(readout, weights):
    assert list(layer_weights(3, readout)) == weights


def test_an_unknown_readout_is_refused():
    with pytest.raises(ValueError, match="median"):
        layer_weights(3, "median")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_on_cuda():
    dense = random_matrix(40, 30).astype(np.float32)
    graph = SparseGraph(sp.csr_array(dense)).to("cuda")
    x = torch.randn(30, 8, device="cuda", requires_grad=True)
    rows = torch.tensor([1, 30, 1], device="cuda")
    expected = torch.from_numpy(dense).cuda()
    assert_close(graph.matmul(x), expected @ x)
    assert_close(graph.matmul(x, rows), (expected @ x)[rows])
    graph.matmul(x, rows).sum().backward()
    assert_close(x.grad, expected[rows].T @ torch.ones(3, 8, device="cuda"))


@pytest.mark.parametrize("rows", [None, [3, 1, 3]])
def test_a_residual_is_ones_on_the_diagonal(rows):
    dense = torch.rand(5, 5, dtype=torch.float64) * (torch.rand(5, 5) < 0.5)
    graph = SparseGraph(sp.csr_array(dense.numpy()))
    at = slice(None) if rows is None else torch.tensor(rows)
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    used = None if rows is None else at
    mine = graph.matmul(x, used, residual=True)
    torch.testing.assert_close(mine, (dense.float().double() @ x + x)[at])
    assert torch.autograd.gradcheck(lambda x: graph.matmul(x, used, residual=True), x)
