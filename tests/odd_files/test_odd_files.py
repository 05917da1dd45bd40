"""What each small odd file of this folder must give: rows, items, remarks, or an error.

`ODD` is the table. To add a file, put it here and add a line that says what it is an example of and
what it must give; the last test holds that every file has a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from modalign.data import sources
from modalign.errors import InputError

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Odd:
    """A file, what it stands for, and what it must give.

    Attributes:
        file: name of a file or folder here.
        what: what it is an example of.
        kind: the kind of source that reads it.
        options: of the source; a name of a file here is given as its path in `paths`.
        paths: options whose values are files or folders here.
        rows: the interactions, in the order of the file: user, item and, if there are any,
            weight and time.
        items: columns of the items, by name.
        remarks: each must stand in some remark.
        error: all must stand in the error; then there are no rows.
    """

    file: str
    what: str
    kind: str = "table"
    options: Mapping[str, Any] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[tuple[Any, ...]] | None = None
    items: Mapping[str, Sequence[Any]] | None = None
    remarks: Sequence[str] = ()
    error: Sequence[str] = ()


ODD = (
    Odd(
        "stray_quotes.csv",
        "inch marks and quoted words inside titles; no row may vanish",
        rows=[
            ("u1", "a", 5, 1600000000),
            ("u1", "b", 4, 1600000001),
            ("u2", "a", 3, 1600000002),
            ("u2", "c", 2, 1600000003),
            ("u3", "b", 1, 1600000004),
        ],
        remarks=["4 fields of stray_quotes.csv with quotes that do not pair up"],
    ),
    Odd(
        "stray_quotes.csv",
        "the same where quotes must pair up",
        options={"quote": "double"},
        error=["line 2"],
    ),
    Odd(
        "open_quote.csv",
        "a quote that opens a number and never closes",
        error=["rating", "line 4"],
    ),
    Odd(
        "line_breaks.csv",
        "line breaks, separators and doubled quotes inside quotes",
        rows=[("u1", "a"), ("u1", "b"), ("u2", "a")],
    ),
    Odd(
        "no_header_colons.dat",
        "fields between :: and no line of names",
        options={"header": False, "columns": "user,item,rating,time"},
        rows=[("u1", "a", 5, 1600000000), ("u2", "b", 3, 1600000001)],
    ),
    Odd("sep_line.csv", "a spreadsheet's sep= line", rows=[("u1", "a", 5), ("u2", "b", 3)]),
    Odd("utf16.csv", "UTF-16 with its mark", rows=[("u1", "a"), ("u2", "b")]),
    Odd("latin1.csv", "an old encoding, not named", error=["line 2", "--encoding cp1252"]),
    Odd(
        "latin1.csv",
        "an old encoding, named",
        options={"encoding": "cp1252"},
        rows=[("u1", "café"), ("u2", "b")],
    ),
    Odd("lines.jsonl", "JSON lines", rows=[("u1", "7", 4.5), ("u2", "8", 3)]),
    Odd(
        "stock_orders.csv",
        "a catalogue of a spreadsheet: types, decimal commas, currency signs, codes with zeros",
        paths={"items": "catalogue.tsv"},
        rows=[("b1", "0010"), ("b1", "0011"), ("b2", "0012")],
        items={
            "item_id": ["0010", "0011", "0012"],
            "title": ['12" vinyl', "1984", '"weird al" yankovic'],
            "Price": [19.99, 1250.0, None],
            "In stock": [True, False, None],
            "Weight kg": [0.5, 1.0, None],
            "released": [date(2020, 1, 2), date(2021, 3, 4), None],
            "seen_at": [datetime(2020, 1, 2, 8), datetime(2020, 1, 2, 9, 30), None],
            "ean": ["0012345678905", "0012345678912", "0012345678929"],
            "category": ["101", "102", "101"],
            "rating_note": ["good", "5", "4"],
        },
    ),
    Odd(
        "lastfm",
        "RecBole's files with artists as items",
        kind="recbole",
        rows=[("u1", "a1", 130), ("u1", "a2", 2), ("u2", "a1", 7)],
        items={"item_id": ["a1", "a2"], "title": ["The Band", '"weird al" yankovic']},
    ),
    Odd(
        "steam",
        "RecBole's files with products as items, which are called id among the items",
        kind="recbole",
        rows=[("u1", "440", 1500000000), ("u2", "570", 1500000001)],
        items={"item_id": ["440", "570"], "title": ["Fortress", "Defence"], "price": [0, 9.99]},
    ),
    Odd(
        "steam",
        "the same with a column of items that is not there",
        kind="recbole",
        options={"item": "app"},
        error=["app:token", "product_id:token", "--item"],
    ),
    Odd(
        "amazon_2023",
        "the official parts of a category of 2023; features and details, no description",
        kind="amazon",
        rows=[
            ("AU1", "B000000001", 5, 1588615855, "train"),
            ("AU1", "B000000002", 4, 1588615856, "train"),
            ("AU2", "B000000001", 3, 1588615857, "train"),
            ("AU1", "B000000003", 2, 1588615858, "valid"),
            ("AU1", "B000000004", 1, 1588615859, "test"),
        ],
        items={
            "title": ["Red car & garage", "Doll", "Kite", None],
            "description": [None, "Soft.", None, None],
            "features": ["Rolls far. For ages <b>3</b> and up.", None, None, None],
            "details": ["Color: Red; Material: Wood", "Style: Classic", None, None],
            "price": [12.99, None, 9.5, None],
        },
        remarks=["1 of 4 items are not in meta_Toys.jsonl"],
    ),
    Odd(
        "decimal_comma.csv",
        "decimal commas and points between thousands",
        rows=[("u1", "a", 4.5), ("u1", "b", 3), ("u2", "a", 1000.25)],
        remarks=["'rating' have a decimal comma"],
    ),
    Odd(
        "thousand_or_fraction.csv",
        "a comma that may stand between thousands or before decimals",
        error=["'1,234'", "--decimal"],
    ),
    Odd(
        "thousand_or_fraction.csv",
        "the same, with the sign before decimals named",
        options={"decimal": ","},
        rows=[("u1", "a", 3), ("u1", "b", pytest.approx(1.234))],
    ),
    Odd(
        "thousand_or_fraction.csv",
        "the same, with the other sign",
        options={"decimal": "."},
        rows=[("u1", "a", 3), ("u1", "b", 1234)],
    ),
    Odd(
        "nested.jsonl",
        "objects within objects, and a list that is no id",
        rows=[("u1", "a"), ("u2", "b")],
    ),
    Odd("bom.jsonl", "JSON lines with the mark of UTF-8", rows=[("u1", "a", 5), ("u2", "b", 3)]),
    Odd(
        "not_a_number.jsonl",
        "NaN, which is Python's and no JSON",
        error=["'rating'", "nan in row 1"],
    ),
    Odd(
        "not_a_number.jsonl",
        "the same, with bad rows left out; there is no other",
        options={"skip_bad": True},
        error=["'rating'", "nan in row 1"],
    ),
    Odd("without_user.jsonl", "a null for a user", error=["user id", "row 2 of"]),
    Odd(
        "without_user.jsonl",
        "the same, left out",
        options={"skip_bad": True},
        rows=[("1", "2"), ("4", "5")],
        remarks=["1 of 3 rows were left out"],
    ),
    Odd("objects.txt", "JSON lines under another name", rows=[("u1", "a", 5), ("u2", "b", 3)]),
    Odd("packed.jsonl.bz2", "JSON lines, compressed", rows=[("u1", "a", 5), ("u2", "b", 3)]),
    Odd(
        "columns.json",
        "one object with a list for each column",
        error=["one object with user_id, item_id", "orient='records'"],
    ),
    Odd(
        "packed.csv.zst",
        "zstd",
        rows=[("u1", "a", 5, 1600000000), ("u2", "b", 3, 1600000001)],
    ),
    Odd(
        "parquet.dat",
        "Parquet under another name",
        rows=[("u1", "a", 5, 1600000000), ("u2", "b", 3, 1600000001)],
    ),
    Odd("page.csv", "an error page in place of the file", error=["a web page", "download"]),
    Odd("pointer.csv", "a pointer of Git LFS", error=["Git LFS", "download the file itself"]),
    Odd("archive.csv.gz", "a compressed tar archive", error=["a tar archive", "unpack"]),
    Odd("two.zip", "an archive of two files", error=["2: a.csv, b.csv", "unpack"]),
    Odd("sheet.ods", "a spreadsheet's own file", error=["a workbook", "as CSV"]),
    Odd("cut.csv.bz2", "a download that broke off", error=["a complete bz2 file", "again"]),
    Odd(
        "carriage_returns.csv",
        "lines that end in carriage returns alone",
        rows=[("u1", "a", 5, 1600000000), ("u2", "b", 3, 1600000001)],
    ),
    Odd(
        "utf16_without_mark.csv",
        "UTF-16 that does not say so",
        error=["zero in line 1", "--encoding utf-16-le"],
    ),
    Odd(
        "utf16_without_mark.csv",
        "the same, named",
        options={"encoding": "utf-16-le"},
        rows=[("u1", "a", 5, 1600000000), ("u2", "b", 3, 1600000001)],
    ),
    Odd(
        "utf32.csv",
        "UTF-32 with its mark",
        rows=[("u1", "a", 5, 1600000000), ("u2", "b", 3, 1600000001)],
    ),
    Odd("name_twice.csv", "two columns of one name", error=["'item_id' in several"]),
    Odd(
        "lists.csv",
        "a list of items in each row",
        error=["column 'item_id'", "'[1, 2, 3]'", "a row for each value"],
    ),
    Odd(
        "postgres_times.csv",
        "times of a database's dump, whose offsets are hours alone",
        rows=[("u1", "a", 1572609600), ("u2", "b", 1572638400), ("u3", "c", 1572566400)],
    ),
    Odd(
        "one_bad_time.csv",
        "one time of another form",
        error=["'Fri, 01 Nov 2019'", "line 3", "--skip-bad", "--time-format"],
    ),
    Odd(
        "unquoted_comma.csv",
        "a comma inside a title without quotes, so that the next field would be the item",
        error=["3 fields in every line", "4 fields in line 3"],
    ),
    Odd(
        "repeated_names.csv",
        "files that were joined with their names",
        error=["'user_id' in line 3", "--skip-bad"],
    ),
    Odd(
        "repeated_names.csv",
        "the same, left out",
        options={"skip_bad": True},
        rows=[("u1", "a"), ("u2", "b")],
        remarks=["1 of 3 rows were left out"],
    ),
    Odd(
        "repeated_names.csv",
        "names given for a file that has them",
        options={"header": False, "columns": "user_id,item_id", "skip_bad": True},
        rows=[("u1", "a"), ("u2", "b")],
        remarks=["2 of 4 rows were left out"],
    ),
    Odd("drawn_table.txt", "a table drawn with bars", error=["'---' in line 2"]),
    Odd(
        "drawn_table.txt",
        "the same, without the line below the names",
        options={"skip_bad": True},
        rows=[("u1", "a"), ("u2", "b")],
    ),
    Odd("hive.txt", "the separator of Hive", rows=[("u1", "a, b", 5), ("u2", "c", 3)]),
    Odd(
        "hive.txt",
        "the same, named as a command line can",
        options={"separator": "\\001"},
        rows=[("u1", "a, b", 5), ("u2", "c", 3)],
    ),
    Odd(
        "whole_lines_quoted.csv",
        "quotes around whole lines",
        error=["remove the quotes around whole lines"],
    ),
    Odd(
        "sep_line.csv",
        "UTF-8 with another encoding named",
        options={"encoding": "utf-16"},
        error=["leave out --encoding"],
    ),
    Odd("comment.csv", "a comment above the names", error=["remove the comment"]),
    Odd(
        "aligned.txt",
        "columns aligned with blanks",
        rows=[("u1", "a", 5), ("u2", "b", 3)],
    ),
    Odd(
        "no_header_colons.dat",
        "a name that stands twice among those given",
        options={"header": False, "columns": "user,item,item,time"},
        error=["each name once", "user, item, item, time"],
    ),
)


@pytest.mark.parametrize("odd", ODD, ids=lambda one: f"{one.file}: {one.what}")
def test_each_odd_file_gives_what_the_table_says(odd):
    options = {**odd.options, **{name: HERE / file for name, file in odd.paths.items()}}
    if odd.error:
        with pytest.raises(InputError) as caught:
            sources.read(odd.kind, HERE / odd.file, **options).interactions.collect()
        missing = [part for part in odd.error if part not in str(caught.value)]
        assert not missing, str(caught.value)
        return
    raw = sources.read(odd.kind, HERE / odd.file, **options)
    if odd.rows is not None:
        assert raw.interactions.collect().rows() == list(odd.rows)
    if odd.items is not None:
        assert raw.items is not None
        assert {name: raw.items[name].to_list() for name in odd.items} == {
            name: list(values) for name, values in odd.items.items()
        }
    remarks = raw.info["remarks"]
    assert all(any(part in one for one in remarks) for part in odd.remarks), remarks


def test_every_file_here_stands_in_the_table():
    files = {one.name for one in HERE.iterdir() if not one.name.startswith(("test_", "__", "."))}
    named = {file.split("/")[0] for odd in ODD for file in (odd.file, *odd.paths.values())}
    assert files == named
