"""Tables for all sources: text files, Parquet files and data frames, with the place of each row.

This is the only module that parses delimited text. Every column of a text file is read as text, so
that an unreadable value is found here, with its line, and not inside a parser.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import polars as pl
import pyarrow as pa

from modalign.data.sources import _quotes
from modalign.data.sources._lines import (
    SAMPLE,
    check_utf8,
    complete,
    compression,
    decoded,
    in_utf8,
    open_bytes,
    parsed,
    whole,
)
from modalign.data.sources._quotes import Quoting
from modalign.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    Frame: TypeAlias = pl.DataFrame | pl.LazyFrame | pd.DataFrame
else:
    Frame = Any

Role = Literal["user", "item", "weight", "time"]

# Names that files give to columns, in lower case without separators.
KNOWN: Mapping[str, tuple[str, ...]] = {
    "user": (
        "userid", "user", "uid", "reviewerid", "customerid", "customer", "visitorid", "memberid",
        "accountid", "clientid", "buyerid", "shopperid", "personid", "learnerid", "steamid",
        "householdkey", "customerno", "customernumber", "userno", "username", "sessionid",
    ),
    "item": (
        "itemid", "item", "iid", "asin", "parentasin", "movieid", "productid", "product",
        "articleid", "bookid", "trackid", "artistid", "businessid", "songid", "gameid", "sku",
        "skuid", "stockcode", "productcode", "itemcode", "itemno", "productno", "prodid", "goodsid",
        "videoid", "newsid", "recipeid", "courseid", "beerid", "animeid", "albumid", "showid",
        "appid", "contentid", "offerid", "listingid", "placeid", "poiid", "venueid", "hotelid",
        "restaurantid", "gmapid", "isbn", "isbn13",
    ),
    "weight": (
        "weight", "rating", "score", "stars", "overall", "playcount", "count", "ratings",
        "quantity", "qty",
    ),
    "time": (
        "time", "timestamp", "ts", "date", "datetime", "unixreviewtime", "unixtime", "createdat",
        "eventtime", "eventtimestamp", "orderedat", "orderdate", "purchasedate", "invoicedate",
        "tdat", "reviewtime",
    ),
    "title": (
        "title", "name", "itemname", "productname", "movietitle", "prodname", "itemtitle",
        "producttitle", "productdisplayname", "displayname", "booktitle", "moviename",
        "articlename", "artistname", "trackname", "songname", "songtitle", "tracktitle",
        "gamename", "appname", "headline",
    ),
    "description": (
        "description", "text", "plot", "summary", "abstract", "overview", "detaildesc", "desc",
        "productdescription", "itemdescription", "longdescription", "shortdescription", "body",
        "bodyhtml", "content", "synopsis", "about",
    ),
    "image": ("image", "imagepath", "picture", "photo", "poster", "imagefile", "img"),
    "audio": ("audio", "audiopath", "audiofile", "sound", "soundfile", "preview"),
    "video": ("video", "videopath", "videofile", "clip", "trailer"),
}  # fmt: skip

SEPARATORS = (",", "\t", ";", "|", "::")
RARE = ("^", "~")
"""Separators where there is none of those."""
HIVES = "\x01"
WORDS = {"\\t": "\t", "tab": "\t", "\\x01": "\x01", "\\001": "\x01", "space": " ", "blank": " "}
"""How separators are written on a command line that cannot be seen there."""
CALLED = {
    ",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a vertical bar", " ": "blanks",
    "::": "'::'", "\x01": "'\\x01'", "^": "'^'", "~": "'~'",
}  # fmt: skip
JSON = (".jsonl", ".ndjson", ".json")
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
SUFFIXES = {".csv", ".tsv", ".txt", ".tab", ".data", ".parquet", ".pq", *JSON, *PACKED}
MOST_FIELDS = 50
"""Fields of a JSON object that become columns; one with more stays a single column."""
LONGEST = 1 << 20
"""Bytes of a line of column names; a longer one is no table."""
COMMENTS = ("#", "%", "//", "@")
_UNIT = "\x1f"
"""Stands for a separator of several characters; ASCII's "unit separator"."""
_PARQUET = re.compile(rb"PAR1")
_OBJECT = re.compile(rb'(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*"')
"""A JSON object, or an array of them."""
_SEP_LINE = re.compile(r'"?sep=(.|\\t)"?', re.IGNORECASE)
"""What spreadsheets write above the names of the columns to say which separator follows."""


class WrongWidth(DataError):
    """A line has more fields than the first one."""


@dataclass(frozen=True)
class TextFormat:
    """How a text table is written; what is None is found in the file.

    Attributes:
        separator: between fields: one character, `::`, or a blank for one or more blanks.
        quote: "auto" takes fields whose double quotes do not pair up as plain text, "double"
            refuses them, "none" takes all quotes as plain text.
        encoding: Python's name of the encoding; None is UTF-8, or UTF-16 where the file says so.
        columns: names of the columns of a file without a line of names.
        skip_odd: leave out records with more fields than the first line.
    """

    separator: str | None = None
    quote: Quoting = "auto"
    encoding: str | None = None
    columns: tuple[str, ...] | None = None
    skip_odd: bool = False


@dataclass(frozen=True)
class SourceTable:
    """Rows with named columns, and where they come from.

    Attributes:
        frame: the rows; the columns of text files are text.
        name: path of the file, or "the data frame".
        path: the text file; None for other tables.
        header: whether the first line of the file names the columns.
        quoted: whether fields may stand in double quotes.
        content: the text of the file where it is not parsed as it is.
        skipped: lines before the first that belongs to the table.
        expected: number of records that the file holds, its names not counted; None if unknown.
        remarks: what was done to read the file, to show.
        written_as: the separator in the file, where `content` has another in its place.
        lists: columns that held lists, whose entries were joined to a text.
        first_row: number of the first row in messages, where there are no lines.
        odd: number (from 0) and fields of each record that was left out for having too many.
    """

    frame: pl.LazyFrame
    name: str
    path: Path | None = None
    separator: str = ","
    header: bool = True
    quoted: bool = True
    content: bytes | None = None
    skipped: int = 0
    expected: int | None = None
    remarks: tuple[str, ...] = ()
    written_as: str | None = None
    lists: tuple[str, ...] = ()
    first_row: int = 0
    odd: tuple[tuple[int, int], ...] = ()

    @property
    def between(self) -> str:
        """The separator as the file has it."""
        return self.written_as or self.separator

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
        self.check_count(len(found))
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
        self.check_count(len(rows))
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

    def once(self, column: str) -> None:
        """Refuse a column whose name stands twice in the first line.

        Raises:
            DataError: it does.
        """
        if f"{column}_duplicated_0" in self.names:
            got = f"{column!r} in several"
            fix = "give each column its own name"
            raise DataError(f"columns of different names in {self.name}", got, fix)

    def check_count(self, read: int) -> None:
        """Refuse a reading with more or fewer rows than the file has records.

        Raises:
            DataError: the two numbers.
        """
        if self.expected is not None and read != self.expected:
            raise DataError(
                f"{self.expected:,} rows from the {self.expected:,} records of {self.name}",
                f"{read:,}",
                "try --quote none, and tell us about this file: no row should be lost",
            )

    def place(self, row: int) -> str:
        """The `row`-th record (from 0) as people count it: "line 3 of log.csv"."""
        if self.path is None:
            return f"row {row + self.first_row} of {self.name}"
        return f"line {self._line(row)} of {self.name}"

    def places(self, rows: Sequence[int]) -> list[str]:
        """Where some records stand, ascending: "line 3", or "row 3" of a frame; one pass."""
        if self.path is None:
            return [f"row {row + self.first_row}" for row in rows]
        if not self.quoted:
            return [f"line {row + 1 + self.header + self.skipped}" for row in rows]
        found: list[str] = []
        with self._reader() as reader, suppress(csv.Error):
            for number, _ in enumerate(reader, start=-1 if self.header else 0):
                if len(found) < len(rows) and number == rows[len(found)]:
                    found.append(f"line {reader.line_num + self.skipped}")
                if len(found) == len(rows):
                    break
        return found + [f"record {row + 1}" for row in rows[len(found) :]]

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
        between = CALLED.get(self.between, repr(self.between))
        return f"{count} in line 1, separated by {between}: {', '.join(self.names)}"

    def hint(self) -> str | None:
        """How to fix a table whose separator or missing header is the likely reason."""
        if self.path is None or not self.header:
            return None
        first = _first_line(self.path, self.content, self.skipped).replace(_UNIT, self.between)
        if first.lstrip().startswith(COMMENTS):
            return "remove the comment in the first line"
        inner = sniff(self.names[0])
        if len(self.names) == 1 and first.startswith('"') and inner in self.names[0]:
            return f"remove the quotes around whole lines, which hold {CALLED[inner]}"
        better = sniff(first)
        if better != self.between and better in first:
            return (
                f"the fields seem to be separated by {CALLED[better]}, not by "
                f"{CALLED.get(self.between, repr(self.between))}: change the file or the "
                "separator"
            )
        known = any(recognise(self.names, role) for role in KNOWN)
        if not known and any(c.isdigit() for name in self.names for c in name):
            return (
                "add a first line with the names of the columns, such as user_id,item_id, or name "
                "them with --no-header --columns user,item"
            )
        return None

    def _unreadable(self, error: Exception, n_columns: int) -> DataError:
        text = str(error).split("\n")[0]
        if "utf-8" in text.lower() or "utf8" in text.lower():
            if self.path is not None and self.content is None:
                check_utf8(self.path)
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
        return WrongWidth(expected, odd, fix if self.quoted else "correct or remove that line")

    @contextmanager
    def _reader(self) -> Iterator[Any]:
        """A CSV reader of the file, for messages: it counts lines, and is slow."""
        raw = open_bytes(self.path) if self.content is None else io.BytesIO(self.content)  # type: ignore[arg-type]
        with io.TextIOWrapper(raw, "utf-8-sig", errors="replace", newline="") as file:
            for _ in range(self.skipped):
                file.readline()
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
                        return int(reader.line_num) + self.skipped
        return row + 1 + self.header + self.skipped

    def _odd_line(self, n_columns: int, *, fewer: bool = False) -> str | None:
        """The first line with more (or fewer) fields than columns, in words."""
        if self.path is None:
            return None
        with self._reader() as reader, suppress(csv.Error):
            for fields in reader:
                if len(fields) > n_columns or (fewer and 0 < len(fields) < n_columns):
                    return f"{len(fields)} fields in line {reader.line_num + self.skipped}"
        return None


def open_table(
    path: Path,
    separator: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    quote: Quoting = "auto",
    encoding: str | None = None,
    latin: bool = False,
    infer_except: Sequence[str] | None = None,
    skip_odd: bool = False,
) -> SourceTable:
    """A text, JSON-lines or Parquet file as a lazy table.

    Args:
        path: the file; may be compressed (gzip, bz2, xz, zstd, or a zip archive of one file).
        separator: between fields; None finds it in the first line.
        columns: names of the columns of a file whose first line does not name them. Further
            columns are left out.
        quote: as in `TextFormat`.
        encoding: as in `TextFormat`.
        latin: read the file whole, as Latin-1 if it is not valid UTF-8.
        infer_except: numbers and truth values get their types, except in these columns; None
            leaves all columns text.
        skip_odd: leave out records with more fields than the first line, which takes a pass in
            Python.

    Raises:
        DataError: no such file, an empty file, fewer fields than `columns`, quotes that do not
            pair up with `quote="double"`, or not a Parquet file.
    """
    if columns and len(set(columns)) < len(columns):
        fix = "give each column its own name"
        raise DataError("each name once among the columns", ", ".join(columns), fix)
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    if name.endswith((".parquet", ".pq")) or _starts_with(path, _PARQUET):
        return _open_parquet(path)
    if latin:
        _must_be_file(path)
    content = decoded(path).encode() if latin else _text(path, encoding)
    if name.endswith(JSON) or (separator is None and _starts_with(path, _OBJECT, content)):
        return _open_json(path, content)
    if content is None and compression(path) not in (None, "gzip"):
        content = whole(path)
    content = _with_line_feeds(path, content)
    first, skipped = _first_line(path, content), 0
    if named := _SEP_LINE.fullmatch(first):
        separator = separator or named[1].replace("\\t", "\t")
        skipped, first = 1, _first_line(path, content, 1)
    chosen = sniff(first) if separator is None else WORDS.get(separator, separator)
    if not chosen or "\n" in chosen or '"' in chosen:
        got = repr(separator)
        raise DataError("a separator between fields", got, "use ',', ';', '|', '::' or a tab")
    if chosen == " " or len(chosen.encode()) > 1:
        raw = whole(path) if content is None else content
        content, between = _with_units(raw, chosen), chosen
        first, chosen, quote = _first_line(path, content, skipped), _UNIT, "none"
    else:
        between = chosen
    content, expected, remarks = _checked_quotes(path, content, chosen, quote, skipped)
    odd: tuple[tuple[int, int], ...] = ()
    if skip_odd:
        raw = whole(path) if content is None else content
        width = len(_fields(first, chosen, quote))
        content, odd, blank = _blank_odd(raw, chosen, quote, skipped, width, columns is None)
        expected = None if expected is None else expected + blank
    frame = pl.scan_csv(
        path if content is None else io.BytesIO(content),
        separator=chosen,
        has_header=columns is None,
        quote_char=None if quote == "none" else '"',
        skip_lines=skipped,
        **_inference(_fields(first, chosen, quote), infer_except),
    )
    if columns:
        width = len(_fields(first, chosen, quote))
        if width < len(columns):
            raise DataError(
                f"{len(columns)} fields separated by {CALLED.get(between, repr(between))} in each "
                f"line of {path}: {', '.join(columns)}",
                f"{width} in line {1 + skipped}: {first.replace(_UNIT, between)[:60]!r}",
                "check that the right file was given",
            )
        more = [f"further {i}" for i in range(width - len(columns))]
        names = dict(zip(frame.collect_schema().names(), [*columns, *more], strict=True))
        frame = frame.rename(names)
    return SourceTable(
        frame,
        str(path),
        path,
        chosen,
        columns is None,
        quote != "none",
        content,
        skipped,
        None if expected is None else expected - (columns is None),
        remarks,
        between,
        odd=odd,
    )


def _text(path: Path, encoding: str | None) -> bytes | None:
    _must_be_file(path)
    return in_utf8(path, encoding)


def _starts_with(path: Path, what: re.Pattern[bytes], content: bytes | None = None) -> bool:
    """Whether a file, once decompressed, starts like that; False where there is none."""
    if not path.is_file():
        return False
    with complete(path), open_bytes(path) if content is None else io.BytesIO(content) as file:
        return what.match(file.read(SAMPLE)) is not None


def _with_line_feeds(path: Path, content: bytes | None) -> bytes | None:
    """The text of a file whose lines end in carriage returns alone, as old programs write them."""
    with complete(path), open_bytes(path) if content is None else io.BytesIO(content) as file:
        start = file.read(SAMPLE)
    if b"\n" in start or b"\r" not in start.rstrip(b"\r"):
        return content
    raw = whole(path) if content is None else content
    return raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _fields(line: str, separator: str, quote: Quoting) -> list[str]:
    if quote == "none":
        return line.split(separator)
    return next(csv.reader([line], delimiter=separator))


def _with_units(raw: bytes, separator: str) -> bytes:
    """The text with a separator of several characters, or runs of blanks, as one character."""
    unit = _UNIT.encode()
    if separator != " ":
        return raw.replace(separator.encode(), unit)
    return re.sub(rb"[ \t]+", unit, re.sub(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)", b"", raw))


def _checked_quotes(
    path: Path, content: bytes | None, separator: str, quote: Quoting, skipped: int
) -> tuple[bytes | None, int | None, tuple[str, ...]]:
    """The text whose quotes pair up, its number of records, and a remark on what was changed."""
    if quote == "none":
        return content, None, ()
    with complete(path), open_bytes(path) if content is None else io.BytesIO(content) as file:
        for _ in range(skipped):
            file.readline()
        found = _quotes.look(file, separator.encode())
    if found.stray is None:
        return content, found.records, ()
    line = found.stray + skipped
    if quote == "double":
        raise DataError(
            f"double quotes that open at the start of a field and close at its end in {path}",
            f"a quote in line {line} that does not",
            "double the quotes inside a quoted field, or use --quote auto or none",
        )
    raw = whole(path) if content is None else content
    head, body = _cut(raw, skipped)
    plain = _quotes.as_plain(body, separator.encode())
    records = _quotes.look(io.BytesIO(plain.content), separator.encode())
    remark = (
        f"{plain.fields:,} field{'s' * (plain.fields > 1)} of {path.name} with quotes that do not "
        f"pair up, read as plain text; the first is {plain.example!r} in line "
        f"{plain.line + skipped}"
    )
    return head + plain.content, records.records, (remark,)


def _blank_odd(
    raw: bytes, separator: str, quote: Quoting, skipped: int, width: int, header: bool
) -> tuple[bytes, tuple[tuple[int, int], ...], int]:
    """The text with blank lines in place of records with more than `width` fields, and these.

    All other records keep their lines. A record is given by its number from 0 and its fields.
    The last number is that of the records that there are more, since each blank line is one.
    """
    head, body = _cut(raw, skipped)
    lines = re.findall(rb"[^\n]*\n|[^\n]+", body)
    taken = 0

    def read() -> Iterator[str]:
        nonlocal taken
        for line in lines:
            taken += 1
            yield line.decode("utf-8")

    reader = csv.reader(
        read(),
        delimiter=separator,
        quoting=csv.QUOTE_NONE if quote == "none" else csv.QUOTE_MINIMAL,
    )
    kept: list[bytes] = [head]
    odd: list[tuple[int, int]] = []
    start = more = 0
    with suppress(csv.Error):  # a field beyond the reader's limit: what follows stays as it is
        for number, fields in enumerate(reader):
            record = lines[start:taken]
            if len(fields) > width:
                odd.append((number - header, len(fields)))
                more += len(record) - 1
                record = [b"\n"] * len(record)
            kept += record
            start = taken
    return b"".join([*kept, *lines[start:]]), tuple(odd), more


def _cut(raw: bytes, lines: int) -> tuple[bytes, bytes]:
    at = 0
    for _ in range(lines):
        at = raw.index(b"\n", at) + 1
    return raw[:at], raw[at:]


def _open_json(path: Path, content: bytes | None) -> SourceTable:
    """A file with a JSON object in each line, or a JSON array of them."""
    raw = (whole(path) if content is None else content).removeprefix(codecs.BOM_UTF8)
    if not raw.strip():
        raise DataError(f"a JSON object in each line of {path}", "an empty file", "check the path")
    array = raw.lstrip().startswith(b"[")
    try:
        read = pl.read_json if array else pl.read_ndjson
        frame = read(io.BytesIO(raw), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        frame = _by_python(path, raw, array, error)
    if len(frame) == 1 and all(kind.is_nested() for kind in frame.dtypes):
        raise _one_object(path, frame.columns)
    frame = _flat(frame.lazy()).collect()
    lists = tuple(
        name
        for name, kind in frame.schema.items()
        if isinstance(kind, pl.List) and not kind.inner.is_nested()
    )
    joined = pl.col(lists).list.eval(pl.element().cast(pl.String)).list.join(" ")
    frame = frame.with_columns(joined) if lists else frame
    return SourceTable(frame.lazy(), str(path), lists=lists, first_row=1)


def _by_python(path: Path, raw: bytes, array: bool, error: Exception) -> pl.DataFrame:
    """What polars cannot read, such as `NaN` and literals of Python; names the line if none can."""
    records: Any
    if array:
        try:
            records = json.loads(raw)
        except ValueError as wrong:
            fix = "correct it there"
            raise DataError(f"a JSON array of objects in {path}", str(wrong), fix) from wrong
    else:
        with suppress(ValueError):
            if isinstance(one := json.loads(raw), dict) and raw.strip().count(b"\n"):
                raise _one_object(path, one)
        records = [record for _, record in parsed(path, 1, raw)]
    try:
        return pl.from_dicts(records, infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError, ValueError, AttributeError) as wrong:
        got = str(error).split("\n")[0][:200]
        fix = "write every field with one type in all objects"
        raise DataError(f"JSON objects with the same fields in {path}", got, fix) from wrong


def _one_object(path: Path, names: Iterable[str]) -> DataError:
    some = list(names)
    return DataError(
        f"a JSON object for each row of {path}",
        f"one object with {', '.join(some[:5])}{', ...' if len(some) > 5 else ''}",
        "write an array of objects, or one object a line; in pandas: "
        "to_json(path, orient='records', lines=True)",
    )


def _flat(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Objects within objects as columns of their own: `user.id`."""
    while True:
        schema = frame.collect_schema()
        inner = {
            name: [field.name for field in kind.fields]
            for name, kind in schema.items()
            if isinstance(kind, pl.Struct) and len(kind.fields) <= MOST_FIELDS
        }
        inner = {
            n: some for n, some in inner.items() if not {f"{n}.{one}" for one in some} & set(schema)
        }
        if not inner:
            return frame
        frame = frame.select(
            column
            for name in schema
            for column in (
                [pl.col(name).struct.field(one).alias(f"{name}.{one}") for one in inner[name]]
                if name in inner
                else [pl.col(name)]
            )
        )


def _inference(names: Sequence[str], texts: Sequence[str] | None) -> dict[str, Any]:
    """Arguments of polars: all columns are text, or all those of `texts`."""
    if texts is None:
        return {"infer_schema": False}
    overrides = {name: pl.String for name in names if name in texts}
    return {"infer_schema_length": None, "schema_overrides": overrides}


def _open_parquet(path: Path) -> SourceTable:
    if not path.is_file():
        raise DataError("a table", f"{path}, which is not a file", "check the path")
    source = path if compression(path) is None else io.BytesIO(whole(path))
    try:
        frame = pl.scan_parquet(source)
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"a readable Parquet file {path}", str(error).split("\n")[0], "write the file again"
        ) from error
    return SourceTable(_flat(frame), str(path))


def table_of(source: str | Path | Frame, text: TextFormat = TextFormat()) -> SourceTable:
    """A file, or a polars or pandas frame, as a table.

    Args:
        source: the file or the frame.
        text: how a text file is written.

    Raises:
        DataError: it is neither, or the file cannot be read.
    """
    if isinstance(source, str | Path):
        return open_table(
            Path(source),
            text.separator,
            columns=text.columns,
            quote=text.quote,
            encoding=text.encoding,
            skip_odd=text.skip_odd,
        )
    if isinstance(source, pl.LazyFrame | pl.DataFrame):
        odd = [name for name, kind in source.collect_schema().items() if kind == pl.Object]
        if odd:
            whole_frame = source.lazy().collect()
            source = whole_frame.with_columns(
                _as_text(whole_frame[name]).alias(name) for name in odd
            )
        return SourceTable(source.lazy(), "the data frame")
    if type(source).__module__.split(".")[0] == "pandas":
        return SourceTable(_from_pandas(source).lazy(), "the data frame")
    raise DataError(
        "a path, a polars or a pandas data frame", f"a {type(source).__name__}", "give one of those"
    )


def _from_pandas(frame: pd.DataFrame) -> pl.DataFrame:
    """A frame whose columns of mixed types, such as 1 beside "1", and of UUIDs are text.

    Levels of the index that have a name are columns; periods are their first moment.

    Raises:
        DataError: two columns have one name.
    """
    frame = frame.rename(columns=str)
    levels = [one for one in frame.index.names if one is not None and one not in frame.columns]
    frame = frame.reset_index(levels) if levels else frame
    if not frame.columns.is_unique:
        twice = str(frame.columns[frame.columns.duplicated()][0])
        fix = "give each column its own name"
        raise DataError("columns of different names in the data frame", repr(twice), fix)
    made: dict[str, pl.Series] = {}
    for name in frame.columns:
        column: Any = frame[name]
        if str(column.dtype).startswith("period"):
            column = column.dt.to_timestamp()
        try:
            made[name] = cast(pl.Series, pl.from_pandas(column))
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
            made[name] = _as_text(column.where(column.notna(), None))
        if made[name].dtype in (pl.Binary, pl.Object):  # Arrow stores a UUID as 16 bytes
            made[name] = _as_text(column.where(column.notna(), None))
    return pl.DataFrame(made)


def _as_text(values: Iterable[Any]) -> pl.Series:
    """Values of any types as text; a whole number is the same text as an integer and as a float."""
    return pl.Series(
        [
            None
            if one is None or one != one
            else str(int(one))
            if isinstance(one, float) and one.is_integer()
            else str(one)
            for one in values
        ],
        dtype=pl.String,
    )


def _must_be_file(path: Path) -> None:
    if not path.is_file():
        got = f"{path}, which is a folder" if path.is_dir() else f"{path}, which does not exist"
        raise DataError("a table in a text or Parquet file", got, "check the path")


def physical_line(path: Path) -> str:
    """The first line of a text file.

    Raises:
        DataError: there is no such file, or nothing in its first line.
    """
    _must_be_file(path)
    return _first_line(path, None)


def _first_line(path: Path, content: bytes | None, skipped: int = 0) -> str:
    with complete(path), open_bytes(path) if content is None else io.BytesIO(content) as file:
        for _ in range(skipped):
            file.readline()
        line = file.readline(LONGEST).decode("utf-8-sig", "replace").rstrip("\r\n")
    if len(line) >= LONGEST:
        got = f"a first line of more than {LONGEST:,} bytes"
        raise DataError(f"a table with lines in {path}", got, "check that the right file was given")
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
        >>> sniff("user_id;item_id;a,b,c"), sniff("user id^item id"), sniff("u1 a~b 5")
        (';', '^', ' ')
    """

    def worth(separator: str) -> tuple[int, int]:
        if separator == "::":
            names = header.split(separator)
        else:
            names = next(csv.reader([header], delimiter=separator))
        found = sum(recognise(names, role) is not None for role in ("user", "item"))
        return found, len(names)

    if HIVES in header:
        return HIVES
    usual, rare = max(SEPARATORS, key=worth), max(RARE, key=worth)
    if worth(rare)[0] > worth(usual)[0]:
        return rare
    if not any(one in header for one in SEPARATORS):
        # Blanks stand in names too, so they separate only where nothing else can.
        return " " if " " in header.strip() else rare if rare in header else usual
    return usual


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
