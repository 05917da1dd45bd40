from __future__ import annotations

import polars as pl

from modalign.export.columns import columns_of
from modalign_serve.artifact.artifact import Category
from modalign_serve.artifact.strings import Strings


def test_kinds_of_columns() -> None:
    table = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d", "e"],
            "title": ["x"] * 5,
            "kind": ["bag", "cup", "bag", None, "cup"],
            "maker": ["v", "w", "x", "y", "z"],
            "new": [True, False, None, True, True],
            "stock": [1, 2, None, 4, 5],
            "when": pl.Series(["2020-03-01"] * 3 + [None, "2021-01-02"]).str.to_date(),
            "spell": pl.Series([None] * 5, dtype=pl.Duration),
        }
    )
    found, left = columns_of(table)
    assert left == ["spell"]
    when = found["when"]
    assert isinstance(when, Category)
    assert (when.codes.tolist(), when.names) == ([0, 0, 0, -1, 1], ("2020-03-01", "2021-01-02"))
    assert isinstance(found["title"], Strings)
    assert isinstance(found["maker"], Strings)  # each value once: no category
    kind = found["kind"]
    assert isinstance(kind, Category)
    assert (kind.codes.tolist(), kind.names) == ([0, 1, 0, -1, 1], ("bag", "cup"))
    assert str(found["new"].tolist()) == "[1.0, 0.0, nan, 1.0, 1.0]"  # type: ignore[union-attr]
    assert str(found["stock"].tolist()) == "[1.0, 2.0, nan, 4.0, 5.0]"  # type: ignore[union-attr]


def test_too_many_values_are_texts() -> None:
    many = [str(row % 1_001) for row in range(4_000)]
    found, _ = columns_of(pl.DataFrame({"item_id": range(4_000), "kind": many}))
    assert isinstance(found["kind"], Strings)
