"""Splits: counts by hand, laws by random data, and no leak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modalign.data.dataset import SPLITS
from modalign.data.splits import SPLITTERS, TEST, TRAIN, VALID, canonical, counts, split
from modalign.errors import ConfigError, DataError, UnknownName

# A busy machine is no failure.
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def sizes_to_pairs(sizes: list[int], n_items: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Users with the given numbers of different items."""
    generator = np.random.default_rng(len(sizes))
    users = np.repeat(np.arange(len(sizes)), sizes)
    items = np.concatenate([generator.permutation(n_items)[:n] for n in sizes])
    return users, items


def of_user(labels: np.ndarray, users: np.ndarray, user: int) -> list[int]:
    return np.bincount(labels[users == user], minlength=3)[:3].tolist()


SIZES = st.lists(st.integers(1, 40), min_size=5, max_size=30).map(lambda sizes: [12, 8, *sizes])


@pytest.mark.slow
@given(SIZES, st.sampled_from(list(SPLITTERS)), st.integers(0, 5))
@settings(QUIET, max_examples=80)
def test_every_split_depends_on_the_set_and_the_seed_alone(sizes, kind, seed):
    users, items = sizes_to_pairs(sizes)
    # All different, and in no order: multiplication modulo a prime is one to one.
    time = (users * 40 + items) * 7919 % 100_003
    labels = split(kind, users, items, time, seed)
    assert labels.shape == users.shape
    assert set(labels.tolist()) <= set(range(len(SPLITS)))
    assert {TRAIN, VALID, TEST} <= set(labels.tolist())
    np.testing.assert_array_equal(split(kind, users, items, time, seed), labels)
    order = np.random.default_rng(1).permutation(len(users))
    again = split(kind, users[order], items[order], time[order], seed)
    np.testing.assert_array_equal(again, labels[order])


@pytest.mark.parametrize("kind", [k for k in SPLITTERS if k != "time"])
def test_another_seed_gives_another_split(kind):
    users, items = sizes_to_pairs([20] * 20)
    one, two = (split(kind, users, items, None, seed) for seed in (1, 2))
    assert (one != two).any()


@given(SIZES)
@settings(QUIET, max_examples=40)
def test_ratio_follows_the_papers_protocol(sizes):
    users, items = sizes_to_pairs(sizes)
    labels = split("ratio", users, items, None, 3)
    for user, n in enumerate(sizes):
        if n < 3:
            wanted = [n, 0, 0]
        elif n < 10:
            wanted = [n - 2, 1, 1]
        else:
            held = n // 5
            wanted = [n - held, held // 2, held - held // 2]
        assert of_user(labels, users, user) == wanted


def test_ratio_takes_other_shares_and_is_fair_to_places():
    users, items = sizes_to_pairs([40] * 300)
    labels = split("ratio", users, items, None, 1, {"train": 0.5, "valid": 0.25, "test": 0.25})
    assert counts(labels) == {"train": 6000, "valid": 3000, "test": 3000}
    # No place in a user's list is favoured: each is held out about half the time.
    held = (labels.reshape(300, 40) != TRAIN).mean(axis=0)
    assert held.min() > 0.35
    assert held.max() < 0.65


def test_leave_one_out_takes_the_two_latest():
    users, items = np.repeat([0, 1], 4), np.tile(np.arange(4), 2)
    time = np.array([40, 10, 30, 20, 1, 2, 3, 4])
    labels = split("leave-one-out", users, items, time, 1)
    assert labels.tolist() == [TEST, TRAIN, VALID, TRAIN, TRAIN, TRAIN, VALID, TEST]


def test_leave_one_out_breaks_equal_times_at_random_not_by_item():
    users, items = np.repeat(np.arange(200), 5), np.tile(np.arange(5), 200)
    labels = split("leave-one-out", users, items, np.zeros(1000, np.int64), 1)
    assert (labels == TEST).sum() == 200
    found = np.bincount(items[labels == TEST], minlength=5)
    assert found.min() > 20


def test_time_cuts_all_users_at_the_same_moments():
    users, items = sizes_to_pairs([20] * 10)
    time = np.random.default_rng(0).integers(0, 60, len(users))
    labels = split("time", users, items, time, 0)
    assert time[labels == TRAIN].max() < time[labels == VALID].min()
    assert time[labels == VALID].max() < time[labels == TEST].min()
    distinct = np.random.default_rng(0).permutation(200)
    assert counts(split("time", users, items, distinct, 0)) == {
        "train": 160,
        "valid": 20,
        "test": 20,
    }


def test_cold_items_have_no_training_interaction():
    users, items = sizes_to_pairs([20] * 30, n_items=50)
    labels = split("cold-items", users, items, None, 4)
    parts = [set(items[labels == part].tolist()) for part in (TRAIN, VALID, TEST)]
    assert [len(part) for part in parts] == [40, 5, 5]
    assert len(set.union(*parts)) == 50


def test_unseen_users_have_no_training_interaction_and_a_fifth_to_be_found():
    users, items = sizes_to_pairs([10] * 50)
    labels = split("unseen-users", users, items, None, 4)
    assert counts(labels) == {
        "train": 400,
        "valid": 10,
        "test": 10,
        "valid_history": 40,
        "test_history": 40,
    }
    trained = set(users[labels == TRAIN].tolist())
    held = set(users[labels != TRAIN].tolist())
    assert not trained & held
    for user in held:
        mine = set(labels[users == user].tolist())
        assert mine in ({VALID, SPLITS.index("valid_history")},
                        {TEST, SPLITS.index("test_history")})  # fmt: skip


def test_unseen_users_never_hold_out_a_user_of_one_interaction():
    users, items = sizes_to_pairs([1] * 30 + [4] * 4)
    labels = split("unseen-users", users, items, None, 0)
    assert (labels[users < 30] == TRAIN).all()


@pytest.mark.parametrize(
    ("kind", "sizes", "match"),
    [
        ("ratio", [2, 2, 1], "three interactions"),
        ("leave-one-out", [2, 1], "three interactions"),
        ("unseen-users", [3, 3], "three users"),
        ("unseen-users", [1, 1, 1, 1], "three users"),
        ("cold-items", [1, 1], "three items"),
        ("time", [5], "different times"),
    ],
)
def test_too_little_data_is_told(kind, sizes, match):
    users, items = sizes_to_pairs(sizes, n_items=5)
    items = items if kind != "cold-items" else np.zeros_like(items)
    with pytest.raises(DataError, match=match):
        split(kind, users, items, np.zeros(len(users), np.int64), 1)


def test_time_without_times_is_told():
    with pytest.raises(DataError, match="without times"):
        split("time", *sizes_to_pairs([5, 5]), None, 1)


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        ("ratio", {"train": 0}, "train of .*greater than 0"),
        ("ratio", {"valid": True}, "valid of .*a valid number"),
        ("time", {"test": -1}, "test of .*greater than 0"),
        ("time", {"test": float("inf")}, "test of .*a finite number"),
        ("cold-items", {"share": 1.0}, "share of .*less than 1"),
        ("unseen-users", {"truth": 0}, "truth of .*greater than 0"),
        ("ratio", {"holdout": 0.1}, "'holdout'"),
        ("leave-one-out", {"last": 2}, "none"),
    ],
)
def test_bad_options_are_told(kind, options, match):
    users, items = sizes_to_pairs([10] * 5)
    with pytest.raises(ConfigError, match=match):
        split(kind, users, items, users, 1, options)


def test_an_unknown_split_gets_a_suggestion():
    with pytest.raises(UnknownName, match="did you mean 'leave-one-out'"):
        split("leave-one-in", *sizes_to_pairs([5]), None, 1)
    with pytest.raises(UnknownName, match="one of cold-items, leave-one-out, ratio"):
        split("given", *sizes_to_pairs([5]), None, 1)


@pytest.mark.parametrize("kind", [*SPLITTERS, "given"])
def test_names_may_have_underscores(kind):
    assert canonical(kind) == canonical(kind.replace("-", "_")) == kind
