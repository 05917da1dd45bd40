"""Users' preferences from their training items: a hand example, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modalign.core import seeds
from modalign.core.modality import Modality
from modalign.features.history import history_mean


def text(rows, present=None) -> Modality:
    features = np.asarray(rows, dtype=np.float32)
    there = np.ones(len(features), bool) if present is None else np.asarray(present)
    return Modality("text", features, there)


def test_two_items_by_hand():
    # Unit rows (1, 0) and (0, 1), centre (1/2, 1/2); 3 users; item 0 has two users, item 1 one.
    found = history_mean(text([[5, 0], [0, 2]]), np.array([0, 0, 1]), np.array([0, 1, 0]), 3)
    first, second = math.log(1 + 3 / 3), math.log(1 + 3 / 2)
    both = np.array([first - second, second - first]) / 2  # towards the rarer item
    np.testing.assert_allclose(found.features[0], both / np.linalg.norm(both), rtol=1e-6)
    np.testing.assert_allclose(found.features[1], [2**-0.5, -(2**-0.5)], rtol=1e-6)
    np.testing.assert_array_equal(found.features[2], [0.0, 0.0])
    np.testing.assert_array_equal(found.present, [True, True, False])
    assert found.entity == "user"


def random_case(seed: int = 0):
    rng = seeds.numpy_generator(seed, "history")
    features = rng.normal(size=(9, 4)) + 3.0  # a large common part
    present = np.array([True] * 7 + [False, True])
    users, items = np.nonzero(rng.random((6, 9)) < 0.4)
    return features, present, users, items


def test_it_is_the_loop_over_users():
    features, present, users, items = random_case()
    found = history_mean(text(features, present), users, items, 6)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    unit = unit.astype(np.float32).astype(float)
    centre = unit[present].mean(axis=0)
    degree = np.bincount(items, minlength=9)
    for user in range(6):
        total = np.zeros(4)
        for item in items[users == user]:
            if present[item]:
                total += math.log(1 + 6 / (1 + degree[item])) * (unit[item] - centre)
        if np.linalg.norm(total) > 0:
            total /= np.linalg.norm(total)
        np.testing.assert_allclose(found.features[user], total, atol=1e-6)


def test_rows_have_length_one_and_a_pair_given_twice_counts_once():
    features, present, users, items = random_case()
    found = history_mean(text(features, present), users, items, 6)
    lengths = np.linalg.norm(found.features, axis=1)
    np.testing.assert_allclose(lengths[found.present], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(lengths[~found.present], 0.0)
    twice = history_mean(text(features, present), np.r_[users, users], np.r_[items, items], 6)
    np.testing.assert_array_equal(twice.features, found.features)


def test_missing_items_say_nothing_whatever_stands_in_their_rows():
    features, present, users, items = random_case()
    found = history_mean(text(features, present), users, items, 6)
    spoilt = features.copy()
    spoilt[~present] = 1e6
    again = history_mean(text(spoilt, present), users, items, 6)
    np.testing.assert_array_equal(again.features, found.features)
    nobody = history_mean(text(features, np.zeros(9, bool)), users, items, 6)
    assert not nobody.present.any()
    assert not nobody.features.any()


def test_the_length_of_a_row_does_not_matter():
    features, present, users, items = random_case()
    found = history_mean(text(features, present), users, items, 6)
    scaled = features * seeds.numpy_generator(1).uniform(0.1, 10.0, (9, 1))
    again = history_mean(text(scaled, present), users, items, 6)
    np.testing.assert_allclose(again.features, found.features, atol=1e-5)


def test_items_that_cancel_out_leave_a_user_without_a_preference():
    # All items, equally popular: nothing is left but rounding.
    rows = seeds.numpy_generator(3, "cancel").normal(size=(7, 5))
    found = history_mean(text(rows), np.zeros(7, np.int64), np.arange(7), 1)
    assert not found.present[0]
    assert not found.features.any()


@pytest.mark.parametrize("n_items", [4095, 4096, 4097])
def test_blocks_of_rows_do_not_show(n_items):
    rng = seeds.numpy_generator(2, "blocks")
    features = rng.normal(size=(n_items, 2))
    found = history_mean(text(features), np.array([0]), np.array([n_items - 1]), 1)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    direction = unit[-1] - unit.mean(axis=0)
    np.testing.assert_allclose(found.features[0], direction / np.linalg.norm(direction), atol=1e-5)
