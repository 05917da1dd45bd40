"""Types of the columns of a text table: numbers, however they are written, dates and truth values.

Every column of a text file is read as text; here those of a catalogue get the type that all their
cells have.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, TypeAlias

import polars as pl

from modalign.data.item_text import is_named_as_text
from modalign.data.sources._text_table import SourceTable
from modalign.errors import DataError

Decimal: TypeAlias = Literal["auto", ".", ","]
"""The sign before the decimals; "auto" finds it in the cells of a column."""

MISSING = ("nan", "null", "none", "n/a", "na", "nil", "-", "[]", "<na>", "\u200b")
"""How files write a value that is missing, in lower case; so is an empty cell."""
PLAIN = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
WITH_POINT = r"^[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?$"  # 1,234.50
WITH_COMMA = (  # 1.234,50 or 1.234.567
    r"^[+-]?(?:[0-9]+|[0-9]{1,3}(?:[.'’\s][0-9]{3})+)?,[0-9]+$"
    r"|^[+-]?[0-9]{1,3}(?:\.[0-9]{3}){2,}$"
)
CODE = r"^[+-]?0[0-9]|^[+-]?[0-9]{16,}$"
"""Numbers that are no amounts: leading zeros would be lost, and so would the 17th digit."""
SIGNS = ("$", "€", "£", "¥", "₹", "₽", "₩", "zł", "kr", "USD", "EUR", "GBP", "CHF", "JPY", "%")
DATES = (
    (r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "%Y-%m-%d"),
    (r"^[0-9]{4}/[0-9]{2}/[0-9]{2}$", "%Y/%m/%d"),
)
MOMENT = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
    r"(?:Z| UTC|[+-][0-9]{2}:?[0-9]{2})?$"
)
NEARLY = 0.95
"""Share of numbers in a column of texts from which a remark names a cell that is none."""


def without_missing(column: pl.Expr) -> pl.Expr:
    """Texts without white space around them; null where a value is missing."""
    text = column.str.strip_chars()
    return pl.when((text != "") & ~text.str.to_lowercase().is_in(MISSING)).then(text)


def decimal_sign(texts: pl.Series) -> Literal[".", ","] | None:
    """The sign before the decimals of numbers; None if "1,234" could be either.

    Args:
        texts: the cells; what is no number does not count.

    Example:
        >>> decimal_sign(pl.Series(["4,5", "1.200,25"])), decimal_sign(pl.Series(["1,200.25", "3"]))
        (',', '.')
        >>> decimal_sign(pl.Series(["1,200"])) is None
        True
    """
    commas = texts.filter(texts.str.contains(",", literal=True))
    point = commas.str.contains(WITH_POINT)
    comma = commas.str.contains(WITH_COMMA)
    only_point, only_comma = int((point & ~comma).sum()), int((comma & ~point).sum())
    if only_point == only_comma:
        return None if (point & comma).any() else "."
    return "." if only_point > only_comma else ","


def with_point(column: pl.Expr, sign: str) -> pl.Expr:
    """Numbers as computers write them: "1.200,25" becomes "1200.25"; other texts are unchanged."""
    if sign == ",":
        digits = column.str.replace_all(r"[.'’\s]", "").str.replace(",", ".", literal=True)
        thousands = column.str.contains(r"^[+-]?[0-9]{1,3}(?:[.'’\s][0-9]{3})+$")
        return pl.when(thousands | column.str.contains(WITH_COMMA)).then(digits).otherwise(column)
    return (
        pl.when(column.str.contains(WITH_POINT))
        .then(column.str.replace_all(",", "", literal=True))
        .otherwise(column)
    )


def decimals(table: SourceTable, column: str | None, decimal: Decimal) -> SourceTable:
    """A text table whose numbers in a column have a decimal point.

    Args:
        table: the table.
        column: a column of numbers; None changes nothing.
        decimal: the sign before the decimals in the file.

    Raises:
        DataError: each number with a comma has three digits after it, and `decimal` is "auto".
    """
    if column is None or table.frame.collect_schema()[column] != pl.String:
        return table
    text = pl.col(column).str.strip_chars()
    sign: str | None = decimal
    if decimal == "auto":
        commas = table.collect(
            table.frame.select(text).filter(pl.col(column).str.contains(",", literal=True))
        ).to_series()
        sign = decimal_sign(commas) if len(commas) else "."
        if sign is None:
            example = commas.filter(commas.str.contains(WITH_POINT))[0]
            raise DataError(
                f"numbers in column {column!r} of {table.name} whose decimal sign is clear",
                f"{example!r}, which may be a thousand or a fraction",
                "add --decimal , for decimal commas, or --decimal . for commas between thousands",
            )
        if not len(commas):
            return table
    frame = table.frame.with_columns(with_point(text, sign or ".").alias(column))
    said = f"numbers in column {column!r} have a decimal comma"
    remarks = (*table.remarks, said) if sign == "," else table.remarks
    return replace(table, frame=frame, remarks=remarks)


def catalogue(
    rows: pl.DataFrame, keep: Collection[str], decimal: Decimal, remarks: list[str]
) -> pl.DataFrame:
    """The rows of a text table of items with numbers, dates and truth values as such.

    A column gets a type if all its cells have it; a missing value is null. Columns with names of
    texts (title, category, brand, ...) stay text, and so do numbers with leading zeros or more than
    15 digits, which are codes.

    Args:
        rows: the cells, of type text.
        keep: names of columns that stay as they are.
        decimal: the sign before the decimals.
        remarks: gets notes on columns of which nearly all cells are numbers.

    Example:
        >>> rows = pl.DataFrame({"price": ["3.5", "NaN"], "code": ["007", "1"], "on": ["true", ""]})
        >>> catalogue(rows, (), "auto", []).rows()
        [(3.5, '007', True), (None, '1', None)]
    """
    made = []
    for name, kind in rows.schema.items():
        if kind != pl.String or name in keep or is_named_as_text(name):
            continue
        cells = rows.select(without_missing(pl.col(name))).to_series()
        typed = _typed(cells, decimal)
        if typed is not None:
            made.append(typed.alias(name))
        elif remark := _nearly(cells, decimal):
            remarks.append(f"column {name!r} is text, not numbers: {remark}")
    return rows.with_columns(made)


def _typed(cells: pl.Series, decimal: Decimal) -> pl.Series | None:
    """The cells of a column in the type that all of them have; None if that is text."""
    known = cells.drop_nulls()
    if not len(known):
        return None
    if known.str.to_lowercase().is_in(["true", "false"]).all():
        return cells.str.to_lowercase() == "true"
    style = next((one for pattern, one in DATES if known.str.contains(pattern).all()), None)
    if style is not None:
        made = cells.str.to_date(style, strict=False)
    elif known.str.contains(MOMENT).all():
        made = _moments(cells)
    else:
        return _numbers(cells, known, decimal)
    # A 31st of February is no date, and then the column is none of dates.
    return made if made.null_count() == cells.null_count() else None


def _numbers(cells: pl.Series, known: pl.Series, decimal: Decimal) -> pl.Series | None:
    sign = next((one for one in SIGNS if one in known[0]), None)
    if sign is not None and known.str.contains(sign, literal=True).all():
        cells, known = (
            one.str.replace(sign, "", literal=True).str.strip_chars() for one in (cells, known)
        )
    if (known.str.contains(CODE) & ~known.str.contains("[.,]")).any():
        return None
    mark = decimal_sign(known) if decimal == "auto" else decimal
    if mark is None:
        return None
    plain = cells.to_frame().select(with_point(pl.first(), mark)).to_series()
    if not plain.drop_nulls().str.contains(PLAIN).all():
        return None
    whole = not plain.str.contains(r"[.eE]").any()
    numbers = plain.cast(pl.Int64 if whole else pl.Float64, strict=False)
    return numbers if bool(numbers.drop_nulls().cast(pl.Float64).is_finite().all()) else None


def _moments(cells: pl.Series) -> pl.Series:
    """ISO texts of date and time, in UTC; null where there is none."""
    text = cells.str.replace("T", " ", literal=True).str.replace(r"(?:Z| UTC)$", "+00:00")
    text = text.str.replace(r"^(\S+ \d{2}:\d{2})($|[+-])", "${1}:00${2}")
    text = text.str.replace(r"^(\S+ [\d:.]+)$", "${1}+00:00")
    moments = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", strict=False, time_unit="us")
    return moments.dt.replace_time_zone(None)


def _nearly(cells: pl.Series, decimal: Decimal) -> str | None:
    """Why a column of texts that nearly all are numbers is not one of numbers."""
    known = cells.drop_nulls()
    numbers = known.str.contains(f"{PLAIN}|{WITH_POINT}|{WITH_COMMA}")
    codes = (known.str.contains(CODE) & ~known.str.contains("[.,]")).any()
    n = int(numbers.sum())
    if codes or not len(known) or n < NEARLY * len(known):
        return None
    if n == len(known):
        example = known.filter(known.str.contains(",", literal=True)).head(1).to_list() or ["?"]
        return f"{example[0]!r} may be a thousand or a fraction; add --decimal , or --decimal ."
    odd = known.filter(~numbers)[0]
    return f"{len(known) - n:,} of {len(known):,} cells are none, such as {odd[:40]!r}"
