"""`modalign.load`, data sets from polars and pandas data frames, and frames from data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from modalign.data.dataset import SPLITS, Dataset
from modalign.data.interactions import Interactions
from modalign.data.prepare import prepare
from modalign.data.sources import flat_table
from modalign.data.sources._text_table import Frame


def load(source: str | Path | Any, **options: Any) -> Dataset:
    """A data set from a prepared folder, or from a polars or pandas data frame.

    Args:
        source: folder written by `modalign data import`, or a frame of interactions.
        options: for a frame only: names of columns (`user`, `item`, `weight`, `time`), `items` (a
            table of items), and the fields of `modalign.data.prepare.PrepareOptions`
            (`min_rating`, `k_core`, `split`, `seed`, ...).

    Raises:
        DataError: not a prepared folder, or a frame without the columns.
        TypeError: options are given for a folder.

    Example:
        >>> import polars as pl
        >>> frame = pl.DataFrame({"user_id": ["a"] * 6 + ["b"] * 6, "item_id": [*"uvwxyz"] * 2})
        >>> data = load(frame, seed=1)
        >>> data.n_users, data.n_items, len(data.train) + len(data.valid) + len(data.test)
        (2, 6, 12)
    """
    if isinstance(source, str | Path):
        if options:
            raise TypeError(f"a prepared folder takes no options; got {', '.join(options)}")
        return Dataset.load(source)
    return from_frame(source, **options)


def from_frame(
    frame: Frame,
    *,
    out: str | Path | None = None,
    user: str | None = None,
    item: str | None = None,
    weight: str | None = None,
    time: str | None = None,
    items: str | Path | Frame | None = None,
    images: str | Path | None = None,
    **options: Any,
) -> Dataset:
    """A prepared data set from a frame of interactions.

    Args:
        frame: polars or pandas data frame with one row per interaction.
        out: folder to write; None makes a data set in memory.
        user: name of the column of users; None recognises it by common names.
        item: name of the column of items, as for users.
        weight: name of the column of ratings, as for users.
        time: name of the column of times, as for users.
        items: table of items, as in `modalign.data.sources.flat_table.read`.
        images: folder of pictures named by item id.
        options: fields of `modalign.data.prepare.PrepareOptions`: name, min_rating, k_core, split,
            seed, ...

    Raises:
        DataError: the frame lacks a column, or a value cannot be read.
        ConfigError: an option is unknown or out of its bounds.

    Example:
        >>> pairs = [(u, i) for u in "abc" for i in range(5)]
        >>> data = from_frame(pl.DataFrame(pairs, schema=["user", "item"], orient="row"))
        >>> data.n_users, data.n_items, len(data.test)
        (3, 5, 3)
    """
    columns = {"user": user, "item": item, "weight": weight, "time": time}
    raw = flat_table.read(frame, **columns, items=items, images=images, name=options.get("name"))
    return prepare(raw, out, **options)


def to_frame(dataset: Dataset) -> pl.DataFrame:
    """All interactions by their ids: user_id, item_id, split, and weight and time if known.

    `to_frame(data).to_pandas()` gives a pandas frame.

    Example:
        >>> pairs = [(u, i) for u in "abc" for i in range(5)]
        >>> data = from_frame(pl.DataFrame(pairs, schema=["user", "item"], orient="row"))
        >>> to_frame(data).columns, to_frame(data).height
        (['user_id', 'item_id', 'split'], 15)
    """
    parts = [_part(dataset, name, dataset.part(name)) for name in SPLITS]
    return pl.concat([p for p in parts if p.height] or parts[:1], how="diagonal")


def _part(dataset: Dataset, name: str, part: Interactions) -> pl.DataFrame:
    columns = {
        "user_id": dataset.users.series.gather(part.users),
        "item_id": dataset.items.series.gather(part.items),
        "split": pl.repeat(name, len(part), dtype=pl.String, eager=True),
    }
    for column in ("weight", "time"):
        values = getattr(part, column)
        if values is not None:
            columns[column] = pl.Series(values)
    return pl.DataFrame(columns)
