"""The columns of a table as typed interactions: ids, ratings and times, checked row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from modalign.data.sources._text_table import Role, SourceTable, recognise
from modalign.errors import DataError

ROLES: tuple[Role, ...] = ("user", "item", "weight", "time")
# The first format that reads the first value of a column is used for the whole column.
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
class Columns:
    """Names of the columns that carry interactions; None for one that does not exist."""

    user: str
    item: str
    weight: str | None = None
    time: str | None = None

    def used(self) -> dict[str, str]:
        """Those that exist, by role."""
        return {role: name for role, name in vars(self).items() if name is not None}


def find_columns(table: SourceTable, given: Mapping[Role, str | None]) -> Columns:
    """Columns by the names given, the others recognised by common names.

    Args:
        table: the table.
        given: name of a column by its role.

    Raises:
        DataError: a given column does not exist, or there is no column of users or of items.
    """
    names = table.names
    found: dict[str, str | None] = {}
    for role in ROLES:
        wanted = given.get(role)
        if wanted is not None and wanted not in names:
            got = table.shown()
            fix = table.hint() or f"name an existing column as {role}="
            raise DataError(f"a column {wanted!r} for the {role} in {table.name}", got, fix)
        rest = [n for n in names if n not in given.values()]
        found[role] = wanted or recognise(rest, role)
    user, item = found["user"], found["item"]
    if user is None or item is None:
        role = "user" if user is None else "item"
        expected = f"a column of {role}s (such as {role}_id) in {table.name}"
        raise DataError(expected, table.shown(), table.hint() or f"name the column: {role}=NAME")
    return Columns(user, item, found["weight"], found["time"])


def text_id(column: str, dtype: pl.DataType) -> pl.Expr:
    """Ids as text: 42, 42.0 and " 42 " are all "42"; the empty text is null.

    Args:
        column: name of the column.
        dtype: its type.
    """
    one = pl.col(column)
    if dtype.is_float():
        # pandas makes integers with a gap floats; 7.5 is kept as it is.
        whole = one.cast(pl.Int64, strict=False)
        return pl.when(whole == one).then(whole.cast(pl.String)).otherwise(one.cast(pl.String))
    text = one.cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def unique_ids(table: SourceTable, column: str, what: str) -> pl.DataFrame:
    """All rows of a table, with the ids of a column as text.

    Args:
        table: the table.
        column: the column of ids.
        what: what an id stands for, for messages: "item".

    Raises:
        DataError: a row has no id, or an id stands in several rows.
    """
    kind = table.frame.collect_schema()[column]
    rows = table.collect(table.frame.with_columns(text_id(column, kind).alias(column)))
    table.check_count(len(rows))
    without = rows[column].is_null().arg_true()
    if len(without):
        raise table.bad_cell(int(without[0]), column, f"an {what} id")
    twice = rows[column].is_duplicated().arg_true()
    if len(twice):
        first = int(twice[0])
        same = int((rows[column] == rows[column][first]).sum())
        got = f"{rows[column][first]!r} in {same} rows, the first is {table.place(first)}"
        raise DataError(f"each {what} once in {table.name}", got, f"keep one row per {what}")
    return rows


def number(column: str, dtype: pl.DataType) -> pl.Expr:
    """A finite Float64; null if the value is not one.

    Args:
        column: name of the column.
        dtype: its type.
    """
    one = pl.col(column)
    one = one.str.strip_chars() if dtype == pl.String else one
    value = one.cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def seconds(table: SourceTable, column: str) -> pl.Expr:
    """Dates, times and ISO texts as seconds since 1970, numbers as they are; otherwise null.

    Args:
        table: the table.
        column: its column of times.
    """
    dtype = table.frame.collect_schema()[column]
    if dtype.is_temporal():
        return pl.col(column).cast(pl.Datetime("us")).dt.epoch("s").cast(pl.Float64)
    if dtype != pl.String:
        return number(column, dtype)
    sample = table.collect(table.frame.select(pl.col(column).drop_nulls().head(1)))
    style = next((f for f in TIME_FORMATS if _reads(sample, f)), None)
    if style is None:
        return number(column, dtype)
    text = pl.col(column).str.strip_chars()
    if "%H" in style:
        moment = text.str.to_datetime(style, strict=False, time_unit="us")
    else:
        moment = text.str.to_date(style, strict=False).cast(pl.Datetime("us"))
    return moment.dt.epoch("s").cast(pl.Float64)


def _reads(sample: pl.DataFrame, style: str) -> bool:
    if sample.is_empty():
        return False
    text = sample.to_series().str.strip_chars()
    kind = pl.Datetime("us") if "%H" in style else pl.Date
    return text.str.strptime(kind, style, strict=False).null_count() == 0


def typed(
    table: SourceTable, columns: Columns, ticks: int | None = None, *, may_be_empty: bool = False
) -> tuple[pl.LazyFrame, list[str]]:
    """The interactions of a table: user_id, item_id (text), and weight and time if there are any.

    One streaming pass checks all rows; the frame that is returned is still lazy. Blank lines are
    left out.

    Args:
        table: the table.
        columns: which of its columns are what.
        ticks: how many units of its times make a second; None finds it from the largest time.
        may_be_empty: whether a table without rows is allowed.

    Returns:
        The lazy frame, and remarks to show (a finer unit of time, for example).

    Raises:
        DataError: there is no row, or a row lacks an id or has an unreadable number or date; the
            message names the first one.
    """
    schema = table.frame.collect_schema()
    exprs = {
        "user_id": text_id(columns.user, schema[columns.user]),
        "item_id": text_id(columns.item, schema[columns.item]),
    }
    if columns.weight is not None:
        exprs["weight"] = number(columns.weight, schema[columns.weight])
    if columns.time is not None:
        exprs["time"] = seconds(table, columns.time)
    # Without quotes all columns are parsed, so that a line with too many fields is found.
    looked_at: Sequence[str] = list(columns.used().values()) if table.quoted else table.names
    kept = ~pl.all_horizontal(pl.col(c).is_null() for c in looked_at)
    latest = exprs["time"].abs().max() if "time" in exprs else pl.lit(0.0)
    nulls = ((kept & one.is_null()).sum().alias(name) for name, one in exprs.items())
    counts = table.frame.select(
        pl.len().alias("all"), kept.sum().alias("rows"), latest.alias("latest"), *nulls
    )
    summary = table.collect(counts).row(0, named=True)
    table.check_count(summary["all"])
    if not summary["rows"] and not may_be_empty:
        got = "column names and no rows" if table.path and table.header else "no rows"
        raise DataError(f"interactions in {table.name}", got, "check that the right file was given")
    for name, expression in exprs.items():
        if summary[name]:
            raise _first_bad(table, kept & expression.is_null(), name, columns)
    remarks = list(table.remarks)
    if "time" in exprs:
        divisor, unit = ticks or 1, None
        if ticks is None:
            found = ((d, u) for least, d, u in UNITS if (summary["latest"] or 0) >= least)
            divisor, unit = next(found, (1, None))
        if unit is not None:
            remarks.append(f"times are in {unit} and were converted to seconds")
        exprs["time"] = (exprs["time"] / divisor).floor().cast(pl.Int64)
    if "weight" in exprs:
        exprs["weight"] = exprs["weight"].cast(pl.Float32)
    return table.frame.filter(kept).select(**exprs), remarks


def _first_bad(table: SourceTable, bad: pl.Expr, name: str, columns: Columns) -> DataError:
    rows = table.frame.with_row_index("__row").filter(bad).select(pl.col("__row").min())
    role = {"user_id": "user", "item_id": "item"}.get(name, name)
    wanted = {
        "user": "a user id",
        "item": "an item id",
        "weight": "a finite number",
        "time": "seconds since 1970 or an ISO date",
    }[role]
    return table.bad_cell(int(table.collect(rows).item()), columns.used()[role], wanted)
