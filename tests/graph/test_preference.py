"""Each user's best items against a sort, and the graph made of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from modalign.core import seeds
from modalign.graph.one_sided import TwoWayGraph
from modalign.graph.preference import NOBODY, PreferenceGraph, best_items

N_USERS, N_ITEMS = 11, 17


def observed() -> TwoWayGraph:
    rng = seeds.torch_generator(2)
    return TwoWayGraph(
        torch.randint(N_USERS - 1, (40,), generator=rng),
        torch.randint(N_ITEMS, (40,), generator=rng),
        N_USERS,
        N_ITEMS,
    )


def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    rng = seeds.torch_generator(3)
    return torch.randn(N_USERS, 4, generator=rng), torch.randn(N_ITEMS, 4, generator=rng)


@pytest.mark.parametrize("block", [1, 4, 100])
def test_best_items_are_the_top_of_each_row_without_seen_ones(block: int) -> None:
    users, items = vectors()
    seen = observed().to_users.scipy().toarray() > 0
    scores = np.where(seen, -np.inf, users.numpy() @ items.numpy().T)
    best = best_items(users, items, 3, observed().seen, block=block)
    assert best.tolist() == np.argsort(-scores, axis=1)[:, :3].tolist()


def test_some_users_are_scored_as_among_all() -> None:
    users, items = vectors()
    rows = torch.tensor([7, 2, 9])
    whole = best_items(users, items, 4, observed().seen)
    some = best_items(users[rows], items, 4, observed().seen, rows=rows)
    assert torch.equal(some, whole[rows])


def test_edges_stay_inside_the_block_that_a_user_likes() -> None:
    # Tiling the users where items are listed user by user sends items to other users.
    users = torch.eye(4)
    items = torch.eye(4).repeat_interleave(5, dim=0) + 0.01
    none = torch.tensor([], dtype=torch.int64)
    nothing = TwoWayGraph(none, none, 4, 20)
    best = best_items(users, items, 3, nothing.seen)
    assert torch.equal(best // 5, torch.arange(4)[:, None].expand(4, 3))


def test_too_few_items_and_users_without_a_taste_leave_gaps() -> None:
    graph = TwoWayGraph(torch.tensor([0, 0]), torch.tensor([0, 1]), 2, 3)
    best = best_items(torch.tensor([[1.0], [0.0]]), torch.ones(3, 1), 2, graph.seen)
    assert best.tolist() == [[2, NOBODY], [NOBODY, NOBODY]]
    assert best_items(torch.ones(2, 1), torch.ones(3, 1), 0, graph.seen).shape == (2, 0)


def test_zero_in_place_of_leaving_out_lets_seen_items_pass_negative_ones() -> None:
    graph = TwoWayGraph(torch.tensor([0]), torch.tensor([1]), 1, 3)
    users, items = torch.ones(1, 1), torch.tensor([[-1.0], [5.0], [-2.0]])
    assert best_items(users, items, 1, graph.seen).tolist() == [[0]]
    assert best_items(users, items, 1, graph.seen, seen_score=0.0).tolist() == [[1]]


def test_graph_begins_as_the_observed_one_and_comes_back_from_its_state() -> None:
    start = observed()
    graph = PreferenceGraph(start, 3)
    assert graph.graph(start) is start
    chosen = best_items(*vectors(), 3, start.seen)
    graph.set(chosen)
    file = io.BytesIO()
    torch.save(graph.state_dict(), file)
    file.seek(0)
    copy = PreferenceGraph(start, 3)
    copy.load_state_dict(torch.load(file, weights_only=True))
    dense = np.zeros((N_USERS, N_ITEMS))
    np.put_along_axis(dense, chosen.numpy(), 1 / np.sqrt(3), axis=1)
    for one in (graph, copy):
        np.testing.assert_allclose(one.graph(start).to_users.scipy().toarray(), dense, rtol=1e-6)
    copy.load_state_dict(PreferenceGraph(start, 3).state_dict())
    assert copy.graph(start) is start
    graph.reset()
    assert graph.graph(start) is start
    assert (graph.neighbours == NOBODY).all()
