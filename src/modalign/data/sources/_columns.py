"""The columns of a table as typed interactions: ids, ratings and times, checked row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

import polars as pl

from modalign.data.sources._text_table import Role, SourceTable, plain, recognise
from modalign.data.sources._times import EARLIEST, INVISIBLE, LATEST, moments
from modalign.errors import DataError

ROLES: tuple[Role, ...] = ("user", "item", "weight", "time")
MISSING = ("nan", "null", "none", "[]", "<na>", "nat")
"""How programs write a value that is not there, in lower case."""
QUANTITIES = ("quantity", "qty", "units", "amount")
"""Names of ratings that are numbers of pieces: zero or less is a return."""
TIME_WORDS = ("time", "date", "stamp", "epoch", "created", "when", "day", "ts", "dt", "dat")
LOOKED_AT = 1000
"""Rows that show whether a column holds times."""
TIMES = 0.99
"""Share of them that must be times."""
LIST = r"^\s*\[.*\]\s*$"
RULER = r"^[-=+:]{3,}$"
"""What separates the names of columns from the rows in tables that are drawn."""
SHOWN = 10
"""Bad rows that a message lists."""
Returns = Literal["drop", "keep"]


@dataclass(frozen=True)
class RowRules:
    """How the rows of a table are read.

    Attributes:
        time_unit: of numbers that are times; None finds it.
        time_format: of texts that are times; None reads ISO dates and times.
        skip_bad: leave out rows without an id or with an unreadable value, instead of refusing
            the table.
        returns: what happens to rows whose quantity is zero or less.
    """

    time_unit: str | None = None
    time_format: str | None = None
    skip_bad: bool = False
    returns: Returns = "drop"


@dataclass(frozen=True)
class TypedRows:
    """The interactions of a table.

    Attributes:
        frame: user_id and item_id (text), and weight and time if there are any.
        remarks: what was found and done, to show.
        bad: rows that were left out: line, reason and the columns that were read; None if all
            were read.
        time_unit: in which numbers were read as times; None if there were none.
    """

    frame: pl.LazyFrame
    remarks: list[str]
    bad: pl.DataFrame | None = None
    time_unit: str | None = None


@dataclass(frozen=True)
class Columns:
    """Names of the columns that carry interactions; None for one that does not exist.

    Attributes:
        user, item, weight, time: the names.
        like_times: where there is no column of times, those that look like one.
    """

    user: str
    item: str
    weight: str | None = None
    time: str | None = None
    like_times: tuple[str, ...] = ()

    def used(self) -> dict[str, str]:
        """Those that exist, by role."""
        found = {role: getattr(self, role) for role in ROLES}
        return {role: name for role, name in found.items() if name is not None}

    def described(self, names: Sequence[str]) -> dict[str, Any]:
        """What became of the columns of a table, for its provenance.

        Args:
            names: of all columns.
        """
        used = self.used()
        return {
            "columns": used,
            "not_used": [name for name in names if name not in used.values()],
            "like_times": list(self.like_times),
        }


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
            close = get_close_matches(wanted, names, n=1, cutoff=0.5)
            meant = f"did you mean {close[0]!r}?" if close else _named(role)
            fix = table.hint() or meant
            raise DataError(f"a column {wanted!r} for the {role} in {table.name}", got, fix)
        rest = [n for n in names if n not in given.values()]
        found[role] = wanted or recognise(rest, role)
        if (column := found[role]) is not None:
            _check_values(table, column, ids=role in ("user", "item"))
    user, item = found["user"], found["item"]
    if user is None or item is None:
        role = "user" if user is None else "item"
        expected = f"a column of {role}s (such as {role}_id) in {table.name}"
        raise DataError(expected, table.shown(), table.hint() or _named(role))
    columns = Columns(user, item, found["weight"], found["time"])
    if columns.time is not None:
        return columns
    others = [one for one in names if one not in columns.used().values()]
    like = tuple(one for one in others if _holds_times(table, one))
    return replace(columns, time=like[0]) if len(like) == 1 else replace(columns, like_times=like)


def _named(role: Role) -> str:
    return f"name the column with --{role} NAME; in Python {role}=NAME"


def _check_values(table: SourceTable, column: str, ids: bool) -> None:
    """Refuse a column whose name stands twice, or that holds lists or objects.

    Args:
        table: the table.
        column: a column of it.
        ids: whether texts such as "[1, 2]" are refused, too.

    Raises:
        DataError: it does.
    """
    table.once(column)
    kind = table.frame.collect_schema()[column]
    got = f"values of type {kind}" if kind.is_nested() else ""
    if column in table.lists:
        got = "lists"
    elif ids and kind == pl.String:
        texts = table.collect(table.frame.select(column).head(LOOKED_AT))[column].drop_nulls()
        if len(texts) and texts.str.contains(LIST).all() and texts.str.contains(",").any():
            got = f"lists such as {texts[0][:40]!r}"
    if got:
        expected = f"one text or number in each row of column {column!r} of {table.name}"
        raise DataError(expected, got, "write a row for each value, such as with pandas' explode")


def _holds_times(table: SourceTable, column: str) -> bool:
    """Whether nearly all of the first rows are times: dates, or numbers under such a name."""
    kind = table.frame.collect_schema()[column]
    if not (kind.is_temporal() or kind.is_numeric() or kind == pl.String) or kind == pl.Time:
        return False
    sample = table.collect(table.frame.select(column).head(LOOKED_AT))
    if kind == pl.String:
        numbers = sample[column].str.strip_chars(INVISIBLE).cast(pl.Float64, strict=False)
    else:
        numbers = sample[column] if kind.is_numeric() else pl.Series([None])
    named = any(word in plain(column) for word in TIME_WORDS)
    if not len(sample) or (numbers.is_not_null().any() and not named):
        return False
    reading = moments(sample.lazy(), column)
    found = sample.select(reading.seconds.is_between(EARLIEST, LATEST).fill_null(value=False))
    return int(found.to_series().sum()) >= TIMES * len(sample)


def text_id(column: str, dtype: pl.DataType) -> pl.Expr:
    """Ids as text: 42, 42.0 (also as a decimal) and " 42 " are all "42"; the empty text is null.

    Args:
        column: name of the column.
        dtype: its type.
    """
    one = pl.col(column)
    if dtype.is_float():
        # pandas makes integers with a gap floats; 7.5 is kept as it is.
        whole = one.cast(pl.Int64, strict=False)
        text = pl.when(whole == one).then(whole.cast(pl.String)).otherwise(one.cast(pl.String))
        return pl.when(one.is_not_nan()).then(text)
    if dtype.is_decimal():
        return one.cast(pl.String).str.replace(r"\.0+$", "")
    return some_text(one.cast(pl.String))


def some_text(text: pl.Expr) -> pl.Expr:
    r"""Text without white space around it; null where it says that nothing is there.

    Example:
        >>> frame = pl.DataFrame({"t": [" a ", "NULL", "\u200b", "[]", "nan", "None of it"]})
        >>> frame.select(some_text(pl.col("t"))).to_series().to_list()
        ['a', None, None, None, None, 'None of it']
    """
    text = text.str.strip_chars(INVISIBLE)
    return pl.when(~text.str.to_lowercase().is_in(["", *MISSING])).then(text)


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


def typed(
    table: SourceTable,
    columns: Columns,
    rules: RowRules = RowRules(),
    *,
    also: Sequence[str] = (),
    may_be_empty: bool = False,
) -> TypedRows:
    """The interactions of a table: user_id, item_id (text), and weight and time if there are any.

    One streaming pass checks all rows; the frame that is returned is still lazy. Blank lines are
    left out.

    Args:
        table: the table.
        columns: which of its columns are what.
        rules: how its rows are read.
        also: names of further columns that are kept as they are.
        may_be_empty: whether a table without rows is allowed.

    Raises:
        DataError: there is no row, or rows lack an id or have an unreadable number or time; the
            message lists the first ones.
    """
    schema = table.frame.collect_schema()
    no_ids = _names_or_rulers(columns, schema)
    exprs = {
        "user_id": pl.when(~no_ids).then(text_id(columns.user, schema[columns.user])),
        "item_id": text_id(columns.item, schema[columns.item]),
    }
    remarks = list(table.remarks)
    if columns.weight is not None:
        exprs["weight"] = number(columns.weight, schema[columns.weight])
    unit = None
    if columns.time is not None:
        reading = moments(table.frame, columns.time, rules.time_unit, rules.time_format)
        exprs["time"], unit = reading.seconds, reading.unit
        if reading.remark:
            remarks.append(reading.remark)
    if columns.like_times:
        remarks.append(f"no column of times; these look like one: {', '.join(columns.like_times)}")
    # All columns of a text are parsed, so that a line with too many fields is found.
    looked_at: Sequence[str] = list(columns.used().values()) if table.path is None else table.names
    kept = ~pl.all_horizontal(pl.col(c).is_null() for c in looked_at)
    wrong = {name: kept & one.is_null() for name, one in exprs.items()}
    bad = pl.any_horizontal(*wrong.values())
    counts = table.frame.select(
        pl.len().alias("all"),
        kept.sum().alias("rows"),
        bad.sum().alias("bad"),
        _returned(exprs, columns, rules).sum().alias("returned"),
        *(one.sum().alias(name) for name, one in wrong.items()),
    )
    summary = table.collect(counts).row(0, named=True)
    table.check_count(summary["all"])
    if not summary["rows"] and not may_be_empty:
        got = "column names and no rows" if table.path and table.header else "no rows"
        raise DataError(f"interactions in {table.name}", got, "check that the right file was given")
    left_out = None
    if summary["bad"]:
        if not rules.skip_bad or summary["bad"] == summary["rows"]:
            raise _refused(table, wrong, columns, summary)
        left_out = _left_out(table, wrong, columns)
        remarks.append(
            f"{summary['bad']:,} of {summary['rows']:,} rows were left out: "
            f"{_by_reason(summary, columns)}"
        )
        kept &= ~bad
    if table.odd:
        left_out = _with_odd(table, left_out, columns)
        lines = "lines" if len(table.odd) > 1 else "line"
        remarks.append(f"{len(table.odd):,} {lines} with more fields than the first: left out")
    if n := summary["returned"]:
        remarks.append(
            f"{n:,} {'returns were' if n > 1 else 'return was'} left out ({columns.weight} of zero "
            "or less); --returns keep keeps them"
        )
        kept &= ~_returned(exprs, columns, rules).fill_null(value=False)
    if "time" in exprs:
        exprs["time"] = exprs["time"].floor().cast(pl.Int64)
    if "weight" in exprs:
        exprs["weight"] = exprs["weight"].cast(pl.Float32)
    rows = table.frame.filter(kept).select(*also, **exprs)
    return TypedRows(rows, remarks, left_out, unit)


def _names_or_rulers(columns: Columns, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """Rows that repeat the names of the columns, as joined files have them, or draw a line."""
    pair = (columns.user, columns.item)
    if any(schema[name] != pl.String for name in pair):
        return pl.lit(value=False)
    user, item = (pl.col(name).str.strip_chars(INVISIBLE) for name in pair)
    names = (user == columns.user.strip(INVISIBLE)) & (item == columns.item.strip(INVISIBLE))
    return (names | (user.str.contains(RULER) & item.str.contains(RULER))).fill_null(value=False)


def _returned(exprs: Mapping[str, pl.Expr], columns: Columns, rules: RowRules) -> pl.Expr:
    quantity = columns.weight is not None and plain(columns.weight) in QUANTITIES
    if not quantity or rules.returns == "keep":
        return pl.lit(value=False)
    return exprs["weight"] <= 0


WANTED = {
    "user_id": "a user id",
    "item_id": "an item id",
    "weight": "a finite number",
    "time": "a time: seconds since 1970 or an ISO date",
}


def _column_of(name: str, columns: Columns) -> str:
    return columns.used()[name.removesuffix("_id")]


def _by_reason(summary: Mapping[str, int], columns: Columns) -> str:
    return ", ".join(
        f"{summary[name]:,} without {wanted} in column {_column_of(name, columns)!r}"
        for name, wanted in WANTED.items()
        if summary.get(name)
    )


def _reason(wrong: Mapping[str, pl.Expr]) -> pl.Expr:
    """The name of the first thing that is wrong with a row."""
    return pl.coalesce(pl.when(one).then(pl.lit(name)) for name, one in wrong.items())


def _refused(
    table: SourceTable,
    wrong: Mapping[str, pl.Expr],
    columns: Columns,
    summary: Mapping[str, int],
) -> DataError:
    """The error for bad rows: the one cell, or the counts by reason and the first rows."""
    read = list(dict.fromkeys(columns.used().values()))
    rows = table.frame.with_row_index("__row").with_columns(__reason=_reason(wrong))
    first = table.collect(
        rows.filter(pl.col("__reason").is_not_null()).select("__row", "__reason", *read).head(SHOWN)
    )
    if summary["bad"] == 1:
        row, name = first["__row"][0], first["__reason"][0]
        one = table.bad_cell(int(row), _column_of(name, columns), WANTED[name])
        return DataError(one.expected, one.got, _remedy("this row", "it", summary))
    places = table.places(first["__row"].to_list())
    listed = []
    for place, row in zip(places, first.iter_rows(named=True), strict=True):
        column = _column_of(row["__reason"], columns)
        value = row[column]
        empty = value is None or not str(value).strip(INVISIBLE)
        cell = "nothing" if empty else repr(str(value)[:40])
        listed.append(f"  {place}: {cell} in column {column!r}")
    if summary["bad"] > len(listed):
        listed.append(f"  and {summary['bad'] - len(listed):,} more")
    expected = f"an id of user and item and readable values in every row of {table.name}"
    got = f"{summary['bad']:,} bad rows of {summary['rows']:,}: {_by_reason(summary, columns)}"
    return DataError(expected, "\n".join([got, *listed]), _remedy("these rows", "them", summary))


def _remedy(rows: str, them: str, summary: Mapping[str, int]) -> str:
    fix = f"correct {rows}, or leave {them} out with --skip-bad"
    if summary.get("time"):
        fix += "; for times of another form give --time-format or --time-unit"
    return fix


def _with_odd(table: SourceTable, left_out: pl.DataFrame | None, columns: Columns) -> pl.DataFrame:
    """The rows that were left out, with those that have too many fields."""
    width = len(table.names)
    found = pl.DataFrame(
        {
            "record": [row + 1 for row, _ in table.odd],
            "reason": [f"{fields} fields instead of {width}" for _, fields in table.odd],
            "file": table.name,
        },
        schema_overrides={"record": pl.UInt32},
    )
    if left_out is None:
        read = dict.fromkeys(columns.used().values())
        empty = [pl.lit(None, pl.String).alias(name) for name in read]
        return found.select("record", "reason", *empty, "file")
    return pl.concat([left_out, found], how="diagonal_relaxed").sort("record")


def _left_out(table: SourceTable, wrong: Mapping[str, pl.Expr], columns: Columns) -> pl.DataFrame:
    read = list(dict.fromkeys(columns.used().values()))
    reasons = {name: f"not {wanted}" for name, wanted in WANTED.items()}
    rows = table.frame.with_row_index("record", 1).with_columns(reason=_reason(wrong))
    found = table.collect(
        rows.filter(pl.col("reason").is_not_null()).select(
            "record", pl.col("reason").replace_strict(reasons), *read
        )
    )
    return found.with_columns(pl.lit(table.name).alias("file"))
