"""Data frames in, data frames out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from modalign.data.dataset import SPLITS, Dataset
from modalign.data.frames import from_frame, to_frame
from modalign.data.sources import flat_table
from modalign.errors import DataError, UnknownName

LOG = pl.DataFrame(
    [(f"u{u}", 10 * i, float(1 + (u + i) % 5), 100 * u + i) for u in range(6) for i in range(7)],
    schema=["who", "item", "stars", "time"],
    orient="row",
)


@pytest.mark.parametrize("kind", ["polars", "lazy", "pandas"])
def test_frames_go_in_and_come_out_the_same(tmp_path, kind):
    frame = {"polars": LOG, "lazy": LOG.lazy(), "pandas": LOG.to_pandas()}[kind]
    items = pl.DataFrame({"asin": [30], "name": ["Three"]})
    data = from_frame(
        frame,
        user="who",
        items=items,
        name="mine",
        out=tmp_path / "out",
        split="time",
        allow_unmatched=True,
    )
    assert data.name == "mine"
    assert data.titles()[int(data.items.rows([30])[0])] == "Three"
    for one in (data, Dataset.load(tmp_path / "out")):
        back = to_frame(one)
        assert back.columns == ["user_id", "item_id", "split", "weight", "time"]
        assert set(back.drop("split").rows()) == {(u, str(i), w, t) for u, i, w, t in LOG.rows()}
        assert set(back["split"]) == set(SPLITS[:3])


def test_a_frame_of_a_data_set_makes_the_same_data_set():
    data = from_frame(LOG, user="who", split="leave-one-out", seed=3)
    again = from_frame(to_frame(data), split="leave-one-out", seed=3)
    assert again.fingerprint == data.fingerprint


def test_history_parts_come_out_too():
    data = from_frame(LOG, user="who", split="unseen-users", split_options={"share": 0.5})
    assert set(to_frame(data)["split"]) == set(SPLITS)


def test_mistakes_are_told():
    with pytest.raises(DataError, match=r"column of users .*who, item"):
        from_frame(LOG)
    with pytest.raises(UnknownName, match="'times'"):
        from_frame(LOG, user="who", split="times")


def rows_of(frame: Any, **options: Any) -> list[tuple[Any, ...]]:
    return flat_table.read(frame, **options).interactions.collect().rows()


def test_decimals_of_a_database_are_the_same_ids_as_whole_numbers() -> None:
    ids = pl.Series(["42", "7.5"]).cast(pl.Decimal(10, 2))
    frame = pl.DataFrame({"user_id": ids, "item_id": ["a", "b"]})
    assert rows_of(frame) == [("42", "a"), ("7.50", "b")]


def test_levels_of_an_index_and_periods_of_pandas() -> None:
    frame = pd.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "day": ["a", "b"]})
    assert rows_of(frame.set_index(["user_id", "item_id"])) == [("1", "3"), ("2", "4")]
    frame["timestamp"] = pd.period_range("1970-01", "1970-02", freq="M")
    assert rows_of(frame) == [("1", "3", 0), ("2", "4", 31 * 86400)]
    # A level that stands among the columns as well, and one without a name, are left alone.
    assert rows_of(frame.set_index("user_id", drop=False))[1] == ("2", "4", 31 * 86400)


def test_columns_of_one_name_in_a_frame_of_pandas() -> None:
    frame = pd.DataFrame([[1, 2, 3]], columns=["user_id", "item_id", "item_id"])
    with pytest.raises(DataError, match=r"different names in the data frame.*'item_id'"):
        flat_table.read(frame)


def test_objects_in_parquet_are_columns(tmp_path: Path) -> None:
    wide = {f"f{k}": k for k in range(60)}
    frame = pl.DataFrame(
        {
            "user": [{"id": "a", "geo": {"x": 1}}, {"id": "b", "geo": None}],
            "item_id": ["i", "j"],
            "more": [wide, wide],
        }
    )
    frame.write_parquet(tmp_path / "log.parquet")
    raw = flat_table.read(tmp_path / "log.parquet")
    assert raw.interactions.collect().rows() == [("a", "i"), ("b", "j")]
    assert raw.info["not_used"] == ["user.geo.x", "more"]


def test_a_title_that_stands_twice_among_the_items(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title,title\na,A,B\n")
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["a"]})
    with pytest.raises(DataError, match="'title' in several"):
        flat_table.read(frame, items=tmp_path / "items.csv")
