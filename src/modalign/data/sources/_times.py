"""Moments as people write them, as seconds since 1970; the unit of numbers is found in the bulk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import polars as pl

from modalign.errors import ConfigError

TimeUnit = Literal["s", "ms", "us", "ns"]
PER_SECOND: Mapping[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
CALLED = {"ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

EARLIEST, LATEST = 86_400, 4_102_444_800
"""Seconds of the second day of 1970 and of the year 2100. A time of the first day is a missing one.
A number above the latest second is in a finer unit, so that the ranges of the units do not meet:
milliseconds begin in February 1970."""
COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_DAY = r"^(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"
_ZONE = r"\s*(?:Z|UTC|GMT|([+-]\d{2})(?::?(\d{2}))?)$"
INVISIBLE = (
    " \t\r\n\f\v\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\u200b\u200c\u200d\u2060\ufeff"
)
"""White space and characters without width, which stand around values that look empty."""


@dataclass(frozen=True)
class TimeReading:
    """How the times of a column are read.

    Attributes:
        seconds: the moment of each row, Float64; null where there is none or it is not plausible.
        remark: what to show of the choice; None if numbers are seconds or there are none.
        unit: of numbers; None if there are none.
    """

    seconds: pl.Expr
    remark: str | None = None
    unit: str | None = None


def moments(
    rows: pl.LazyFrame, column: str, unit: str | None = None, style: str | None = None
) -> TimeReading:
    """Times of a column: dates and times, ISO texts, 20191101, numbers of one of four units.

    A text may be a date (2019-11-01, 2019/11/01, 20191101), a date with a time (of minutes, seconds
    or fractions, after a T or a blank, or 20191101120000), and end in Z, UTC, GMT or an offset;
    without one it is UTC. These may be mixed. For other numbers the unit is chosen under which most
    of them lie between 1970 and 2100; those that do not are no times. Where no unit gives half of
    them such a year, they count as an order, in seconds.

    Args:
        rows: the table.
        column: name of the column.
        unit: of all numbers: s, ms, us or ns, of any size; None finds it.
        style: format of all texts, as of `strptime`, such as %d/%m/%Y %H:%M; None reads the above.

    Raises:
        ConfigError: no such unit.

    Example:
        >>> rows = pl.LazyFrame({"t": ["2019-11-01T12:00Z", "20191101", "1572566400"]})
        >>> rows.select(moments(rows, "t").seconds).collect().to_series().to_list()
        [1572609600.0, 1572566400.0, 1572566400.0]
    """
    if unit is not None and unit not in PER_SECOND:
        raise ConfigError("a unit of times", repr(unit), f"use {', '.join(get_args(TimeUnit))}")
    kind = rows.collect_schema()[column]
    if kind.is_temporal():
        return TimeReading(_epoch(pl.col(column).cast(pl.Datetime("us"))))
    if style is not None:
        text = pl.col(column).cast(pl.String).str.strip_chars(INVISIBLE)
        clock = any(one in style for one in ("%H", "%I", "%T", "%X", "%R", "%s"))
        type_: Any = pl.Datetime("us") if clock else pl.Date
        zone = "%z" in style or "%#z" in style or "%Z" in style
        moment = (
            text.str.to_datetime(style, strict=False, time_unit="us", time_zone="UTC")
            if zone
            else text.str.strptime(type_, style, strict=False)
        )
        return TimeReading(_epoch(moment.cast(pl.Datetime("us", "UTC" if zone else None))))
    written: pl.Expr = pl.lit(None, pl.Float64)
    if kind == pl.String:
        text = pl.col(column).str.strip_chars(INVISIBLE)
        value = text.cast(pl.Float64, strict=False)
        # Reading texts costs twenty times as much as reading numbers, so numbers alone skip it.
        words = (text.is_not_null() & (text != "") & value.is_null()).any()
        if rows.select(words).collect(engine="streaming").item():
            written = _iso(text)
    else:
        value = pl.col(column).cast(pl.Float64, strict=False)
    value = pl.when(value.is_finite()).then(value)
    if unit is not None:
        return TimeReading(pl.coalesce(written, value / PER_SECOND[unit]), None, unit)
    if rows.select(pl.any_horizontal(*_like_dates(value)).any()).collect(engine="streaming").item():
        written = pl.coalesce(written, _compact(value))
    number = pl.when(written.is_null()).then(value)
    inside = {
        one: number.is_between(EARLIEST if per == 1 else LATEST * per // 1000 + 1, LATEST * per)
        for one, per in PER_SECOND.items()
    }
    counted = rows.select(
        written.is_not_null().sum().alias("written"),
        number.is_not_null().sum().alias("numbers"),
        *(one.sum().alias(name) for name, one in inside.items()),
    )
    found = counted.collect(engine="streaming").row(0, named=True)
    best = max(PER_SECOND, key=lambda name: found[name])
    if not found["written"] and 2 * found[best] < found["numbers"]:
        remark = "times are not between 1970 and 2100 in any unit: they count as an order"
        return TimeReading(value, remark, "s")
    scaled = pl.when(inside[best]).then(number / PER_SECOND[best])
    note = None
    if best in CALLED and found[best]:
        note = f"times are in {CALLED[best]} and were converted to seconds"
    return TimeReading(pl.coalesce(written, scaled), note, best if found[best] else None)


def _epoch(moment: pl.Expr) -> pl.Expr:
    return moment.dt.epoch("us").cast(pl.Float64) / 1e6


def _iso(text: pl.Expr) -> pl.Expr:
    """Seconds of ISO texts, brought to one form first, so that each is parsed once."""
    hours, minutes = (text.str.extract(_ZONE, i).cast(pl.Float64) for i in (1, 2))
    away = pl.when(hours.is_null()).then(0.0).otherwise(_signed(text, hours, minutes))
    clock = r"\d{1,2}:\d{2}"
    plain = (
        pl.when(text.str.contains(clock)).then(text.str.replace(_ZONE, "")).otherwise(text)
    ).str.replace(r"\s*(?:Z|UTC|GMT)$", "")
    plain = plain.str.replace(_DAY, "$1-$2-$3").str.replace(r"[Tt ]+(\d{1,2}:)", " $1")
    plain = plain.str.replace(r"(:\d{2}),(\d+)$", "$1.$2")
    plain = (
        pl.when(plain.str.contains(r":\d{2}:\d{2}"))
        .then(plain)
        .when(plain.str.contains(clock))
        .then(plain + ":00")
        .otherwise(plain + " 00:00:00")
    )
    has_clock = text.str.contains(clock)
    moment = plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us")
    return _epoch(moment) - pl.when(has_clock).then(away).otherwise(0.0)


def _signed(text: pl.Expr, hours: pl.Expr, minutes: pl.Expr) -> pl.Expr:
    """An offset in seconds: -03:30 is less than minus three hours."""
    sign = pl.when(text.str.contains(r"-\d{2}(?::?\d{2})?$")).then(-1.0).otherwise(1.0)
    return sign * (hours.abs() * 3600 + minutes.fill_null(0) * 60)


def _like_dates(value: pl.Expr) -> list[pl.Expr]:
    """Whether a number has the size of a date, for each form of `COMPACT`."""
    return [
        value.is_between(1980 * 10 ** (digits - 4), 2100 * 10 ** (digits - 4)) for digits in COMPACT
    ]


def _compact(value: pl.Expr) -> pl.Expr:
    """Seconds of numbers that are dates written without separators."""
    whole = pl.when(value == value.floor()).then(value).cast(pl.Int64, strict=False)
    found = []
    for (digits, style), like in zip(COMPACT.items(), _like_dates(whole), strict=True):
        text = pl.when(like).then(whole).cast(pl.String)
        if digits == 8:
            moment = text.str.to_date(style, strict=False).cast(pl.Datetime("us"))
        else:
            moment = text.str.to_datetime(style, strict=False, time_unit="us")
        found.append(_epoch(moment))
    return pl.coalesce(*found)
