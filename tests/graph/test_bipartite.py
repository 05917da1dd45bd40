"""The normalised bipartite graph and propagation against a dense oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.propagate import transposing

ROWS = {
    "all": None,
    "users": torch.tensor([1, 4]),
    "mixed": torch.tensor([0, 12, 7, 7, 3, 13, 0]),
    "most": torch.arange(14),
}
BABY = Path(__file__).parents[2] / ".." / "shared" / "data" / "amazon-baby" / "train.csv"


def some_edges(n: int = 20, n_users: int = 8, n_items: int = 6, seed: int = 0):
    """Without user 7 and item 5, who are isolated."""
    rng = torch.Generator().manual_seed(seed)
    pairs = torch.randperm((n_users - 1) * (n_items - 1), generator=rng)[:n]
    return pairs // (n_items - 1), pairs % (n_items - 1)


def some_graph() -> BipartiteGraph:
    return BipartiteGraph(*some_edges(), n_users=8, n_items=6)


def dense_matrix(users, items, n_users, n_items) -> torch.Tensor:
    """The oracle: D^-1/2 A D^-1/2 written out, float64."""
    a = torch.zeros(n_users + n_items, n_users + n_items, dtype=torch.float64)
    a[users, items + n_users] = 1.0
    a[items + n_users, users] = 1.0
    degree = a.sum(1)
    factor = torch.where(degree > 0, degree, torch.inf) ** -0.5
    return factor[:, None] * a * factor


def dense_propagation(a, x, n_layers, readout):
    layers = [x]
    for _ in range(n_layers):
        layers.append(a @ layers[-1])
    stacked = torch.stack(layers)
    return {"mean": stacked.mean(0), "sum": stacked.sum(0), "last": layers[-1]}[readout]


def test_a_hand_made_three_by_three():
    # Users like {0, 1}, {1, 2}, {1}: item degrees 1, 3, 1.
    graph = BipartiteGraph(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, 2, 1]), 3, 3)
    a, b, c = 2**-0.5, 6**-0.5, 3**-0.5
    block = np.array([[a, b, 0], [0, b, a], [0, c, 0]])
    zero = np.zeros((3, 3))
    np.testing.assert_allclose(
        graph.scipy().toarray(), np.block([[zero, block], [block.T, zero]]), rtol=1e-6
    )


def test_matrix_is_symmetric_with_spectrum_in_the_unit_interval():
    dense = some_graph().scipy().toarray().astype(np.float64)
    np.testing.assert_array_equal(dense, dense.T)
    values = np.linalg.eigvalsh(dense)
    assert abs(values).max() <= 1 + 1e-6
    np.testing.assert_allclose(values.max(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(dense, dense_matrix(*some_edges(), 8, 6), rtol=1e-6)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("readout", ["mean", "sum", "last"])
@pytest.mark.parametrize("n_layers", [0, 1, 2, 4])
def test_forward_and_gradient_equal_the_dense_oracle(n_layers, readout, rows):
    graph, rows = some_graph(), ROWS[rows]
    a = dense_matrix(*some_edges(), 8, 6).float()
    x = torch.randn(14, 5, requires_grad=True)
    expected = dense_propagation(a, x, n_layers, readout)
    expected = expected if rows is None else expected[rows]
    result = graph.propagate(x, n_layers, readout, rows)
    assert_close(result, expected)
    weight = torch.randn_like(expected)
    (ours,) = torch.autograd.grad((result * weight).sum(), x)
    (dense,) = torch.autograd.grad((expected * weight).sum(), x)
    assert_close(ours, dense)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("readout", ["mean", "sum", "last"])
@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_gradcheck_in_float64(n_layers, readout, rows):
    graph = some_graph()
    x = torch.randn(14, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: graph.propagate(x, n_layers, readout, ROWS[rows]), x)


@pytest.mark.parametrize("n_layers", [0, 1, 2])
def test_rows_of_the_result_and_of_the_input_share_a_gradient(n_layers):
    graph, rows = some_graph(), ROWS["mixed"]
    x = torch.randn(14, 2, dtype=torch.float64, requires_grad=True)
    final, start = graph.propagate_at(x, n_layers, rows, "sum")
    assert_close(final, graph.propagate(x, n_layers, "sum", rows))
    assert_close(start, x[rows])
    for used in ([0], [1], [0, 1]):  # either part, or both, may reach the loss
        assert torch.autograd.gradcheck(
            lambda x, used=used: [graph.propagate_at(x, n_layers, rows)[i] for i in used], x
        )


def test_gradient_equals_autograd_through_coo():
    graph = some_graph()
    coo = torch.from_numpy(graph.scipy().toarray()).to_sparse_coo()
    x = torch.randn(14, 3, requires_grad=True)
    weight = torch.randn(14, 3)
    layers = [x]
    for _ in range(3):
        layers.append(torch.sparse.mm(coo, layers[-1]))
    (torch.stack(layers).mean(0) * weight).sum().backward()
    expected, x.grad = x.grad, None
    (graph.propagate(x, 3) * weight).sum().backward()
    assert_close(x.grad, expected)


def test_order_and_repeats_of_edges_change_no_bit():
    users, items = some_edges()
    shuffled = torch.randperm(len(users), generator=torch.Generator().manual_seed(1))
    again = torch.cat([shuffled, shuffled[:4]])
    one, other = some_graph(), BipartiteGraph(users[again], items[again], 8, 6)
    for a, b in zip(one.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


def test_renaming_the_items_renames_the_result():
    users, items = some_edges()
    place = torch.tensor([3, 1, 5, 0, 4, 2])
    nodes = torch.cat([torch.arange(8), place + 8])
    x = torch.randn(14, 3)
    renamed = torch.empty_like(x)
    renamed[nodes] = x
    other = BipartiteGraph(users, place[items], 8, 6).propagate(renamed, 2)
    assert_close(other[nodes], some_graph().propagate(x, 2))


def test_isolated_nodes_neither_give_nor_take():
    x = torch.zeros(14, 1)
    x[7], x[13] = 3.0, 5.0  # user 7 and item 5 have no edge
    graph = some_graph()
    assert_close(graph.propagate(x, 2, "sum"), x)
    assert_close(graph.propagate(x, 2, "mean"), x / 3)
    assert_close(graph.propagate(x, 2, "last"), torch.zeros_like(x))


def test_propagation_twice_gives_the_same_bits_and_leaves_its_input():
    graph, x = some_graph(), torch.randn(14, 64)
    before = x.clone()
    assert torch.equal(graph.propagate(x, 3), graph.propagate(x, 3))
    assert torch.equal(x, before)


@pytest.mark.parametrize("n_layers", [0, 1])
def test_the_result_is_never_the_input_itself(n_layers):
    x = torch.randn(14, 2)
    before = x.clone()
    some_graph().propagate(x, n_layers, "sum").add_(1.0)
    assert torch.equal(x, before)


def test_no_edges_at_all():
    none = torch.empty(0, dtype=torch.int64)
    x = torch.randn(5, 2, requires_grad=True)
    graph = BipartiteGraph(none, none, 2, 3)
    assert_close(graph.propagate(x, 1, "sum"), x)
    graph.propagate(x, 2, "mean", rows=torch.tensor([1])).sum().backward()
    assert len(graph.drop_edges(0.5, torch.Generator()).indices) == 0


def test_edges_come_back_sorted():
    users, items = some_edges()
    pairs = torch.stack(some_graph().edges(), 1)
    assert pairs.tolist() == sorted(zip(users.tolist(), items.tolist(), strict=True)) or (
        pairs.tolist()
        == sorted([list(p) for p in zip(users.tolist(), items.tolist(), strict=True)])
    )


def test_dropping_edges_normalises_anew():
    graph = some_graph()
    smaller = graph.drop_edges(0.4, torch.Generator().manual_seed(5))
    users, items = smaller.edges()
    assert len(users) == 12
    assert set(zip(users.tolist(), items.tolist(), strict=True)) < set(
        zip(*(ends.tolist() for ends in graph.edges()), strict=True)
    )
    np.testing.assert_allclose(
        smaller.scipy().toarray(), dense_matrix(users, items, 8, 6), rtol=1e-6
    )


@pytest.mark.realdata
def test_amazon_baby_in_full_and_at_a_batch():
    if not BABY.is_file():
        pytest.skip(f"{BABY.name} of amazon-baby is not beside the checkout")
    users, items = torch.from_numpy(np.loadtxt(BABY, np.int64, delimiter=",", skiprows=1)).T
    graph = BipartiteGraph(users, items, 19_445, 7_050)
    assert len(graph.indices) == 237_102
    x = torch.randn(26_495, 16, requires_grad=True)
    rows = torch.cat([users[:512], items[:512] + 19_445])
    coo = graph.scipy().tocoo()
    oracle = torch.sparse_coo_tensor(
        np.stack(coo.coords), coo.data, graph.shape, check_invariants=True
    )
    expected = (x + torch.sparse.mm(oracle, x))[rows] / 2
    result = graph.propagate(x, 1, rows=rows)
    assert_close(result, expected)
    weight = torch.randn_like(result)
    (ours,) = torch.autograd.grad((result * weight).sum(), x)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), x)
    assert_close(ours, theirs)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("readout", ["mean", "sum", "last"])
@pytest.mark.parametrize("rows", [None, [2, 0, 2]])
def test_sides_are_those_of_the_whole(n_layers, readout, rows):
    """Two tables in place of one: the same result, and gradients by gradcheck."""
    users, items = torch.tensor([0, 0, 1, 2, 3]), torch.tensor([0, 2, 1, 2, 0])
    graph = BipartiteGraph(users, items, 4, 3)
    at = None if rows is None else torch.tensor(rows)
    u, i = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (4, 3))
    mine = graph.propagate_sides(u, i, n_layers, readout, at)
    whole = graph.propagate(torch.cat([u, i]), n_layers, readout)
    torch.testing.assert_close(mine[0], whole[:4] if at is None else whole[:4][at])
    torch.testing.assert_close(mine[1], whole[4:])
    for part in (0, 1, slice(None)):
        assert torch.autograd.gradcheck(
            lambda u, i, part=part: graph.propagate_sides(u, i, n_layers, readout, at)[part], (u, i)
        )


@pytest.mark.parametrize("rate", [0.0, 0.4, 0.95])
def test_a_thinned_graph_is_the_graph_of_its_edges(rate):
    users, items = some_graph().edges()
    kept = torch.rand(len(users), generator=torch.Generator().manual_seed(2)) >= rate
    thin = some_graph().thinned(kept)
    new = BipartiteGraph(users[kept], items[kept], 8, 6)
    for name in ("indptr", "indices", "values"):
        assert torch.equal(getattr(thin, name), getattr(new, name))
        assert getattr(thin, name).dtype == getattr(new, name).dtype
    x = torch.randn(14, 3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(thin.propagate(x, 2), new.propagate(x, 2))


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_a_masked_graph_is_its_dense_matrix_which_need_not_be_symmetric(rows):
    graph = some_graph()
    factors = torch.rand(len(graph.indices), generator=torch.Generator().manual_seed(4))
    factors[::3] = 0.0
    dense = torch.zeros(14, 14)
    dense[graph.csr.owner, graph.indices.long()] = graph.values * factors
    assert not torch.equal(dense, dense.T)
    masked = graph.masked(factors, transposing(graph.csr))
    found, expected = (
        torch.randn(14, 3, generator=torch.Generator().manual_seed(5)).requires_grad_()
        for _ in range(2)
    )
    result = graph.propagate(found, 2, "sum", rows, masked)
    whole = expected + dense @ expected + dense @ (dense @ expected)
    wanted = whole if rows is None else whole[rows]
    assert_close(result, wanted)
    pull = torch.randn(result.shape, generator=torch.Generator().manual_seed(6))
    (result * pull).sum().backward()
    (wanted * pull).sum().backward()
    assert_close(found.grad, expected.grad)
    assert_close(
        masked.matmul(expected.detach(), rows),
        (dense @ expected.detach())[slice(None) if rows is None else rows],
    )
