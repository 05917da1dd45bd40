"""What a user had, against a slow loop over the interactions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from modalign.data.interactions import Interactions
from modalign.errors import DataError
from modalign.report.gallery import hidden_items, liked
from modalign.testing.toy import toy_dataset


@pytest.fixture(scope="module")
def data():
    return toy_dataset(seed=2)


def slow_liked(data, user_id, key=None):
    """Pairs one by one, sorted by hand: largest key first, else as they stand."""
    found = []
    users, items = list(data.users), list(data.items)
    for place, (user, item) in enumerate(zip(data.train.users, data.train.items, strict=True)):
        if users[user] == user_id:
            found.append((0 if key is None else -key[place], place, items[item]))
    return [item for _, _, item in sorted(found)]


def with_train(data, **columns):
    train = data.train
    return replace(data, train=Interactions(train.users, train.items, **columns))


@pytest.mark.parametrize("kind", ["plain", "weight", "time", "both"])
def test_liked_is_a_slow_loop(data, kind):
    rng = np.random.default_rng(5)
    n = len(data.train)
    weight = rng.integers(1, 4, n).astype(np.float32)  # with ties
    time = rng.integers(0, 5, n).astype(np.int64)
    columns = {"weight": {"weight": weight}, "time": {"time": time}}.get(kind, {})
    if kind == "both":
        columns = {"weight": weight, "time": time}
    key = {"plain": None, "weight": weight, "time": time, "both": time}[kind]
    changed = with_train(data, **columns)
    for user_id in [*data.users][::7]:
        found = liked(changed, user_id)
        assert [one["item_id"] for one in found] == slow_liked(changed, user_id, key)
        assert [one["item"] for one in found] == [
            list(data.items).index(one["item_id"]) for one in found
        ]


def test_hidden_items_are_a_slow_loop(data):
    for row, user_id in enumerate(data.users):
        wanted = {
            list(data.items)[item]
            for user, item in zip(data.test.users, data.test.items, strict=True)
            if user == row
        }
        assert hidden_items(data, user_id) == wanted


def test_someone_held_out_is_known_by_the_history(data):
    last = data.users.ids([data.n_users - 1])[0]
    assert liked(data, last) == []
    assert hidden_items(data, last) == set()
    history = Interactions(np.array([data.n_users - 1] * 2), np.array([3, 1]))
    for part in ("valid_history", "test_history"):
        found = liked(replace(data, **{part: history}), last)
        assert [one["item"] for one in found] == [3, 1]


def test_titles_where_known_else_ids(data):
    user_id = data.users.ids(data.train.users[:1])[0]
    ids = [one["item_id"] for one in liked(data, user_id)]
    assert [one["title"] for one in liked(data, user_id)] == ids
    titles = [None if row % 2 else f"title {row}" for row in range(data.n_items)]
    table = pl.DataFrame({"item_id": data.items.series, "title": titles})
    for one in liked(replace(data, item_table=table), user_id):
        assert one["title"] == (titles[one["item"]] or one["item_id"])


def test_an_unknown_user_is_refused(data):
    for ask in (liked, hidden_items):
        with pytest.raises(DataError, match="nobody"):
            ask(data, "nobody")
