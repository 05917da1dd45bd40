"""One flat table of interactions: CSV, TSV, Parquet, or a polars or pandas data frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from modalign.data import pictures
from modalign.data.raw import RawData
from modalign.data.sources import _flat
from modalign.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def read(
    source: str | Path | pl.DataFrame | pl.LazyFrame | pd.DataFrame,
    user: str | None = None,
    item: str | None = None,
    weight: str | None = None,
    time: str | None = None,
    separator: str | None = None,
    items: str | Path | pl.DataFrame | pd.DataFrame | None = None,
    images: str | Path | None = None,
    name: str | None = None,
) -> RawData:
    """Interactions of a flat table, and where given what is known of its items.

    A file is scanned, never held whole. Columns are those named, else recognised by common
    names (user_id, uid, reviewerID; item_id, asin, movie_id; rating, stars; timestamp, date).
    Times are seconds since 1970 (finer units are recognised by size) or ISO dates.

    Args:
        source: path of a CSV, TSV or Parquet file with named columns, or a data frame.
        user: column of users, where it is not recognised.
        item: column of items, likewise.
        weight: column of ratings, likewise.
        time: column of times, likewise.
        separator: between fields of a text file; recognised where it is left out.
        items: table of items (path or frame): a column of item ids, and where there are any
            title, description, image (path, relative to the table) and whatever else.
        images: folder of pictures named by item id, such as `B001.jpg`.
        name: short name for people; the file's name where it is left out.

    Raises:
        DataError: a file, a column or a value is not what it should be; names file and line.

    Example:
        >>> frame = pl.DataFrame({"uid": [1, 1], "asin": ["a", "b"], "stars": [5, 3]})
        >>> read(frame).interactions.collect().rows()
        [('1', 'a', 5.0), ('1', 'b', 3.0)]
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        frame, origin = _flat.scan(path, separator)
        name = name or path.stem
    else:
        path = None
        frame, origin = to_lazy(source), _flat.Origin("the data frame")
    names = _flat.names_of(frame, origin)
    columns = _flat.find_columns(
        names, {"user": user, "item": item, "weight": weight, "time": time}, origin
    )
    interactions, remarks = _flat.typed(frame, columns, origin)
    return RawData(
        name=name or "table",
        interactions=interactions,
        items=item_table(items, images),
        info={
            "source": "table",
            "files": [str(path)] if path else [],
            "columns": {k: v for k, v in vars(columns).items() if v is not None},
            "remarks": list(remarks),
        },
        image_root=Path(images).resolve() if images is not None else None,
    )


def to_lazy(frame: Any) -> pl.LazyFrame:
    """A polars or pandas frame as a lazy polars frame.

    Raises:
        DataError: it is neither.
    """
    if isinstance(frame, pl.LazyFrame):
        return frame
    if isinstance(frame, pl.DataFrame):
        return frame.lazy()
    if type(frame).__module__.split(".")[0] == "pandas":
        return pl.from_pandas(frame.rename(columns=str)).lazy()
    raise DataError(
        "a path, a polars or a pandas data frame",
        f"a {type(frame).__name__}",
        "give one of those",
    )


def item_table(
    items: str | Path | pl.DataFrame | pd.DataFrame | None, images: str | Path | None = None
) -> pl.DataFrame | None:
    """What is known of items, one row per id, with absolute paths of pictures.

    Raises:
        DataError: no column of ids, an id twice, an item without an id, or no such folder.
    """
    table = None
    if items is not None:
        table = _read_items(items)
    if images is not None:
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
        joined = table.join(found.rename({"image": "__found"}), on="item_id", how="full",
                            coalesce=True, maintain_order="left_right")  # fmt: skip
        table = joined.with_columns(image=pl.coalesce("__found", *old)).drop("__found")
    return table


def _read_items(items: str | Path | pl.DataFrame | pd.DataFrame) -> pl.DataFrame:
    base = Path(items).parent if isinstance(items, (str, Path)) else Path()
    if isinstance(items, (str, Path)):
        frame, origin = _flat.scan(Path(items))
    else:
        frame, origin = to_lazy(items), _flat.Origin("the data frame of items")
    names = _flat.names_of(frame, origin)
    key = _flat.recognise(names, "item") or ("id" if "id" in names else None)
    if key is None:
        raise DataError(
            f"a column of item ids (such as item_id) in {origin.name}",
            f"the columns {', '.join(names)}",
            "name that column item_id",
        )
    try:
        schema = frame.collect_schema()
        table = frame.with_columns(_flat.text_id(key, schema[key]).alias(key)).collect()
    except pl.exceptions.PolarsError as error:
        raise _flat.unreadable(origin, error, len(names)) from error
    rename = {key: "item_id"}
    for role in ("title", "description", "image"):
        found = _flat.recognise([n for n in names if n not in rename], role)
        if found is not None and role not in names:
            rename[found] = role
    table = table.rename(rename)
    without = table["item_id"].is_null().arg_true()
    if len(without):
        raise DataError(
            f"an item id in column {key!r}",
            f"nothing in {origin.place(int(without[0]))}",
            "mend or remove that row",
        )
    twice = table["item_id"].is_duplicated().arg_true()
    if len(twice):
        raise DataError(
            f"each item once in {origin.name}",
            f"{table['item_id'][int(twice[0])]!r} in {len(twice)} rows, "
            f"the first is {origin.place(int(twice[0]))}",
            "keep one row per item",
        )
    if "image" in table.columns:
        root = str(base.resolve())
        text = pl.col("image").cast(pl.String).str.strip_chars()
        absolute = (
            pl.when(text.str.starts_with("/")).then(text).otherwise(pl.lit(root + "/") + text)
        )
        table = table.with_columns(image=pl.when(text != "").then(absolute))
    return table.select("item_id", pl.exclude("item_id"))
