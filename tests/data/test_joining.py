"""Ids of the interactions against ids of the items' table."""

import polars as pl
import pytest

import modalign
from modalign.data.joining import check_matched
from modalign.errors import DataError

PAIRS = [(u, i) for u in range(6) for i in range(8)]


def load(make, items, **options):
    frame = pl.DataFrame({"user": [str(u) for u, _ in PAIRS], "item": [make(i) for _, i in PAIRS]})
    return modalign.load(frame, items=pl.DataFrame({"item_id": items, "title": items}), **options)


@pytest.mark.parametrize(
    ("make", "items", "words"),
    [
        ("SKU-{}".format, [f"sku-{i}" for i in range(8)], "8 more would match if case were"),
        ("{:06d}".format, [str(i + 1) for i in range(8)], "7 more would match if zeros were"),
        ("{}.0".format, [str(i) for i in range(8)], "8 more would match if '.0' were dropped"),
        ("b-{}".format, [f"b {i}" for i in range(8)], "8 more would match if blanks and signs"),
        ("x{}".format, [f"y{i}" for i in range(8)], "'x0', 'x1', 'x2', the table has 'y0'"),
    ],
)
def test_a_join_that_matches_little_is_refused_with_examples(make, items, words):
    with pytest.raises(DataError, match="at least half of the 8 items, got 0") as caught:
        load(make, items)
    assert words in str(caught.value)
    data = load(make, items, allow_unmatched=True)
    assert any("8 of 8 items are not in their table" in one for one in data.info["remarks"])


def test_half_is_enough_and_less_is_not():
    data = load(str, ["0", "1", "2", "3"])
    assert data.item_table["title"].null_count() == 4
    with pytest.raises(DataError, match="got 3"):
        load(str, ["0", "1", "2"])


def test_pictures_alone_may_be_few_but_not_none():
    names = modalign.load(pl.DataFrame(PAIRS, schema=["user", "item"], orient="row")).items
    check_matched(names, None)
    check_matched(names, pl.DataFrame({"item_id": ["3"], "image": ["3.jpg"]}))
    with pytest.raises(DataError, match="at least half"):
        check_matched(names, pl.DataFrame({"item_id": ["x3"], "image": ["3.jpg"]}))
