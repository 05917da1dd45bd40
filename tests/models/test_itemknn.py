"""ItemKNN against loops, scikit-learn's cosine, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics.pairwise import cosine_similarity

import oracles
from modalign.core.interfaces import Queries
from modalign.data.interactions import Interactions
from modalign.models import itemknn
from modalign.models._registry import get
from modalign.models.itemknn import ItemKNN, ItemKNNConfig
from modalign.testing.harness import queries
from modalign.testing.toy import tiny_view, toy_dataset

VIEW = toy_dataset().view()
ALL = queries(get("itemknn"), VIEW, torch.arange(VIEW.n_users))


def solved(view=VIEW, **options) -> ItemKNN:
    model = ItemKNN(ItemKNNConfig(**{"shrinkage": 0, "weighting": "none"} | options), view)
    model.solve(view)
    return model


def by_loops(similarities: np.ndarray, neighbours: int) -> torch.Tensor:
    histories = [np.flatnonzero(row) for row in oracles.interaction_matrix(VIEW)]
    rows = [oracles.item_knn_scores(similarities, history, neighbours) for history in histories]
    return torch.tensor(rows, dtype=torch.float32)


@pytest.mark.parametrize("neighbours", [1, 5, 39, 500])
def test_cosine_of_scikit_learn_and_loops(neighbours: int) -> None:
    # Rounded, so that likenesses that are equal on paper are equal to both.
    similarities = np.float32(cosine_similarity(oracles.interaction_matrix(VIEW).T))
    similarities = similarities.round(5)
    expected = by_loops(similarities, neighbours)
    scores = solved(neighbours=neighbours).score(ALL)
    # A tie at the k-th place that rounding made is settled either way by real numbers.
    agree = ((scores - expected).abs() < 1e-3).float().mean()
    assert agree > (0.97 if neighbours < 39 else 0.9999)


@pytest.mark.parametrize("weighting", ["none", "tfidf", "bm25"])
@pytest.mark.parametrize("shrinkage", [0.0, 3.0])
def test_similarities_by_loops(weighting: str, shrinkage: float) -> None:
    x = oracles.interaction_matrix(VIEW)
    per_user, per_item = x.sum(1), x.sum(0)
    for user in range(VIEW.n_users):
        for item in range(VIEW.n_items):
            n = per_user[user]
            if weighting == "tfidf" and n:
                x[user, item] *= np.log(VIEW.n_items / n)
            if weighting == "bm25":
                idf = np.log(1 + (VIEW.n_items - n + 0.5) / (n + 0.5))
                length = 0.25 + 0.75 * per_item[item] / per_item.mean()
                x[user, item] *= idf * 2.2 / (1 + 1.2 * length)
    norms = np.sqrt((x * x).sum(0))
    similarities = (x.T @ x) / np.maximum(np.outer(norms, norms) + shrinkage, 1e-12)
    scores = solved(neighbours=39, weighting=weighting, shrinkage=shrinkage).score(ALL)
    torch.testing.assert_close(scores, by_loops(similarities, 39), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cells", [1, 40 * 7, 10**6])
def test_the_block_changes_nothing(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    whole = solved(neighbours=6).state_dict()
    monkeypatch.setattr(itemknn, "BLOCK_CELLS", cells)
    torch.testing.assert_close(solved(neighbours=6).state_dict(), whole, rtol=0, atol=0)


def test_every_item_keeps_exactly_k() -> None:
    model = solved(neighbours=6)
    assert torch.bincount(model.columns.long(), minlength=VIEW.n_items).unique().tolist() == [6]
    assert model.row_starts[-1] == len(model.columns) == 6 * VIEW.n_items


def test_who_asks_makes_no_difference_and_nobody_scores_zero() -> None:
    model = solved()
    unseen = Queries(torch.full_like(ALL.user, -1), ALL.history)
    torch.testing.assert_close(model.score(unseen), model.score(ALL), rtol=0, atol=0)
    assert model.score(ALL)[-1].abs().max() == 0  # the last user has no history


def test_a_query_without_history_is_refused() -> None:
    with pytest.raises(ValueError, match="histories"):
        solved().score(Queries(torch.tensor([0])))


def test_one_item_has_no_neighbours() -> None:
    view = tiny_view()
    alone = type(view)(2, 1, torch.tensor([0]), torch.tensor([0]))
    model = solved(alone)
    assert model.score(queries(get("itemknn"), alone, torch.tensor([0, 1]))).tolist() == [[0], [0]]


@pytest.mark.parametrize("cells", [50, 4_000_000])
@pytest.mark.parametrize("weighting", ["none", "bm25"])
@pytest.mark.parametrize("k", [1, 5, 39])
def test_sparse_and_dense_blocks_find_the_same(monkeypatch, cells, weighting, k):
    rng = np.random.default_rng(k)
    users, items = rng.integers(0, 60, 150), rng.integers(0, 40, 150)
    items[items == 7] = 8  # an item without users
    matrix = Interactions(users, items).csr(60, 40)
    weighted = sp.csc_array(itemknn._weighted(matrix, weighting))
    found = []
    for share in (0.0, 2.0):
        monkeypatch.setattr(itemknn, "DENSE", share)
        monkeypatch.setattr(itemknn, "BLOCK_CELLS", cells)
        found.append(itemknn._neighbours(weighted, k, 3.0))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    nearest, values = found[0]
    assert all(len({*row}) == k and item not in row for item, row in enumerate(nearest.tolist()))
    assert (values[7] == 0).all()


def test_items_that_share_no_user_cost_nothing():
    """20,000 items with 40,000 interactions: what is computed grows with the pairs that meet."""
    rng = np.random.default_rng(0)
    matrix = Interactions(rng.integers(0, 20_000, 40_000), rng.integers(0, 20_000, 40_000))
    items_by_users = sp.csr_array(matrix.csr(20_000, 20_000).T)
    assert len(list(itemknn._blocks(items_by_users))) == 1
    product = items_by_users @ items_by_users.T
    assert product.nnz < 0.001 * 20_000**2
