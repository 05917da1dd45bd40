"""Filters against slow loops and against their own laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modalign.data.filters import k_core, minimum_rating, pair_keys, without_duplicates
from modalign.errors import ConfigError, DataError

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 6)), min_size=1, max_size=60)
EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 5), st.integers(0, 3)),
    min_size=1,
    max_size=40,
)

# A busy machine is no failure.
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def arrays(rows: list[tuple[int, ...]]) -> list[np.ndarray]:
    return [np.array(column) for column in zip(*rows, strict=True)]


def slow_core(pairs: set[tuple[int, int]], k_users: int, k_items: int) -> set[tuple[int, int]]:
    """One removal at a time, until none is due."""
    pairs = set(pairs)
    while True:
        for user, item in sorted(pairs):
            if (
                sum(u == user for u, _ in pairs) < k_users
                or sum(i == item for _, i in pairs) < k_items
            ):
                pairs.remove((user, item))
                break
        else:
            return pairs


@given(PAIRS, st.integers(0, 4), st.integers(0, 4))
@settings(QUIET, max_examples=60)
def test_k_core_equals_removing_one_at_a_time(pairs, k_users, k_items):
    pairs = sorted(set(pairs))
    users, items = arrays(pairs)
    mask = k_core(users, items, k_users, k_items)
    kept = {pair for pair, stays in zip(pairs, mask, strict=True) if stays}
    assert kept == slow_core(set(pairs), k_users, k_items)


@given(PAIRS, st.integers(1, 4))
@settings(QUIET, max_examples=60)
def test_k_core_leaves_every_user_and_item_k_and_does_not_see_row_order(pairs, k):
    pairs = sorted(set(pairs))
    users, items = arrays(pairs)
    mask = k_core(users, items, k, k)
    for rows in (users[mask], items[mask]):
        assert all(np.unique(rows, return_counts=True)[1] >= k)
    order = np.random.default_rng(0).permutation(len(users))
    np.testing.assert_array_equal(k_core(users[order], items[order], k, k), mask[order])


def test_k_core_needs_more_than_one_round():
    # Item 1 falls for want of users; only then user 1 has too little.
    users, items = np.array([0, 0, 2, 2, 1, 1]), np.array([2, 3, 2, 3, 2, 1])
    assert k_core(users, items, 2, 2).tolist() == [True, True, True, True, False, False]


def test_k_core_of_nothing_is_nothing():
    nothing = np.empty(0, np.int64)
    assert k_core(nothing, nothing, 5, 5).shape == (0,)


@given(EVENTS, st.sampled_from(["last", "first", "max"]))
@settings(QUIET, max_examples=80)
def test_duplicates_keep_the_one_a_loop_keeps(events, keep):
    users, items, weight, time = arrays(events)
    weight = weight.astype(np.float32)
    mask = without_duplicates(users, items, weight, time, keep)
    score = {"last": lambda e: (e[3], e[2]), "first": lambda e: (-e[3], e[2]),
             "max": lambda e: (e[2], e[3])}[keep]  # fmt: skip
    best: dict[tuple[int, int], tuple[int, ...]] = {}
    for event in events:
        old = best.get(event[:2])
        if old is None or score(event) > score(old):
            best[event[:2]] = event
    assert sorted(e for e, stays in zip(events, mask, strict=True) if stays) == sorted(
        best.values()
    )


def test_duplicates_without_time_keep_the_highest_rating_in_any_row_order():
    users, items = np.array([3, 3, 1]), np.array([5, 5, 5])
    weight = np.array([2.0, 4.0, 1.0])
    assert without_duplicates(users, items, weight).tolist() == [False, True, True]
    assert without_duplicates(users[::-1], items[::-1], weight[::-1]).tolist() == [
        True,
        True,
        False,
    ]


def test_large_times_are_not_rounded_together():
    time = np.array([1_700_000_000, 1_700_000_001])
    pair = np.array([0, 0]), np.array([0, 0])
    assert without_duplicates(*pair, None, time).tolist() == [False, True]


def test_unknown_policy_for_duplicates_is_told():
    with pytest.raises(ConfigError, match="'newest'"):
        without_duplicates(np.array([0]), np.array([0]), keep="newest")  # type: ignore[arg-type]


def test_minimum_rating_keeps_the_bound_itself_and_wants_ratings():
    assert minimum_rating(np.array([3.5, 4.0, 4.5]), 4.0).tolist() == [False, True, True]
    with pytest.raises(DataError, match="without ratings"):
        minimum_rating(None, 4)


def test_pair_keys_do_not_overflow_small_integers():
    users, items = np.array([2_000_000], np.int32), np.array([1_000_000], np.int32)
    assert pair_keys(users, items).tolist() == [2_000_000 * 1_000_001 + 1_000_000]
