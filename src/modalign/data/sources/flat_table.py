"""One flat table of interactions: CSV, TSV, Parquet, or a polars or pandas data frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import BeforeValidator, ConfigDict

from modalign.core import settings
from modalign.core.interfaces import Config
from modalign.data import item_files
from modalign.data.item_files import STORED, FileKind
from modalign.data.raw import RawData
from modalign.data.sources._columns import (
    Columns,
    RowRules,
    TypedRows,
    find_columns,
    some_text,
    typed,
    unique_ids,
)
from modalign.data.sources._quotes import Quoting
from modalign.data.sources._text_table import (
    PACKED,
    Frame,
    Role,
    SourceTable,
    TextFormat,
    WrongWidth,
    plain,
    recognise,
    table_of,
)
from modalign.data.sources._types import Decimal, catalogue, decimals
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
    """Name of the column of times, as for users. If none is known by its name, the only column
    whose values are times is taken. Times are ISO dates and times, dates such as 20191101, or
    numbers of seconds or finer units since 1970, found from most of the values."""
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    """Unit of numbers that are times; None finds it."""
    time_format: str | None = None
    """Format of times that are texts, as of strptime: %d/%m/%Y %H:%M; None reads ISO dates."""
    skip_bad: bool = False
    """Leave out rows without an id or with an unreadable value, and write them to bad_rows.csv,
    instead of refusing the table."""
    returns: Literal["drop", "keep"] = "drop"
    """Leave out rows whose quantity is zero or less, or keep them."""
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
    decimal: Decimal = "auto"
    """Sign before the decimals in text files: "." or ","; auto finds it in the cells of each column
    of numbers, and refuses ratings that could be read in both ways."""
    items: Any = None
    """Table of items (path or frame): a column of item ids, and optionally title, description,
    image, audio, video (paths relative to the table, whose folder they may not leave) and others.
    Columns of numbers, ISO dates and truth values of a text file keep these types. The source
    `split` takes a file `items`."""
    images: Any = None
    """Folder of pictures named by item id, such as `B001.jpg` or `01/B001.jpg`; the source `split`
    takes a folder called `images`."""
    audio: Any = None
    """Folder of sounds named by item id; the source `split` takes a folder called `audio`."""
    video: Any = None
    """Folder of videos named by item id; the source `split` takes a folder called `video`."""
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

    def folders(self, beside: Path | None = None) -> dict[FileKind, Path]:
        """Folders with files of the items by kind; without an option those of `beside`."""
        found: dict[FileKind, Path] = {}
        options: dict[FileKind, Any] = {
            "image": self.images, "audio": self.audio, "video": self.video
        }  # fmt: skip
        for kind, given in options.items():
            usual = None if beside is None else beside / STORED[kind]
            if given is not None:
                found[kind] = Path(given)
            elif usual is not None and usual.is_dir():
                found[kind] = usual
        return found

    def rules(self) -> RowRules:
        """How rows are read."""
        return RowRules(self.time_unit, self.time_format, self.skip_bad, self.returns)

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

    def rows_of(text: TextFormat) -> tuple[SourceTable, Columns, TypedRows]:
        table = table_of(source, text)
        columns = find_columns(table, chosen.given())
        typed_rows = typed(decimals(table, columns.weight, chosen.decimal), columns, chosen.rules())
        return table, columns, typed_rows

    try:
        table, columns, rows = rows_of(chosen.text())
    except WrongWidth as error:
        if not chosen.skip_bad:
            fix = f"{error.fix}; or leave such lines out with --skip-bad"
            raise WrongWidth(error.expected, error.got, fix) from error
        table, columns, rows = rows_of(replace(chosen.text(), skip_odd=True))
    path = Path(source) if isinstance(source, str | Path) else None
    return RawData(
        name=chosen.name or (_stem(path) if path else "table"),
        interactions=rows.frame,
        items=item_table(
            chosen.items,
            chosen.folders(),
            chosen.encoding,
            rows.remarks,
            decimal=chosen.decimal,
            key=columns.item,
        ),
        bad=rows.bad,
        info={
            "source": "table",
            "files": [str(path)] if path else [],
            **columns.described(table.names),
            "remarks": rows.remarks,
        },
    )


def _stem(path: Path) -> str:
    """The file's name without its endings: "orders" for orders.csv.gz."""
    packed = path.suffix.lower() in PACKED
    return Path(path.stem).stem if packed else path.stem


def item_table(
    items: str | Path | Frame | None,
    folders: Mapping[FileKind, Path] = MappingProxyType({}),
    encoding: str | None = None,
    remarks: list[str] | None = None,
    *,
    decimal: Decimal = "auto",
    key: str | None = None,
) -> pl.DataFrame | None:
    """What is known of items, one row per id, with absolute paths of their files.

    Args:
        items: table of items (path or frame), or None.
        folders: by kind, folders of pictures, sounds and videos named by item id.
        encoding: of a text table; None is UTF-8 or UTF-16.
        remarks: gets notes on how the table was read, and on files that were not taken.
        decimal: sign before the decimals of a text table.
        key: name of the column of ids, if there is one of that name; else common names are tried.

    Raises:
        DataError: no column of ids, an id twice, an item without an id, or no such folder.
    """
    table = None if items is None else _read_items(items, encoding, decimal, key, remarks)
    for kind, folder in folders.items():
        table = _with_files(table, folder, kind, remarks)
    return table


def _with_files(
    table: pl.DataFrame | None, folder: Path, kind: FileKind, remarks: list[str] | None
) -> pl.DataFrame:
    """The item table with the files of a folder, which win over those of the table's column."""
    words = item_files.WORDS[kind]
    if not folder.is_dir():
        raise DataError(
            f"a folder of {words} named by item id", f"{folder}, not a folder", "check the path"
        )
    told: list[str] = []
    found = item_files.find(folder, kind, told)
    if found.is_empty():
        endings = ", ".join(sorted(item_files.SUFFIXES[kind]))
        fix = f"name the files by item id with one of the endings {endings}"
        raise DataError(f"{words} named by item id in {folder}", "; ".join(told) or "none", fix)
    if remarks is not None:
        remarks += told
    if table is None:
        return found
    old = [kind] if kind in table.columns else []
    joined = table.join(
        found.rename({kind: "__found"}),
        on="item_id",
        how="full",
        coalesce=True,
        maintain_order="left_right",
    )
    return joined.with_columns(pl.coalesce("__found", *old).alias(kind)).drop("__found")


def _read_items(
    items: str | Path | Frame,
    encoding: str | None,
    decimal: Decimal,
    key: str | None,
    remarks: list[str] | None,
) -> pl.DataFrame:
    table = table_of(items, TextFormat(encoding=encoding))
    remarks = [] if remarks is None else remarks
    remarks += table.remarks
    if table.path is None and not isinstance(items, str | Path):
        table = replace(table, name="the data frame of items")
    names = table.names
    ids = (name for name in names if plain(name) == "id")
    key = key if key in names else recognise(names, "item") or next(ids, None)
    if key is None:
        expected = f"a column of item ids (such as item_id) in {table.name}"
        raise DataError(expected, table.shown(), "name that column item_id")
    table.once(key)
    rename = {key: "item_id"}
    for role in ("title", "description", *item_files.KINDS):
        found = recognise([n for n in names if n not in rename], role)
        if found is not None:
            table.once(found)
        if found is not None and role not in names:
            rename[found] = role
    rows = unique_ids(table, key, "item").rename(rename)
    rows = rows.with_columns(some_text(pl.col(pl.String)))
    if table.path is not None:
        rows = catalogue(rows, ("item_id", *rename.values()), decimal, remarks)
    base = Path(items).parent if isinstance(items, str | Path) else None
    for kind in item_files.KINDS:
        if kind in rows.columns:
            paths = item_files.within(rows[kind], base, kind, remarks)
            rows = rows.with_columns(paths)
    return rows.select("item_id", pl.exclude("item_id"))
