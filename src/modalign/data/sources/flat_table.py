"""One flat table of interactions: CSV, TSV, Parquet, or a polars or pandas data frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import BeforeValidator, ConfigDict

from modalign.core import settings
from modalign.core.interfaces import Config
from modalign.data import pictures
from modalign.data.raw import RawData
from modalign.data.sources._columns import find_columns, typed, unique_ids
from modalign.data.sources._quotes import Quoting
from modalign.data.sources._text_table import (
    PACKED,
    Frame,
    Role,
    TextFormat,
    recognise,
    table_of,
)
from modalign.errors import ConfigError, DataError


def _names(value: Any) -> Any:
    return [one.strip() for one in value.split(",")] if isinstance(value, str) else value


class TableOptions(Config):
    """Options of the sources `table` and `split`.

    Columns that are not named are recognised by common names (user_id, uid, reviewerID; item_id,
    asin, movie_id; rating, stars; timestamp, date).
    """

    model_config = ConfigDict(coerce_numbers_to_str=True, arbitrary_types_allowed=True)

    user: str | None = None
    """Name of the column of users; None recognises it."""
    item: str | None = None
    """Name of the column of items, as for users."""
    weight: str | None = None
    """Name of the column of ratings, as for users."""
    time: str | None = None
    """Name of the column of times, as for users. Times are seconds since 1970 (finer units are
    recognised by size) or ISO dates."""
    separator: str | None = None
    """Between the fields of a text file: one character, `::`, or a blank for one or more blanks;
    None finds it in the first line."""
    quote: Quoting = "auto"
    """Double quotes open a field as its first character and close it before a separator or the end
    of the line. Where they do not pair up by that rule, auto reads the field as plain text and says
    so, double refuses the file; none reads all quotes as plain text."""
    encoding: str | None = None
    """Encoding of text files, such as cp1252; None is UTF-8, or UTF-16 where the file says so."""
    header: bool = True
    """Whether the first line names the columns; without one, `columns` does."""
    columns: Annotated[list[str] | None, BeforeValidator(_names)] = None
    """Names of the columns of a file without a line of names: user,item,rating,time."""
    items: Any = None
    """Table of items (path or frame): a column of item ids, and optionally title, description,
    image (path relative to the table) and others. The source `split` takes a file `items`."""
    images: Any = None
    """Folder of pictures named by item id, such as `B001.jpg`; the source `split` takes a folder
    called `images`."""
    name: str | None = None
    """Short name of the data; None takes the name of the file or folder."""

    def text(self) -> TextFormat:
        """How the files are written.

        Raises:
            ConfigError: there is no line of names and no `columns`, or both.
        """
        if self.header == (self.columns is not None):
            raise ConfigError(
                "names of columns from the first line or from the option columns",
                "both" if self.header else "neither",
                "write --no-header --columns user,item,rating,time where no line names them",
            )
        columns = None if self.columns is None else tuple(self.columns)
        return TextFormat(self.separator, self.quote, self.encoding, columns)

    def given(self) -> dict[Role, str | None]:
        """Names of columns by role."""
        return {"user": self.user, "item": self.item, "weight": self.weight, "time": self.time}


def read(source: str | Path | Frame, **options: Any) -> RawData:
    """Interactions of a flat table, and what is known of its items if given.

    A text or Parquet file is scanned, not held whole, unless it is in another encoding than UTF-8,
    in an archive other than gzip, or has quotes that do not pair up.

    Args:
        source: path of a CSV, TSV, JSON-lines or Parquet file with named columns, compressed or
            not, or a data frame.
        options: fields of `TableOptions`: user, item, weight, time, separator, items, ...

    Raises:
        DataError: a file, a column or a value is invalid; the message names file and line.
        ConfigError: an option is unknown or of the wrong type.

    Example:
        >>> frame = pl.DataFrame({"uid": [1, 1], "asin": ["a", "b"], "stars": [5, 3]})
        >>> read(frame).interactions.collect().rows()
        [('1', 'a', 5.0), ('1', 'b', 3.0)]
    """
    chosen = settings.build(TableOptions, options, "the source 'table'")
    table = table_of(source, chosen.text())
    columns = find_columns(table, chosen.given())
    interactions, remarks = typed(table, columns)
    path = Path(source) if isinstance(source, str | Path) else None
    return RawData(
        name=chosen.name or (_stem(path) if path else "table"),
        interactions=interactions,
        items=item_table(chosen.items, chosen.images, chosen.encoding, remarks),
        info={
            "source": "table",
            "files": [str(path)] if path else [],
            "columns": columns.used(),
            "remarks": remarks,
        },
    )


def _stem(path: Path) -> str:
    """The file's name without its endings: "orders" for orders.csv.gz."""
    packed = path.suffix.lower() in PACKED
    return Path(path.stem).stem if packed else path.stem


def item_table(
    items: str | Path | Frame | None,
    images: str | Path | None = None,
    encoding: str | None = None,
    remarks: list[str] | None = None,
) -> pl.DataFrame | None:
    """What is known of items, one row per id, with absolute paths of pictures.

    Args:
        items: table of items (path or frame), or None.
        images: folder of pictures named by item id, or None.
        encoding: of a text table; None is UTF-8 or UTF-16.
        remarks: gets notes on how the table was read.

    Raises:
        DataError: no column of ids, an id twice, an item without an id, or no such folder.
    """
    table = None if items is None else _read_items(items, encoding, remarks)
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


def _read_items(
    items: str | Path | Frame, encoding: str | None, remarks: list[str] | None
) -> pl.DataFrame:
    table = table_of(items, TextFormat(encoding=encoding))
    if remarks is not None:
        remarks += table.remarks
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
