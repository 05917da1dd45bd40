from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from asked_model import ignore

from modalign.data.interactions import Interactions
from modalign.encoding.tfidf import tfidf_matrix
from modalign.errors import DataError
from modalign.preferences import template
from modalign.preferences.side import training_side
from modalign.preferences.template import Template


def test_words_and_labels_are_those_of_a_slow_loop(library, monkeypatch):
    monkeypatch.setattr(template, "BLOCK", 7)
    # Some items have no words: they take no part in the mean.
    bare = pl.int_range(pl.len()) % 7 == 0
    table = library.item_table.with_columns(
        pl.when(~bare).then(pl.col(name)).alias(name) for name in library.item_table.columns[1:]
    )
    side = training_side(replace(library, item_table=table))
    told = Template(n_words=4, n_labels=2).describe(side, ignore)
    matrix, words = tfidf_matrix(side.texts, min_df=2)
    dense = matrix.toarray().astype(np.float64)
    mean = dense[dense.any(axis=1)].mean(axis=0)
    labels = side.labels.group_by("item").agg("label").rows()
    labels_of = dict(labels)
    for user in range(side.n_users):
        items = side.pairs[1][side.pairs[0] == user].tolist()
        if not items:
            assert told.texts[user] is None
            continue
        score = (dense[[i for i in items if dense[i].any()]] - mean).sum(axis=0)
        best = sorted(range(len(words)), key=lambda w: (-round(score[w], 4), words[w]))[:4]
        best = [words[w] for w in best if score[w] > 1e-6]
        counts = Counter(label for item in items for label in labels_of.get(item, ()))
        often = sorted(counts, key=lambda label: (-counts[label], label))[:2]
        wanted = f"Most often: {', '.join(often)}. Typical words: {', '.join(best)}."
        assert told.texts[user] == wanted
    assert set(told.sources) == {"template", None}


def test_a_hand_example(library):
    # Of six texts two say green: it counts twice for the first user.
    titles = ["green tea", "green cup", "black rum", "blue ink", "blue pen", "blue pot"]
    data = replace(
        library,
        train=Interactions(np.array([0, 0, 1]), np.array([0, 1, 2])),
        item_table=pl.DataFrame(
            {
                "item_id": library.items.series,
                "title": [*titles, *[None] * (library.n_items - 6)],
                "category": ["drinks", "cups", None, *[None] * (library.n_items - 3)],
            }
        ),
    )
    told = Template(min_df=1).describe(training_side(data, ["title"]), ignore)
    assert told.texts[0] == "Most often: cups, drinks. Typical words: green, cup, tea."
    assert told.texts[1] == "Typical words: black, rum."
    assert told.texts[2:] == [None] * (library.n_users - 2)


def test_labels_alone_say_something(library):
    table = library.item_table.select("item_id", "category").with_columns(
        title=pl.Series([f"only{n}" for n in range(library.n_items)])
    )
    told = Template().describe(training_side(replace(library, item_table=table), ["title"]), ignore)
    assert set(told.texts[:-1]) == {
        "Most often: books.",
        "Most often: shoes, sport.",
        "Most often: shoes, sport, books.",
        "Most often: books, shoes, sport.",
    }


def test_the_order_of_items_in_training_says_nothing(library):
    order = np.random.default_rng(1).permutation(len(library.train))
    turned = Interactions(library.train.users[order], library.train.items[order])
    one, two = (
        Template().describe(training_side(data), ignore)
        for data in (library, replace(library, train=turned))
    )
    assert one == two


def test_items_without_texts_are_told(library):
    bare = replace(library, item_table=library.item_table.select("item_id"))
    with pytest.raises(DataError, match="the provider template"):
        Template().describe(training_side(bare), ignore)
