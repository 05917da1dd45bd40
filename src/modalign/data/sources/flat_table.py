"""One flat table of interactions: CSV, TSV, Parquet, or a polars or pandas data frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from modalign.data import pictures
from modalign.data.raw import RawData
from modalign.data.sources._columns import find_columns, typed, unique_ids
from modalign.data.sources._text_table import Frame, recognise, table_of
from modalign.errors import DataError


def read(
    source: str | Path | Frame,
    user: str | None = None,
    item: str | None = None,
    weight: str | None = None,
    time: str | None = None,
    separator: str | None = None,
    items: str | Path | Frame | None = None,
    images: str | Path | None = None,
    name: str | None = None,
) -> RawData:
    """Interactions of a flat table, and what is known of its items if given.

    A file is scanned, never held whole. Columns that are not named are recognised by common names
    (user_id, uid, reviewerID; item_id, asin, movie_id; rating, stars; timestamp, date). Times are
    seconds since 1970 (finer units are recognised by size) or ISO dates.

    Args:
        source: path of a CSV, TSV or Parquet file with named columns, or a data frame.
        user: name of the column of users; None recognises it by common names.
        item: name of the column of items, as for users.
        weight: name of the column of ratings, as for users.
        time: name of the column of times, as for users.
        separator: between the fields of a text file; None finds it in the first line.
        items: table of items (path or frame): a column of item ids, and optionally title,
            description, image (path relative to the table) and others.
        images: folder of pictures named by item id, such as `B001.jpg`.
        name: short name of the data; None takes the name of the file.

    Raises:
        DataError: a file, a column or a value is invalid; the message names file and line.

    Example:
        >>> frame = pl.DataFrame({"uid": [1, 1], "asin": ["a", "b"], "stars": [5, 3]})
        >>> read(frame).interactions.collect().rows()
        [('1', 'a', 5.0), ('1', 'b', 3.0)]
    """
    table = table_of(source, separator)
    given = {"user": user, "item": item, "weight": weight, "time": time}
    columns = find_columns(table, given)  # type: ignore[arg-type]
    interactions, remarks = typed(table, columns)
    path = Path(source) if isinstance(source, str | Path) else None
    return RawData(
        name=name or (path.stem if path else "table"),
        interactions=interactions,
        items=item_table(items, images),
        info={
            "source": "table",
            "files": [str(path)] if path else [],
            "columns": columns.used(),
            "remarks": remarks,
        },
    )


def item_table(
    items: str | Path | Frame | None, images: str | Path | None = None
) -> pl.DataFrame | None:
    """What is known of items, one row per id, with absolute paths of pictures.

    Args:
        items: table of items (path or frame), or None.
        images: folder of pictures named by item id, or None.

    Raises:
        DataError: no column of ids, an id twice, an item without an id, or no such folder.
    """
    table = None if items is None else _read_items(items)
    if images is None:
        return table
    folder = Path(images)
    if not folder.is_dir():
        raise DataError(
            "a folder of pictures named by item id", f"{folder}, not a folder", "check the path"
        )
    found = pictures.find(folder)
    if found.is_empty():
        raise DataError(
            f"pictures named by item id in {folder}", "none", "check the folder of images"
        )
    if table is None:
        return found
    old = ["image"] if "image" in table.columns else []
    joined = table.join(
        found.rename({"image": "__found"}),
        on="item_id",
        how="full",
        coalesce=True,
        maintain_order="left_right",
    )
    return joined.with_columns(image=pl.coalesce("__found", *old)).drop("__found")


def _read_items(items: str | Path | Frame) -> pl.DataFrame:
    table = table_of(items)
    if table.path is None and not isinstance(items, str | Path):
        table = replace(table, name="the data frame of items")
    names = table.names
    key = recognise(names, "item") or ("id" if "id" in names else None)
    if key is None:
        expected = f"a column of item ids (such as item_id) in {table.name}"
        raise DataError(expected, table.shown(), "name that column item_id")
    rename = {key: "item_id"}
    for role in ("title", "description", "image"):
        found = recognise([n for n in names if n not in rename], role)
        if found is not None and role not in names:
            rename[found] = role
    rows = unique_ids(table, key, "item").rename(rename)
    if "image" in rows.columns:
        base = Path(items).parent if isinstance(items, str | Path) else Path()
        text = pl.col("image").cast(pl.String).str.strip_chars()
        absolute = (
            pl.when(text.str.starts_with("/"))
            .then(text)
            .otherwise(pl.lit(f"{base.resolve()}/") + text)
        )
        rows = rows.with_columns(image=pl.when(text != "").then(absolute))
    return rows.select("item_id", pl.exclude("item_id"))
