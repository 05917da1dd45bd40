"""Item tables as columns of an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from modalign_serve.artifact.artifact import Category, Column
from modalign_serve.artifact.strings import Strings

TEXTS = ("title", "description", "image")
"""Columns that are stored as texts even if they have few different values."""
CATEGORIES = 1_000
"""Maximum number of different values in a column of categories."""


def columns_of(table: pl.DataFrame) -> tuple[dict[str, Column], list[str]]:
    """Columns by name, and the names of columns of other types (lists, dates, ...).

    Numbers stay numbers, Boolean values become 0 and 1, dates and times ISO texts, whose order is
    that of time. Texts with at most 1,000 different values,
    each at least twice on average, are categories; title, description and image are texts.

    Example:
        >>> table = pl.DataFrame({"item_id": ["a", "b"], "price": [1, None], "x": [["l"], ["m"]]})
        >>> found, left = columns_of(table)
        >>> found["price"].tolist(), left
        ([1.0, nan], ['x'])
    """
    found: dict[str, Column] = {}
    left = []
    for name in table.columns:
        series = _iso(table[name])
        if name == "item_id":
            continue
        if series.dtype.is_numeric() or series.dtype == pl.Boolean:
            found[name] = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        elif series.dtype in (pl.Utf8, pl.Categorical, pl.Enum):
            found[name] = _texts(name, series.cast(pl.Utf8))
        else:
            left.append(name)
    return found, left


def _iso(series: pl.Series) -> pl.Series:
    if series.dtype == pl.Date:
        return series.dt.to_string("%Y-%m-%d")
    if isinstance(series.dtype, pl.Datetime):
        return series.dt.to_string("%Y-%m-%dT%H:%M:%S")
    return series


def _texts(name: str, series: pl.Series) -> Column:
    present = series.drop_nulls()
    n_different = present.n_unique()
    if name in TEXTS or n_different > CATEGORIES or 2 * n_different > max(2, len(present)):
        return Strings.of(series.to_list())
    names = sorted(present.unique().to_list())
    codes = series.replace_strict(names, list(range(len(names))), default=-1, return_dtype=pl.Int32)
    return Category(codes.fill_null(-1).to_numpy(), tuple(names))


def pictures_of(table: pl.DataFrame, folder: Path | None) -> dict[str, bytes | Path]:
    """Picture files below `images/` of a data folder, by name, to copy into an artifact."""
    if folder is None or "image" not in table.columns:
        return {}
    found: dict[str, Any] = {}
    for name in table["image"].drop_nulls().unique():
        path = (folder / name).resolve()
        if path.is_relative_to((folder / "images").resolve()) and path.is_file():
            found[name] = path
    return found


def picture_column(column: Column | None, copied: dict[str, bytes | Path]) -> Column:
    """The image column with only the names of copied pictures."""
    names = list(column) if isinstance(column, Strings) else []
    return Strings.of(name if name in copied else None for name in names)
