"""Flat files and frames as typed interactions: recognised columns, checked rows, named lines.

Files are scanned lazily with every column as text, so that a bad number is found here, with its
line, and not deep inside a parser. One streaming pass checks the rows; the frame that is
returned is still lazy.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import polars as pl

from modalign.errors import DataError

Role = Literal["user", "item", "weight", "time"]

# What other people's files call them, compared in lower case without separators.
KNOWN: Mapping[str, tuple[str, ...]] = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid", "customer", "visitorid"),
    "item": (
        "itemid", "item", "iid", "asin", "parentasin", "movieid", "productid", "product",
        "articleid", "bookid", "trackid", "artistid", "businessid", "songid", "gameid", "sku",
    ),
    "weight": ("weight", "rating", "score", "stars", "overall", "playcount", "count", "ratings"),
    "time": (
        "time", "timestamp", "ts", "date", "datetime", "unixreviewtime", "unixtime", "createdat",
    ),
    "title": ("title", "name", "itemname", "productname", "movietitle"),
    "description": ("description", "text", "plot", "summary", "abstract", "overview"),
    "image": ("image", "imagepath", "picture", "photo", "poster", "imagefile", "img"),
}  # fmt: skip
SEPARATORS = (",", "\t", ";", "|")
SHOWN = {",": "','", "\t": "a tab", ";": "';'", "|": "'|'"}
SUFFIXES = {".csv", ".tsv", ".txt", ".tab", ".data", ".parquet", ".pq"}

# The first that reads the first value of a column is taken for the whole column.
TIME_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S",
)
# Seconds since 1970 stay below 1e11 until the year 5138; larger numbers have a finer unit.
UNITS = ((1e17, 10**9, "nanoseconds"), (1e14, 10**6, "microseconds"), (1e11, 10**3, "milliseconds"))


@dataclass(frozen=True)
class Origin:
    """Where a frame came from, to name the place of a bad row.

    Attributes:
        name: path of the file, or "the data frame".
        path: the text file, where it is one.
        separator: between its fields.
        header: whether its first line names the columns.
        shown: for columns of a file without names, what to call them.
    """

    name: str
    path: Path | None = None
    separator: str = ","
    header: bool = True
    shown: Mapping[str, str] = field(default_factory=dict)

    def place(self, row: int) -> str:
        """The place of the `row`-th record (from 0) as people count it."""
        if self.path is None:
            return f"row {row} of {self.name}"
        return f"line {self._line(row)} of {self.name}"

    def column(self, name: str) -> str:
        """What people call a column."""
        return self.shown.get(name, repr(name))

    def _line(self, row: int) -> int:
        # Quoted fields may span lines, so records are counted by a CSV reader.
        assert self.path is not None
        with open_text(self.path) as file:
            reader = csv.reader(file, delimiter=self.separator)
            for number, _ in enumerate(reader, start=-1 if self.header else 0):
                if number == row:
                    return reader.line_num
        return row + 1 + self.header

    def ragged(self, n_columns: int) -> str | None:
        """The first line with more fields than columns, in words, or None."""
        if self.path is None:
            return None
        with open_text(self.path) as file:
            reader = csv.reader(file, delimiter=self.separator)
            for fields in reader:
                if len(fields) > n_columns:
                    return f"{len(fields)} fields in line {reader.line_num} of {self.name}"
        return None


@dataclass(frozen=True)
class Columns:
    """Names of the columns that carry interactions; None where there is none."""

    user: str
    item: str
    weight: str | None = None
    time: str | None = None

    def used(self) -> list[str]:
        """Those there are."""
        return [c for c in (self.user, self.item, self.weight, self.time) if c is not None]


def open_text(path: Path) -> IO[str]:
    """A text file, gzipped or not, opened for a CSV reader."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def plain(name: str) -> str:
    """A column name as it is compared: lower case, letters and digits only."""
    base = name.split(":", maxsplit=1)[0]  # RecBole's "user_id:token"
    return "".join(c for c in base.lower() if c.isalnum())


def recognise(names: Iterable[str], role: str) -> str | None:
    """The column that plays `role`, by its name; the better known name wins."""
    by_plain = {plain(name): name for name in reversed(list(names))}
    return next((by_plain[known] for known in KNOWN[role] if known in by_plain), None)


def first_line(path: Path) -> str:
    """First line of a text file.

    Raises:
        DataError: there is no such file, or nothing in it.
    """
    if not path.is_file():
        got = f"{path}, which is a folder" if path.is_dir() else f"{path}, which does not exist"
        raise DataError("a table of interactions", got, "check the path")
    with open_text(path) as file:
        line = file.readline().rstrip("\r\n")
    if not line.strip():
        raise DataError(
            f"a table with a line of column names in {path}",
            "an empty file" if path.stat().st_size == 0 else "an empty first line",
            "write the table again; its first line names the columns",
        )
    return line


def sniff(header: str) -> str:
    """The separator of a header line: the one under which most columns are recognised."""

    def worth(separator: str) -> tuple[int, int]:
        names = next(csv.reader([header], delimiter=separator))
        found = sum(recognise(names, role) is not None for role in ("user", "item"))
        return found, len(names)

    return max(SEPARATORS, key=worth)


def scan(path: Path, separator: str | None = None) -> tuple[pl.LazyFrame, Origin]:
    """A CSV, TSV or Parquet file as a lazy frame; the columns of text files stay text.

    Raises:
        DataError: no such file, an empty file, or not a Parquet file.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        if not path.is_file():
            raise DataError("a table of interactions", f"{path}, not a file", "check the path")
        try:
            frame = pl.scan_parquet(path)
            frame.collect_schema()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"a readable Parquet file {path}",
                str(error).split("\n")[0],
                "write the file again",
            ) from error
        return frame, Origin(str(path))
    header = first_line(path)
    chosen = separator or sniff(header)
    if len(chosen.encode()) != 1:
        raise DataError(
            "a separator of one character", repr(separator), "use ',', ';', '|' or a tab"
        )
    frame = pl.scan_csv(path, separator=chosen, infer_schema=False)
    return frame, Origin(str(path), path, chosen)


def names_of(frame: pl.LazyFrame, origin: Origin) -> list[str]:
    """Column names of a lazy frame, parser errors told as data errors."""
    try:
        return frame.collect_schema().names()
    except pl.exceptions.PolarsError as error:
        raise unreadable(origin, error, 0) from error


def unreadable(origin: Origin, error: Exception, n_columns: int) -> DataError:
    """A parser's error told in three facts, with the line where it can be found."""
    text = str(error).split("\n")[0]
    if "utf-8" in text.lower():
        return DataError(f"text in UTF-8 in {origin.name}", text, "save the file as UTF-8")
    ragged = origin.ragged(n_columns)
    if "more fields" in text and ragged:
        return DataError(
            f"{n_columns} fields in every line of {origin.name}",
            ragged,
            "quote fields that hold the separator, or remove the line",
        )
    return DataError(f"a readable table {origin.name}", text[:200], "check quotes and separators")


def find_columns(names: Sequence[str], given: Mapping[Role, str | None], origin: Origin) -> Columns:
    """Columns by the names given, else recognised.

    Raises:
        DataError: a given column is not there, or users or items can not be found.
    """
    found: dict[str, str | None] = {}
    for role in ("user", "item", "weight", "time"):
        wanted = given.get(role)
        if wanted is not None and wanted not in names:
            raise DataError(
                f"a column {wanted!r} for the {role} in {origin.name}",
                _header(names, origin),
                _hint(names, origin) or f"name one of the columns that are there as {role}=",
            )
        rest = [n for n in names if n not in given.values()]
        found[role] = wanted or recognise(rest, role)
    for role in ("user", "item"):
        if found[role] is None:
            raise DataError(
                f"a column of {role}s (such as {role}_id) in {origin.name}",
                _header(names, origin),
                _hint(names, origin) or f"tell which column it is: {role}=NAME",
            )
    user, item = found["user"], found["item"]
    assert user is not None
    assert item is not None
    return Columns(user, item, found["weight"], found["time"])


def _header(names: Sequence[str], origin: Origin) -> str:
    if origin.path is None:
        return f"the columns {', '.join(names)}"
    separator = SHOWN.get(origin.separator, repr(origin.separator))
    count = "one column" if len(names) == 1 else f"{len(names)} columns"
    return f"{count} in line 1, separated by {separator}: {', '.join(names)}"


def _hint(names: Sequence[str], origin: Origin) -> str | None:
    """What to do where the separator, or a missing header, is the likely reason."""
    if origin.path is None:
        return None
    better = sniff(first_line(origin.path))
    if better != origin.separator:
        return f"the separator seems to be {SHOWN[better]}: leave it out or give that one"
    if all(name.replace(".", "").replace("-", "").isdigit() for name in names):
        return "add a first line with the columns' names, such as user_id,item_id"
    return None


# ------------------------------------------------------------------ typing and checking


def text_id(column: str, dtype: pl.DataType) -> pl.Expr:
    """Ids as text: 42, 42.0 and " 42 " are all "42"; the empty text is null."""
    one = pl.col(column)
    if dtype.is_float():
        # pandas turns integers with a gap into floats; 7.5 stays and is nobody's id by accident.
        whole = one.cast(pl.Int64, strict=False)
        return pl.when(whole == one).then(whole.cast(pl.String)).otherwise(one.cast(pl.String))
    text = one.cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def number(column: str, dtype: pl.DataType) -> pl.Expr:
    """A finite Float64, null where it is none."""
    one = pl.col(column)
    one = one.str.strip_chars() if dtype == pl.String else one
    value = one.cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def seconds(frame: pl.LazyFrame, column: str, dtype: pl.DataType) -> pl.Expr:
    """Numbers as they are, dates and ISO texts as seconds since 1970; null where neither."""
    if dtype.is_temporal():
        return pl.col(column).cast(pl.Datetime("us")).dt.epoch("s").cast(pl.Float64)
    if dtype != pl.String:
        return number(column, dtype)
    sample = frame.select(pl.col(column).drop_nulls().head(1)).collect(engine="streaming")
    style = next((f for f in TIME_FORMATS if _reads(sample, f)), None)
    if style is None:
        return number(column, dtype)
    text = pl.col(column).str.strip_chars()
    if style.startswith("%Y") and "%H" not in style:
        return (
            text.str.to_date(style, strict=False)
            .cast(pl.Datetime("us"))
            .dt.epoch("s")
            .cast(pl.Float64)
        )
    return text.str.to_datetime(style, strict=False, time_unit="us").dt.epoch("s").cast(pl.Float64)


def _reads(sample: pl.DataFrame, style: str) -> bool:
    if sample.is_empty():
        return False
    text = sample.to_series().str.strip_chars()
    kind = pl.Datetime("us") if "%H" in style else pl.Date
    return text.str.strptime(kind, style, strict=False).null_count() == 0


def typed(
    frame: pl.LazyFrame, columns: Columns, origin: Origin
) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """The frame with columns user_id, item_id (text), weight and time where there are any.

    One streaming pass checks all rows. Lines with nothing in them are left out.

    Returns:
        The lazy frame, and remarks worth telling (a finer unit of time, for example).

    Raises:
        DataError: no row, or a row without an id or with an unreadable number or date.
    """
    try:
        schema = frame.collect_schema()
        exprs = {
            "user_id": text_id(columns.user, schema[columns.user]),
            "item_id": text_id(columns.item, schema[columns.item]),
        }
        if columns.weight is not None:
            exprs["weight"] = number(columns.weight, schema[columns.weight])
        if columns.time is not None:
            exprs["time"] = seconds(frame, columns.time, schema[columns.time])
        blank = pl.all_horizontal(pl.col(c).is_null() for c in columns.used())
        summary = (
            frame.filter(~blank)
            .select(
                pl.len().alias("rows"),
                *(e.is_null().sum().alias(k) for k, e in exprs.items()),
                *([exprs["time"].abs().max().alias("latest")] if "time" in exprs else []),
            )
            .collect(engine="streaming")
            .row(0, named=True)
        )
    except pl.exceptions.PolarsError as error:
        raise unreadable(origin, error, len(names_of(frame, origin))) from error
    if not summary["rows"]:
        raise DataError(
            f"interactions in {origin.name}",
            "column names and no rows" if origin.header else "no rows",
            "check that the right file was given",
        )
    for name in exprs:
        if summary[name]:
            role = {"user_id": "user", "item_id": "item"}.get(name, name)
            column = getattr(columns, role)
            raise _bad_row(frame.with_row_index("__row"), ~blank, exprs, name, column, origin)
    remarks = []
    if "time" in exprs:
        unit = next(((d, u) for least, d, u in UNITS if summary["latest"] >= least), None)
        if unit is not None:
            exprs["time"] = exprs["time"] / unit[0]
            remarks.append(f"times were {unit[1]} and are kept as seconds")
        exprs["time"] = exprs["time"].floor().cast(pl.Int64)
    if "weight" in exprs:
        exprs["weight"] = exprs["weight"].cast(pl.Float32)
    return frame.filter(~blank).select(**exprs), tuple(remarks)


def _bad_row(
    frame: pl.LazyFrame,
    kept: pl.Expr,
    exprs: Mapping[str, pl.Expr],
    name: str,
    column: str,
    origin: Origin,
) -> DataError:
    first = frame.filter(kept & exprs[name].is_null()).select(pl.col("__row").min())
    row = int(first.collect(engine="streaming").item())
    value = frame.filter(pl.col("__row") == row).select(column).collect(engine="streaming").item()
    wanted = {
        "user_id": "a user id",
        "item_id": "an item id",
        "weight": "a finite number",
        "time": "seconds since 1970 or an ISO date",
    }[name]
    shown = "nothing" if value is None or str(value).strip() == "" else repr(value)
    return DataError(
        f"{wanted} in column {origin.column(column)}",
        f"{shown} in {origin.place(row)}",
        "mend or remove that row",
    )
