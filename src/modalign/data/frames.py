"""Data frames in and out: a data set from a polars or pandas frame, and back to one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from modalign.data.dataset import SPLITS, Dataset
from modalign.data.interactions import Interactions
from modalign.data.prepare import prepare
from modalign.data.sources import table

if TYPE_CHECKING:
    import pandas as pd


def from_frame(
    frame: pl.DataFrame | pl.LazyFrame | pd.DataFrame,
    *,
    user: str | None = None,
    item: str | None = None,
    weight: str | None = None,
    time: str | None = None,
    items: str | Path | pl.DataFrame | pd.DataFrame | None = None,
    images: str | Path | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Dataset:
    """A prepared data set of a frame of interactions.

    Args:
        frame: one row per interaction.
        user: column of users; like the next three, recognised where it is left out.
        item: column of items.
        weight: column of ratings.
        time: column of times.
        items: table of items, as in `modalign.data.sources.table.read`.
        images: folder of pictures named by item id.
        name: short name for people.
        out: folder to write; left out, the data set is in memory only.
        options: of `modalign.data.prepare.prepare` (min_rating, k_core, split, seed, ...).

    Raises:
        DataError: the frame is not what it should be.

    Example:
        >>> pairs = [(u, i) for u in "abc" for i in range(5)]
        >>> data = from_frame(pl.DataFrame(pairs, schema=["user", "item"], orient="row"))
        >>> data.n_users, data.n_items, len(data.test)
        (3, 5, 3)
    """
    raw = table.read(
        frame, user=user, item=item, weight=weight, time=time, items=items, images=images, name=name
    )
    return prepare(raw, out, **options)


def to_frame(dataset: Dataset) -> pl.DataFrame:
    """All interactions with the ids people know: user_id, item_id, split, weight?, time?.

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
