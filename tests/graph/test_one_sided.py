"""One-sided adjacency and propagation against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modalign.core import seeds
from modalign.graph.one_sided import TwoWayGraph

USERS, ITEMS = torch.tensor([0, 0, 1, 1, 3, 0]), torch.tensor([0, 1, 1, 3, 2, 0])  # (0, 0) twice
SIZES = 5, 6  # user 2, user 4 and items 4, 5 are isolated
DENSE = np.zeros(SIZES)
DENSE[USERS.numpy(), ITEMS.numpy()] = 1.0


def roots(degrees: np.ndarray) -> np.ndarray:
    return np.array([1 / np.sqrt(d) if d else 0.0 for d in degrees])


def dense(adjacency: str) -> tuple[np.ndarray, np.ndarray]:
    left, right = np.diag(roots(DENSE.sum(1))), np.diag(roots(DENSE.sum(0)))
    if adjacency == "one-sided":
        return left @ DENSE, right @ DENSE.T
    return left @ DENSE @ right, right @ DENSE.T @ left


def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    rng = seeds.torch_generator(1)
    return torch.randn(5, 3, generator=rng), torch.randn(6, 3, generator=rng)


@pytest.mark.parametrize("adjacency", ["one-sided", "symmetric"])
def test_both_directions_are_those_of_dense_matrices(adjacency: str) -> None:
    graph, (users, items) = TwoWayGraph(USERS, ITEMS, *SIZES, adjacency), vectors()
    to_users, to_items = dense(adjacency)
    np.testing.assert_allclose(graph.to_users.matmul(items), to_users @ items.numpy(), atol=1e-6)
    np.testing.assert_allclose(graph.to_items.matmul(users), to_items @ users.numpy(), atol=1e-6)
    assert len(graph.seen.indices) == 5


def test_isolated_rows_are_zero_and_one_sided_rows_have_length_one() -> None:
    graph = TwoWayGraph(USERS, ITEMS, *SIZES)
    for side, alone in ((graph.to_users, [2, 4]), (graph.to_items, [4, 5])):
        lengths = np.linalg.norm(side.scipy().toarray(), axis=1)
        assert (lengths[alone] == 0).all()
        np.testing.assert_allclose(np.delete(lengths, alone), 1.0, rtol=1e-6)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_propagation_is_the_mean_over_all_layers(
    n_layers: int, sequential: bool, rows: bool
) -> None:
    graph, (users, items) = TwoWayGraph(USERS, ITEMS, *SIZES), vectors()
    to_users, to_items = dense("one-sided")
    u, i = users.double().numpy(), items.double().numpy()
    sums = [u, i]
    for _ in range(n_layers):
        new = to_users @ i
        i = to_items @ (new if sequential else u)
        u = new
        sums = [sums[0] + u, sums[1] + i]
    at = (torch.tensor([3, 0, 0]), torch.tensor([5, 1])) if rows else (None, None)
    got = graph.propagate(
        users, items, n_layers, sequential=sequential, user_rows=at[0], item_rows=at[1]
    )
    for found, total, index in zip(got, sums, at, strict=True):
        expected = total / (n_layers + 1)
        expected = expected if index is None else expected[index.numpy()]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_graph_of_pairs_leaves_ones_alone() -> None:
    # Dividing L + 1 layers by L, as printed in the paper, gives 1.5 here.
    pairs = torch.arange(4)
    ones = torch.ones(4, 2)
    for table in TwoWayGraph(pairs, pairs, 4, 4).propagate(ones, ones, 2):
        torch.testing.assert_close(table, ones)


def test_a_softened_last_layer_sums_to_one() -> None:
    graph, (users, items) = TwoWayGraph(USERS, ITEMS, *SIZES), vectors()
    soft = graph.propagate(users, items, 1, soften_last=True)
    for table, start in zip(soft, (users, items), strict=True):
        torch.testing.assert_close((2 * table - start).sum(1), torch.ones(len(table)))


@pytest.mark.parametrize("sequential", [False, True])
def test_gradients_through_rows_are_those_of_all(sequential: bool) -> None:
    graph = TwoWayGraph(USERS, ITEMS, *SIZES)
    at = torch.tensor([0, 3, 0]), torch.tensor([1, 2, 2])
    found = []
    for rows in (False, True):
        users, items = (one.requires_grad_() for one in vectors())
        asked = dict(zip(("user_rows", "item_rows"), at, strict=True)) if rows else {}
        u, i = graph.propagate(users, items, 2, sequential=sequential, **asked)
        u, i = (u, i) if rows else (u[at[0]], i[at[1]])
        (u.square().sum() + i.pow(3).sum()).backward()
        found.append((users.grad, items.grad))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right)
