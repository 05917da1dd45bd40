"""Types of the columns of a catalogue, and numbers as people write them."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalign.data.sources._types import catalogue, decimal_sign
from modalign.data.sources.flat_table import item_table
from modalign.errors import DataError


def column(cells, decimal="auto", name="x", remarks=None):
    found = catalogue(
        pl.DataFrame({name: cells}, schema={name: pl.String}),
        (),
        decimal,
        [] if remarks is None else remarks,
    )
    return found[name].to_list()


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["3", " 4 ", ""], [3, 4, None]),
        (["3.5", "4", "NaN", "NULL", "n/a", "[]"], [3.5, 4.0, None, None, None, None]),
        (["3,5", "4"], [3.5, 4.0]),
        (["1,200.50", "3"], [1200.5, 3.0]),
        (["1.200,50", "3"], [1200.5, 3.0]),
        (["1 200,5", "1 200"], [1200.5, 1200.0]),
        (["1,234,567", "1"], [1234567, 1]),
        (["$3.50", "$1,200.00"], [3.5, 1200.0]),
        (["19,99 €", "5 €"], [19.99, 5.0]),
        (["-3", "+4", "1e3"], [-3.0, 4.0, 1000.0]),
        (["TRUE", "false", None], [True, False, None]),
        (["2020-01-02", "2021-12-31", None], [date(2020, 1, 2), date(2021, 12, 31), None]),
        (["2020/01/02"], [date(2020, 1, 2)]),
        (
            ["2020-01-02T03:04", "2020-01-02 03:04:05Z", "2020-01-02 03:04:05+01:00"],
            [
                datetime(2020, 1, 2, 3, 4),
                datetime(2020, 1, 2, 3, 4, 5),
                datetime(2020, 1, 2, 2, 4, 5),
            ],
        ),
    ],
)
def test_a_column_gets_the_type_that_all_its_cells_have(cells, values):
    found = column(cells)
    assert found == values
    assert [type(one) for one in found] == [type(one) for one in values]


@pytest.mark.parametrize(
    "cells",
    [
        ["007", "1"],  # leading zeros
        ["12345678901234567"],  # more digits than a double holds
        ["2020-02-31", "2020-01-01"],
        ["$3", "4 €"],  # two currencies
        ["a", "1"],
        ["1e400"],
        ["1,200", "1,300"],  # thousands, or fractions?
        ["0x10"],
        ["٣"],
        ["", None],
    ],
)
def test_other_columns_stay_text(cells):
    assert column(cells) == cells


def test_columns_named_as_texts_stay_text():
    for name in ("title", "Title", "category", "brand_name", "prod_name", "description", "tags"):
        assert column(["1984", "2001"], name=name) == ["1984", "2001"]


def test_why_a_column_of_numbers_is_text_is_said():
    remarks: list[str] = []
    column([*map(str, range(99)), "call us"], remarks=remarks, name="price")
    column(["1,200", "3"], remarks=remarks, name="cost")
    column(["007", "1"], remarks=remarks)
    column(["red", "1"], remarks=remarks)
    assert len(remarks) == 2
    assert "'price' is text" in remarks[0]
    assert "1 of 100 cells are none, such as 'call us'" in remarks[0]
    assert "'1,200'" in remarks[1]
    assert "--decimal" in remarks[1]
    assert column(["1,200", "3"], ",") == [pytest.approx(1.2), 3.0]
    assert column(["1,200", "3"], ".") == [1200, 3]


@given(st.lists(st.floats(-1e9, 1e9).map(lambda x: round(x, 2)), min_size=1, max_size=8))
def test_numbers_are_read_as_they_were_written_in_either_style(numbers):
    english = [f"{one:,.2f}" for one in numbers]
    other = [one.translate(str.maketrans(",.", ".,")) for one in english]
    assert decimal_sign(pl.Series(other)) == ","
    np.testing.assert_allclose(column(other), numbers)
    np.testing.assert_allclose(column(english), numbers)


def test_types_of_a_file_of_items(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("id,title,price,code\n1,1984,3.5,007\n2,2001,,12\n")
    found = item_table(path)
    assert found is not None
    assert found.schema == {
        "item_id": pl.String, "title": pl.String, "price": pl.Float64, "code": pl.String,
    }  # fmt: skip
    path.write_text("StockCode,isbn,title\n1,9,a\n2,9,b\n")
    assert item_table(path, key="StockCode")["item_id"].to_list() == ["1", "2"]  # type: ignore[index]
    path.write_text("thing,title\n1,a\n")
    with pytest.raises(DataError, match="column of item ids"):
        item_table(path, key="StockCode")
