"""Popularity against counts by hand and its laws."""

from __future__ import annotations

import pydantic
import pytest
import torch

from modalign.core.interfaces import Queries
from modalign.models.popularity import Popularity, PopularityConfig
from modalign.testing.toy import tiny_view, toy_dataset


def solved(view, **options) -> Popularity:
    model = Popularity(PopularityConfig(**options), view)
    model.solve(view)
    return model


def test_hand_table() -> None:
    model = solved(tiny_view())
    assert model.score(Queries(torch.tensor([0, 2]))).tolist() == [[2, 2, 1, 0]] * 2


def test_hand_table_with_one_vote_each() -> None:
    # Users of 2, 2 and 1 items vote with 1/2, 1/2 and 1.
    assert solved(tiny_view(), damping=1.0).votes.tolist() == [1.5, 1.0, 0.5, 0.0]


@pytest.mark.parametrize("damping", [0.0, 0.3, 1.0])
def test_votes_add_up(damping: float) -> None:
    view = toy_dataset().view()
    counts = view.user_counts().double()
    expected = counts[counts > 0].pow(1 - damping).sum()
    total = solved(view, damping=damping).votes.sum().double()
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)


def test_items_of_equal_counts_are_equal_to_the_bit() -> None:
    view = toy_dataset().view()
    votes = solved(view).votes
    torch.testing.assert_close(votes, view.item_counts().float(), rtol=0, atol=0)


def test_a_user_never_seen_is_served_like_any_other() -> None:
    model = solved(tiny_view())
    queries = Queries(torch.tensor([-1, 1]))
    torch.testing.assert_close(*model.score(queries), rtol=0, atol=0)
    assert model.user_vectors(queries).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("damping", [-0.1, 1.1])
def test_damping_is_a_share(damping: float) -> None:
    with pytest.raises(pydantic.ValidationError):
        PopularityConfig(damping=damping)
