"""Dropped edges: how many, which, and the same ones again."""

from __future__ import annotations

import pytest
import torch

from modalign.graph.bipartite import kept_edges


def star_and_pairs(n: int = 200):
    """n edges of one popular item, and n users with an item of their own."""
    users = torch.arange(2 * n)
    items = torch.cat([torch.zeros(n, dtype=torch.int64), torch.arange(1, n + 1)])
    return users, items


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("by", ["uniform", "degree"])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.99])
def test_so_many_stay_each_once_and_in_order(rate, by):
    kept = kept_edges(*star_and_pairs(), rate, generator(0), by)
    assert len(kept) == 400 - round(400 * rate)
    assert torch.equal(kept, torch.unique(kept))
    assert 0 <= kept.min() <= kept.max() < 400


@pytest.mark.parametrize("by", ["uniform", "degree"])
def test_the_generator_alone_decides(by):
    edges = star_and_pairs()
    one, same, other = (kept_edges(*edges, 0.5, generator(seed), by) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_uniform_spares_no_edge():
    draws = [kept_edges(*star_and_pairs(), 0.5, generator(seed)) for seed in range(300)]
    share = torch.bincount(torch.cat(draws), minlength=400) / 300
    assert abs(share - 0.5).max() < 0.15  # five standard deviations of a coin thrown 300 times


@pytest.mark.slow
def test_degree_draws_with_probability_of_one_over_the_root_of_the_degrees():
    # One edge stays: the law is exact. Star edges have weight 1/sqrt(4), the pair has 1.
    users, items = torch.arange(5), torch.tensor([0, 0, 0, 0, 1])
    draws = torch.cat([kept_edges(users, items, 0.8, generator(s), "degree") for s in range(3000)])
    assert len(draws) == 3000
    share = torch.bincount(draws, minlength=5) / 3000
    expected = torch.tensor([0.5, 0.5, 0.5, 0.5, 1.0]) / 3
    torch.testing.assert_close(share, expected, atol=0.035, rtol=0)


def test_wrong_rates_and_ways_are_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        kept_edges(*star_and_pairs(), 1.0, generator(0))
    with pytest.raises(ValueError, match="weather"):
        kept_edges(*star_and_pairs(), 0.5, generator(0), "weather")  # type: ignore[arg-type]
