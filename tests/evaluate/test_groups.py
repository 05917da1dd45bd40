"""Groups of users and items, by hand tables and one slow loop."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from modalign.errors import ConfigError
from modalign.evaluate.groups import by_activity, by_popularity
from modalign.evaluate.protocol import Evaluator
from modalign.models.popularity import Popularity, PopularityConfig
from modalign.testing.toy import toy_dataset

USERS = pl.DataFrame(
    {
        "user_id": list("abcdefgh"),
        "n_train": [0, 3, 4, 5, 8, 9, 12, 13],
        "recall@20": [1.0, 0.0, 0.5, 1.0, 0.25, 0.0, 1.0, 0.75],
        "ndcg@20": [0.8, 0.2, 0.5, 0.7, 0.1, 0.4, 0.6, 0.3],
    }
)


def test_by_activity_by_hand() -> None:
    found = by_activity(USERS)
    assert found.columns == ["group", "n_users", "recall@20", "ndcg@20"]
    assert found["group"].to_list() == ["0-3", "4-5", "6-8", "9-12", "13+"]
    assert found["n_users"].to_list() == [2, 2, 1, 2, 1]
    assert found["recall@20"].to_list() == pytest.approx([0.5, 0.75, 0.25, 0.5, 0.75])
    assert found["ndcg@20"].to_list() == pytest.approx([0.5, 0.6, 0.1, 0.5, 0.3])


def test_edges_of_ones_own_and_groups_of_one_number() -> None:
    found = by_activity(USERS, (0, 4, 5, 20))
    # Nobody has 20 or more: that group is left out.
    assert found["group"].to_list() == ["0-3", "4", "5-19"]
    assert found["n_users"].to_list() == [2, 1, 5]


def test_one_edge_is_everybody() -> None:
    found = by_activity(USERS, [0])
    assert found["group"].to_list() == ["0+"]
    assert found["recall@20"][0] == pytest.approx(USERS["recall@20"].mean())


def test_groups_add_up_to_the_whole() -> None:
    data = toy_dataset()
    model = Popularity(PopularityConfig(), data.view())
    model.solve(data.view())
    found = Evaluator(data).run(model)
    groups = by_activity(found.per_user)
    assert groups["n_users"].sum() == found.n_users
    for key in (name for name in found.per_user.columns if "@" in name):
        mean = (groups[key] * groups["n_users"]).sum() / found.n_users
        assert mean == pytest.approx(found.metrics[key])


def test_the_order_of_users_makes_no_difference() -> None:
    found = by_activity(USERS[::-1])
    assert found["group"].to_list() == by_activity(USERS)["group"].to_list()
    assert found["ndcg@20"].to_list() == pytest.approx(by_activity(USERS)["ndcg@20"].to_list())


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([], "increasing edges"),
        ([0, 4, 4], "increasing edges"),
        ([5, 0], "increasing edges"),
        ([1, 4], "at 0"),
    ],
)
def test_wrong_edges_are_refused(edges: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        by_activity(USERS, edges)


def test_nobody_is_no_group() -> None:
    assert len(by_activity(USERS[:0])) == 0


# ------------------------------------------------------------------ popularity


def test_by_popularity_by_hand() -> None:
    # Ten items; the two most popular (9, and of the equals 0 and 1 the smaller row) are the head.
    counts = np.array([5, 5, 1, 1, 1, 1, 1, 1, 0, 9])
    items = np.array([[9, 1, 2], [0, 3, -1]])
    hits = np.array([[True, False, True], [True, True, False]])
    relevant = np.array([9, 2, 0, 3, 4, 9])  # head: 9, 0, 9
    found = by_popularity(items, hits, relevant, counts, k=3)
    assert found.rows() == [("head", 3, 2 / 3), ("tail", 3, 2 / 3)]
    found = by_popularity(items, hits, relevant, counts, k=1)
    assert found.columns == ["group", "n_pairs", "recall@1"]
    assert found.rows() == [("head", 3, 2 / 3), ("tail", 3, 0.0)]


def test_by_popularity_equals_a_loop() -> None:
    rng = np.random.default_rng(0)
    n_users, n_items, k = 30, 50, 8
    items = rng.permuted(np.tile(np.arange(n_items), (n_users, 1)), axis=1)[:, :12]
    relevant = rng.random((n_users, n_items)) < 0.1
    counts = rng.integers(6, size=n_items)
    hits = np.take_along_axis(relevant, items, 1)
    head = set(sorted(range(n_items), key=lambda item: (-counts[item], item))[:15])
    got, pairs = {"head": 0, "tail": 0}, {"head": 0, "tail": 0}
    for user in range(n_users):
        for item in np.flatnonzero(relevant[user]):
            group = "head" if item in head else "tail"
            pairs[group] += 1
            got[group] += item in items[user, :k]
    found = by_popularity(items, hits, np.nonzero(relevant)[1], counts, k, head=0.3)
    assert found.rows() == [(g, pairs[g], pytest.approx(got[g] / pairs[g])) for g in pairs]


def test_no_pair_in_a_group_is_recall_zero() -> None:
    found = by_popularity(
        np.array([[0]]), np.array([[True]]), np.array([0]), np.array([3, 1]), 1, head=0.5
    )
    assert found.rows() == [("head", 1, 1.0), ("tail", 0, 0.0)]


@pytest.mark.parametrize("head", [-0.1, 1.1])
def test_a_head_beyond_the_catalogue_is_refused(head: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        by_popularity(np.array([[0]]), np.array([[True]]), np.array([0]), np.array([3]), 1, head)
