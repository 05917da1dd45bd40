"""Bags against dense matrices; sparse and dense ways, whole and in blocks."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from modalign.core.sparse import csr_tensor
from modalign.nn import bags as module
from modalign.nn.bags import Bags, bag_dots, bag_sums
from oracles import bags_of

MATRIX = torch.tensor([[0.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 1.0, 4.0]]).double()
BAGS = bags_of(MATRIX)


def dense_sums(values, table):
    """The oracle: one dense matrix for each weighting."""
    filled = torch.zeros(3, values.shape[1], 4, dtype=values.dtype)
    for n, (u, i) in enumerate(zip(BAGS.rows.tolist(), BAGS.columns.tolist(), strict=True)):
        filled[u, :, i] = values[n]
    return filled @ table


def inputs(n_weightings=2):
    rng = torch.Generator().manual_seed(3)
    values = torch.randn(len(BAGS.rows), n_weightings, dtype=torch.double, generator=rng)
    table = torch.randn(4, 5, dtype=torch.double, generator=rng)
    return values.requires_grad_(), table.requires_grad_()


@pytest.fixture(params=["gathered", "gathered-blocks", "dense", "dense-blocks"])
def way(request, monkeypatch):
    monkeypatch.setattr(module, "DENSE", -1.0 if "dense" in request.param else 2.0)
    if "blocks" in request.param:
        monkeypatch.setattr(module, "CELLS", 12)
        monkeypatch.setattr(module, "GATHERED", 12)


def test_entries_of_a_matrix():
    again = Bags.of(csr_tensor(BAGS.starts, BAGS.columns, BAGS.weights, (3, 4)))
    assert_close(again.rows, BAGS.rows)
    assert again.width == 4
    assert BAGS.rows.tolist() == [0, 0, 2, 2, 2]
    assert BAGS.columns.tolist() == [1, 3, 0, 2, 3]
    assert_close(BAGS.total(BAGS.weights), MATRIX.sum(1))
    assert_close(BAGS.part(1, 3).rows, torch.tensor([1, 1, 1]))
    assert_close(BAGS.part(1, 3).weights, BAGS.weights[2:])
    assert len(BAGS) == 3


def test_unit_rows_have_length_one_and_empty_ones_stay_zero():
    scaled = BAGS.unit(torch.stack([BAGS.weights, 0 * BAGS.weights], 1))
    assert_close(BAGS.total(scaled[:, :1].square()).flatten(), torch.tensor([1.0, 0, 1]).double())
    assert bool((scaled[:, 1] == 0).all())


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("n_weightings", [1, 3])
def test_sums_and_gradients_equal_the_dense_product(n_weightings):
    values, table = inputs(n_weightings)
    out, expected = bag_sums(BAGS, values, table), dense_sums(values, table)
    assert_close(out, expected)
    seed = torch.randn(out.shape, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(out, (values, table), seed)
    for mine, theirs in zip(got, torch.autograd.grad(expected, (values, table), seed), strict=True):
        assert_close(mine, theirs)


@pytest.mark.usefixtures("way")
def test_only_what_needs_a_gradient_gets_one():
    values, table = inputs()
    bag_sums(BAGS, values.detach(), table).sum().backward()
    assert values.grad is None
    assert table.grad is not None
    bag_sums(BAGS, values, table.detach()).sum().backward()
    assert_close(values.grad, table.detach().sum(1)[BAGS.columns, None].expand(-1, 2))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("n_weightings", [1, 3])
def test_dots_and_gradients_equal_the_dense_product(n_weightings):
    rng = torch.Generator().manual_seed(5)
    vectors = torch.randn(3, n_weightings, 5, dtype=torch.double, generator=rng).requires_grad_()
    table = inputs()[1]
    out, cells = bag_dots(BAGS, vectors, table), vectors @ table.T
    expected = cells[BAGS.rows, :, BAGS.columns]
    assert_close(out, expected)
    seed = torch.randn(out.shape, dtype=torch.double, generator=rng)
    got = torch.autograd.grad(out, (vectors, table), seed)
    wanted = torch.autograd.grad(expected, (vectors, table), seed)
    for mine, theirs in zip(got, wanted, strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize("n_rows", [0, 3])
def test_bags_without_any_entry_sum_to_nothing(n_rows):
    bags = bags_of(torch.zeros(n_rows, 4, dtype=torch.double))
    table = inputs()[1]
    out = bag_sums(bags, torch.zeros(0, 2, dtype=torch.double), table)
    assert out.shape == (n_rows, 2, 5)
    assert not out.any()
    assert_close(torch.autograd.grad(out.sum(), table)[0], torch.zeros(4, 5).double())
    vectors = torch.ones(n_rows, 2, 5, dtype=torch.double)
    assert bag_dots(bags, vectors, table).shape == (0, 2)
