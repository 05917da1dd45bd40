from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from modalign.data.interactions import Interactions
from modalign.errors import DataError, UnknownName
from modalign.preferences.prompt import item_lines, prompts
from modalign.preferences.side import need_texts, training_side


def timed(library, seed=0):
    train = library.train
    time = np.random.default_rng(seed).integers(0, 50, len(train)) * 1000
    return replace(library, train=Interactions(train.users, train.items, None, time))


def by_user(side, limit=None):
    users, items = side.latest(limit)
    return {u: items[users == u].tolist() for u in np.unique(users).tolist()}


def test_a_side_holds_the_training_pairs_and_no_others(library):
    side = training_side(library)
    assert set(zip(*side.pairs.tolist(), strict=True)) == set(
        zip(library.train.users.tolist(), library.train.items.tolist(), strict=True)
    )
    got = by_user(side)
    assert sum(map(len, got.values())) == side.pairs.shape[1]
    assert len(library.users) - 1 not in got  # the toy's last user has no interaction


def test_the_latest_come_first_and_a_pair_given_twice_counts_at_its_last_time(library):
    data = timed(library)
    # Oracle: a loop over the interactions.
    last: dict[tuple[int, int], int] = {}
    train = data.train
    for u, i, t in zip(
        train.users.tolist(), train.items.tolist(), train.time.tolist(), strict=True
    ):
        last[u, i] = max(t, last.get((u, i), -1))
    side = training_side(data)
    for user, items in by_user(side).items():
        moments = [last[user, item] for item in items]
        assert moments == sorted(moments, reverse=True)
    assert by_user(side, 3) == {user: items[:3] for user, items in by_user(side).items()}
    early = int(train.time.argmin())
    twice = Interactions(
        np.append(train.users, train.users[early]),
        np.append(train.items, train.items[early]),
        None,
        np.append(train.time, 10**9),
    )
    first = by_user(training_side(replace(data, train=twice)))[int(train.users[early])]
    assert first[0] == train.items[early]


def test_without_times_the_choice_is_at_random_by_seed_and_a_users_own(library):
    some = by_user(training_side(library, seed=1), 4)
    assert some == by_user(training_side(library, seed=1), 4)
    other = by_user(training_side(library, seed=2), 4)
    assert sum(some[u] != other[u] for u in some) > len(some) // 2
    # Another user's items are none of this one's business.
    kept = library.train.users != library.train.users[0]
    less = Interactions(library.train.users[kept], library.train.items[kept])
    rest = by_user(training_side(replace(library, train=less), seed=1), 4)
    assert rest == {u: items for u, items in some.items() if u != library.train.users[0]}
    # No item is favoured: each stands among the first four about as often as elsewhere.
    first = np.bincount(np.concatenate(list(some.values())), minlength=library.n_items)
    counts = np.bincount(library.train.items, minlength=library.n_items)
    expected = counts * len(some) * 4 / len(library.train)
    known = expected > 0
    assert ((first - expected)[known] ** 2 / expected[known]).sum() < library.n_items


def test_labels_are_parted_at_the_separators_of_sources(library):
    texts = ["a | b", "c, d; e", "f", None, " ", "one,two"]
    table = pl.DataFrame(
        {
            "item_id": library.items.series,
            "genre": (texts * 10)[: library.n_items],
            "tags": [["x", "y"]] * library.n_items,
            "brand": [None] * library.n_items,
            "price": [1.0] * library.n_items,
        }
    )
    labels = training_side(replace(library, item_table=table)).labels
    found = labels.group_by("item").agg("label").sort("item")["label"].to_list()
    xy = ["x", "y"]
    assert [sorted(one) for one in found[:6]] == [
        sorted(one)
        for one in (["a", "b", *xy], ["c", "d", "e", *xy], ["f", *xy], xy, xy, ["one,two", *xy])
    ]


def test_hashes_follow_what_they_stand_for(library):
    side = training_side(library)
    fewer = Interactions(library.train.users[1:], library.train.items[1:])
    assert training_side(replace(library, train=fewer)).fingerprint != side.fingerprint
    order = np.random.default_rng(0).permutation(len(library.train))
    turned = Interactions(library.train.users[order], library.train.items[order])
    assert training_side(replace(library, train=turned)).fingerprint == side.fingerprint
    assert training_side(library, ["title"]).text_hash != side.text_hash


def test_a_column_that_is_not_there_and_items_without_texts_are_told(library):
    with pytest.raises(UnknownName, match=r"'desciption'.*did you mean 'description'"):
        training_side(library, ["desciption"])
    bare = replace(library, item_table=library.item_table.select("item_id"))
    side = training_side(bare)
    assert set(side.texts) == {None}
    with pytest.raises(DataError, match=r"items with texts.*history-mean"):
        need_texts(side, "whom it may concern")


def test_a_line_says_title_labels_and_the_first_words(library):
    table = pl.DataFrame(
        {
            "item_id": library.items.series,
            "title": ["Red\nshoe {0}", *["Hat"] * (library.n_items - 1)],
            "category": ["shoes | sport", *[None] * (library.n_items - 1)],
            "brand": ["Fleet", *[None] * (library.n_items - 1)],
            "description": [
                " ".join(f"w{n}" for n in range(40)),
                "A hat.",
                *[None] * (library.n_items - 2),
            ],
        }
    )
    lines = item_lines(training_side(replace(library, item_table=table)))
    words = " ".join(f"w{n}" for n in range(30))
    assert lines[0] == f"- Red shoe {{0}} (shoes, sport, Fleet): {words} ..."
    assert lines[1:3].to_list() == ["- Hat: A hat.", "- Hat"]


def test_a_question_names_the_users_own_items_in_order(library):
    side = training_side(timed(library))
    users, questions = prompts(side, max_items=5)
    lines = item_lines(side)
    latest = by_user(side, 5)
    assert users.tolist() == sorted(latest)
    for user, question in zip(users.tolist(), questions, strict=True):
        named = [line for line in question.splitlines() if line.startswith("- ")]
        assert named == [lines[item] for item in latest[user]]
    assert "the latest first" in questions[0]
    assert "the latest first" not in prompts(training_side(library))[1][0]
