"""Tables for all sources: text files, Parquet files and data frames, with the place of each row.

This is the only module that parses delimited text. Every column of a text file is read as text, so
that an unreadable value is found here, with its line, and not inside a parser.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import polars as pl

from modalign.data.sources._lines import decoded, open_bytes, whole
from modalign.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    Frame: TypeAlias = pl.DataFrame | pl.LazyFrame | pd.DataFrame
else:
    Frame = Any

Role = Literal["user", "item", "weight", "time"]

# Names that files give to columns, in lower case without separators.
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
CALLED = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a vertical bar", " ": "a space"}
SUFFIXES = {".csv", ".tsv", ".txt", ".tab", ".data", ".parquet", ".pq"}
_UNIT = "\x1f"
"""Stands for a separator of several characters; ASCII's "unit separator"."""


@dataclass(frozen=True)
class SourceTable:
    """Rows with named columns, and where they come from.

    Attributes:
        frame: the rows; the columns of text files are text.
        name: path of the file, or "the data frame".
        path: the text file; None for other tables.
        header: whether the first line of the file names the columns.
        quoted: whether fields may stand in double quotes. In a file without quotes, a line with
            more fields than columns is always refused.
        content: the text of the file where it is not parsed as it is.
    """

    frame: pl.LazyFrame
    name: str
    path: Path | None = None
    separator: str = ","
    header: bool = True
    quoted: bool = True
    content: bytes | None = None

    @cached_property
    def names(self) -> list[str]:
        """Names of the columns."""
        try:
            return self.frame.collect_schema().names()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._unreadable(error, 0) from error

    def collect(self, frame: pl.LazyFrame | None = None) -> pl.DataFrame:
        """The rows of a frame made of this one; all rows if None.

        Raises:
            DataError: the file cannot be parsed; the message names the line if it is known.
        """
        try:
            return (self.frame if frame is None else frame).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._unreadable(error, len(self.names)) from error

    def cells(self, schema: Mapping[str, Any]) -> pl.DataFrame:
        """The columns of `schema` in its types, without white space around values.

        Args:
            schema: polars type by column name.

        Raises:
            DataError: a column is missing, or a cell is empty or not of its type.
        """
        self.need(schema)
        typed = {
            name: pl.col(name).str.strip_chars().replace("", None).cast(kind, strict=False)
            for name, kind in schema.items()
        }
        # All columns are parsed, so that a line with too many fields is found.
        found = self.collect(self.frame.with_columns(**typed)).select(*schema)
        for name, kind in schema.items():
            if found[name].null_count():
                wanted = "a value" if kind == pl.String else "a number"
                wanted = "a whole number" if kind.is_integer() else wanted
                raise self.bad_cell(int(found[name].is_null().arg_max() or 0), name, wanted)
        return found

    def records(self) -> pl.DataFrame:
        """All rows of a file without quotes, as text, without blank lines.

        Raises:
            DataError: there is no row, or a line has fewer fields than the first one.
        """
        rows = self.collect()
        if rows[:, -1].null_count() and (odd := self._odd_line(len(rows.columns), fewer=True)):
            raise self._wrong_width(len(rows.columns), odd)
        return rows.filter(~pl.all_horizontal(pl.all().is_null()))

    def need(self, columns: Sequence[str] | Mapping[str, Any]) -> None:
        """Refuse a table that lacks one of the columns.

        Raises:
            DataError: the missing column, and the separator if that is the likely reason.
        """
        missing = [name for name in columns if name not in self.names]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            fix = f"name the column{plural} {', '.join(missing)} in the first line"
            raise DataError(
                f"the columns {', '.join(columns)} in {self.name}", self.shown(), self.hint() or fix
            )

    def place(self, row: int) -> str:
        """The `row`-th record (from 0) as people count it: "line 3 of log.csv"."""
        if self.path is None:
            return f"row {row} of {self.name}"
        return f"line {self._line(row)} of {self.name}"

    def bad_cell(self, row: int, column: str, wanted: str) -> DataError:
        """The error for one cell of the table.

        Args:
            row: of the cell, from 0.
            column: its name.
            wanted: what should stand there: "a number".
        """
        cell = self.frame.select(column).slice(row, 1)
        value = self.collect(cell).item()
        empty = value is None or str(value).strip() == ""
        got = f"{'nothing' if empty else repr(value)} in {self.place(row)}"
        return DataError(f"{wanted} in column {column!r}", got, "correct or remove that row")

    def shown(self) -> str:
        """The columns in words."""
        if self.path is None:
            return f"the columns {', '.join(self.names)}"
        count = "one column" if len(self.names) == 1 else f"{len(self.names)} columns"
        between = CALLED.get(self.separator, repr(self.separator))
        return f"{count} in line 1, separated by {between}: {', '.join(self.names)}"

    def hint(self) -> str | None:
        """How to fix a table whose separator or missing header is the likely reason."""
        if self.path is None or not self.header:
            return None
        first = physical_line(self.path)
        better = " " if len(self.names) == 1 and not set(first) & set(SEPARATORS) else sniff(first)
        if better != self.separator and better in first:
            return (
                f"the fields seem to be separated by {CALLED[better]}, not by "
                f"{CALLED.get(self.separator, repr(self.separator))}: change the file or the "
                "separator"
            )
        if all(name.replace(".", "").replace("-", "").isdigit() for name in self.names):
            return "add a first line with the names of the columns, such as user_id,item_id"
        return None

    def _unreadable(self, error: Exception, n_columns: int) -> DataError:
        text = str(error).split("\n")[0]
        if "utf-8" in text.lower():
            return DataError(f"text in UTF-8 in {self.name}", text, "save the file as UTF-8")
        if isinstance(error, OSError):
            return DataError(
                f"a readable, complete file {self.name}", text, "download or write it again"
            )
        odd = self._odd_line(n_columns) if "more fields" in text else None
        if odd:
            return self._wrong_width(n_columns, odd)
        return DataError(f"a readable table {self.name}", text[:200], "check quotes and separators")

    def _wrong_width(self, n_columns: int, odd: str) -> DataError:
        fix = "quote fields that hold the separator, or remove the line"
        expected = f"{n_columns} fields in every line of {self.name}"
        return DataError(expected, odd, fix if self.quoted else "correct or remove that line")

    @contextmanager
    def _reader(self) -> Iterator[Any]:
        """A CSV reader of the file, for messages: it counts lines, and is slow."""
        raw = open_bytes(self.path) if self.content is None else io.BytesIO(self.content)  # type: ignore[arg-type]
        with io.TextIOWrapper(raw, "utf-8-sig", errors="replace", newline="") as file:
            yield csv.reader(
                file,
                delimiter=self.separator,
                quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
            )

    def _line(self, row: int) -> int:
        if self.quoted:  # quoted fields may span lines, so records are counted
            with self._reader() as reader, suppress(csv.Error):
                for number, _ in enumerate(reader, start=-1 if self.header else 0):
                    if number == row:
                        return int(reader.line_num)
        return row + 1 + self.header

    def _odd_line(self, n_columns: int, *, fewer: bool = False) -> str | None:
        """The first line with more (or fewer) fields than columns, in words."""
        if self.path is None:
            return None
        with self._reader() as reader, suppress(csv.Error):
            for fields in reader:
                if len(fields) > n_columns or (fewer and 0 < len(fields) < n_columns):
                    return f"{len(fields)} fields in line {reader.line_num}"
        return None


def open_table(
    path: Path,
    separator: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    quoted: bool = True,
    latin: bool = False,
    infer_except: Sequence[str] | None = None,
) -> SourceTable:
    """A text or Parquet file as a lazy table.

    Args:
        path: the file, gzipped or not.
        separator: between fields; None finds it in the first line.
        columns: names of the columns of a file whose first line does not name them. Further
            columns are left out.
        quoted: whether fields may stand in double quotes.
        latin: read the file whole, as Latin-1 if it is not valid UTF-8.
        infer_except: numbers and truth values get their types, except in these columns; None
            leaves all columns text.

    Raises:
        DataError: no such file, an empty file, fewer fields than `columns`, or not a Parquet file.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        return _open_parquet(path)
    first = physical_line(path)
    chosen = separator or sniff(first)
    content = decoded(path).encode() if latin else None
    if len(chosen.encode()) > 1 and columns:
        content = (whole(path) if content is None else content).replace(
            chosen.encode(), _UNIT.encode()
        )
        first, chosen = first.replace(chosen, _UNIT), _UNIT
    if len(chosen.encode()) != 1:
        raise DataError(
            "a separator of one character", repr(separator), "use ',', ';', '|' or a tab"
        )
    frame = pl.scan_csv(
        path if content is None else io.BytesIO(content),
        separator=chosen,
        has_header=columns is None,
        quote_char='"' if quoted else None,
        **_inference(first.split(chosen), infer_except),
    )
    if columns:
        width = len(first.split(chosen))
        if width < len(columns):
            between = repr(separator) if chosen == _UNIT else CALLED.get(chosen, repr(chosen))
            raise DataError(
                f"{len(columns)} fields separated by {between} in each line of {path}: "
                f"{', '.join(columns)}",
                f"{width} in line 1: {first[:60]!r}",
                "check that the right file was given",
            )
        more = [f"further {i}" for i in range(width - len(columns))]
        names = dict(zip(frame.collect_schema().names(), [*columns, *more], strict=True))
        frame = frame.rename(names)
    return SourceTable(frame, str(path), path, chosen, columns is None, quoted, content)


def _inference(names: Sequence[str], texts: Sequence[str] | None) -> dict[str, Any]:
    """Arguments of polars: all columns are text, or all those of `texts`."""
    if texts is None:
        return {"infer_schema": False}
    overrides = {name: pl.String for name in names if name in texts}
    return {"infer_schema_length": None, "schema_overrides": overrides}


def _open_parquet(path: Path) -> SourceTable:
    if not path.is_file():
        raise DataError("a table", f"{path}, which is not a file", "check the path")
    try:
        frame = pl.scan_parquet(path)
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"a readable Parquet file {path}", str(error).split("\n")[0], "write the file again"
        ) from error
    return SourceTable(frame, str(path))


def table_of(source: str | Path | Frame, separator: str | None = None) -> SourceTable:
    """A file, or a polars or pandas frame, as a table.

    Raises:
        DataError: it is neither, or the file cannot be read.
    """
    if isinstance(source, str | Path):
        return open_table(Path(source), separator)
    if isinstance(source, pl.LazyFrame | pl.DataFrame):
        return SourceTable(source.lazy(), "the data frame")
    if type(source).__module__.split(".")[0] == "pandas":
        return SourceTable(pl.from_pandas(source.rename(columns=str)).lazy(), "the data frame")
    raise DataError(
        "a path, a polars or a pandas data frame", f"a {type(source).__name__}", "give one of those"
    )


def physical_line(path: Path) -> str:
    """The first line of a text file.

    Raises:
        DataError: there is no such file, or nothing in its first line.
    """
    if not path.is_file():
        got = f"{path}, which is a folder" if path.is_dir() else f"{path}, which does not exist"
        raise DataError("a table in a text or Parquet file", got, "check the path")
    with open_bytes(path) as file:
        try:
            line = file.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
        except (EOFError, OSError) as error:
            raise DataError(
                f"a readable, complete file {path}", str(error), "download or write it again"
            ) from error
    if not line.strip():
        raise DataError(
            f"a table with a line of column names in {path}",
            "an empty file" if path.stat().st_size == 0 else "an empty first line",
            "write the table again, with a first line that names the columns",
        )
    return line


def sniff(header: str) -> str:
    """The separator of a header line: the one under which most columns are recognised.

    Example:
        >>> sniff("user_id;item_id;a,b,c")
        ';'
    """

    def worth(separator: str) -> tuple[int, int]:
        names = next(csv.reader([header], delimiter=separator))
        found = sum(recognise(names, role) is not None for role in ("user", "item"))
        return found, len(names)

    return max(SEPARATORS, key=worth)


def plain(name: str) -> str:
    """A column name as it is compared: lower case, letters and digits only.

    Example:
        >>> plain("User_ID:token")
        'userid'
    """
    base = name.split(":", maxsplit=1)[0]  # RecBole's "user_id:token"
    return "".join(c for c in base.lower() if c.isalnum())


def recognise(names: Iterable[str], role: str) -> str | None:
    """The column of a role, by its name; of several, the name that comes first in `KNOWN`.

    Example:
        >>> recognise(["count", "stars"], "weight")
        'stars'
    """
    by_plain = {plain(name): name for name in reversed(list(names))}
    return next((by_plain[known] for known in KNOWN[role] if known in by_plain), None)
