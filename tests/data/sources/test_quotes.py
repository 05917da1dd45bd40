"""Records of a text table are neither lost nor joined, whatever its quotes look like."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from modalign.data.sources import _quotes
from modalign.data.sources._text_table import open_table
from modalign.data.sources.flat_table import read
from modalign.errors import DataError

PIECES = (
    '"',
    '""',
    ",",
    ";",
    "\n",
    "\r\n",
    " ",
    "\t",
    "a",
    "7",
    "é",
    "漢",
    "\u2028",
    "'",
    "x y",
    "",
)


def rows_of(path: Path, **options) -> list[tuple[str, ...]]:
    table = open_table(path, **options)
    found = table.collect()
    table.check_count(len(found))
    return [tuple(cell or "" for cell in row) for row in found.rows()]


def by_rule(text: str, separator: str) -> list[list[str]]:
    """The rule, one character at a time: a quote opens only first, and closes only last."""
    rows, row, at = [], [], 0
    ends = (separator, "\r", "\n")
    while at < len(text) or row:
        stop, value = at, None
        if text[at : at + 1] == '"':
            scan, made = at + 1, ""
            while scan < len(text):
                if text[scan] != '"':
                    made += text[scan]
                    scan += 1
                elif text[scan + 1 : scan + 2] == '"':
                    made += '"'
                    scan += 2
                else:
                    break
            if scan < len(text) and (scan + 1 == len(text) or text[scan + 1] in ends):
                stop, value = scan + 1, made
        if value is None:
            while stop < len(text) and text[stop] not in ends:
                stop += 1
            value = text[at:stop]
        row.append(value)
        at = stop
        if text[at : at + 1] == separator:
            at += 1
            continue
        rows.append(row)
        row = []
        at += 2 if text[at : at + 2] == "\r\n" else 1
    return rows


@pytest.mark.parametrize("terminator", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.slow
def test_what_csv_writes_is_read_as_csv_reads_it(terminator, separator, tmp_path):
    rng = random.Random(f"{terminator}{separator}")
    path = tmp_path / "table.csv"
    for _ in range(1700):
        width, n = rng.randint(2, 4), rng.randint(1, 6)
        rows = [
            ["".join(rng.choices(PIECES, k=rng.randint(0, 5))) for _ in range(width)]
            for _ in range(n)
        ]
        text = io.StringIO(newline="")
        quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
        if terminator == "\n":
            rows = [[cell.replace("\r", "") for cell in row] for row in rows]
        writer = csv.writer(text, delimiter=separator, lineterminator=terminator, quoting=quoting)
        writer.writerows([[f"c{i}" for i in range(width)], *rows])
        path.write_bytes(text.getvalue().encode())
        wanted = list(csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=separator))
        assert wanted[1:] == rows
        assert rows_of(path, separator=separator) == [tuple(row) for row in rows], text.getvalue()
        assert rows_of(path, separator=separator, quote="double") == [tuple(row) for row in rows]


@pytest.mark.slow
def test_stray_quotes_lose_no_row(tmp_path):
    """Any text at all: the rows of the rule, or an error about a line's number of fields."""
    rng = random.Random(7)
    path = tmp_path / "table.csv"
    pieces = [piece for piece in PIECES if "\n" not in piece]
    read_, refused = 0, []
    for _ in range(5000):
        lines = []
        for _ in range(rng.randint(1, 6)):
            cells = ["".join(rng.choices(pieces, k=rng.randint(0, 4))) for _ in range(3)]
            lines.append(";".join(cell.replace(";", "") for cell in cells))
        text = "\n".join(["a;b;c", *lines]) + rng.choice(["", "\n"])
        path.write_bytes(text.encode())
        wanted = by_rule(text, ";")[1:]
        try:
            found = rows_of(path, separator=";")
        except DataError as caught:
            refused.append((caught, text, wanted))
            continue
        read_ += 1
        padded = [tuple([*row, "", ""][:3]) if row != [""] else ("", "", "") for row in wanted]
        assert found == padded, text
    assert read_ > 4000
    for caught, text, wanted in refused:
        assert any(len(row) > 3 for row in wanted), (text, str(caught))
        assert "line" in str(caught)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
def test_blocks_of_any_size_find_the_same(size):
    rng = random.Random(3)
    for _ in range(300):
        text = "".join(rng.choices(['"', '""', ",", "\n", "a", "\r\n"], k=rng.randint(0, 14)))
        one = _quotes.look(io.BytesIO(text.encode()), b",")
        assert _quotes.look(io.BytesIO(text.encode()), b",", size) == one, text
        if one.stray is None:
            assert one.records == len(by_rule(text, ",")), text


def test_two_inch_marks_in_the_last_column_keep_every_row(tmp_path):
    """A parser that toggles at quotes joined the 149,310 rows between the two marks."""
    n = 200_000
    titles = [f"title {i}" for i in range(n)]
    titles[50_000], titles[199_311] = '7" single', '12" single'
    path = tmp_path / "orders.csv"
    path.write_text(
        "user_id,item_id,title\n" + "".join(f"u{i},i{i % 97},{t}\n" for i, t in enumerate(titles))
    )
    raw = read(path)
    assert len(raw.interactions.collect()) == n
    remark = "2 fields of orders.csv with quotes that do not pair up, read as plain text"
    assert raw.info["remarks"] == [f"{remark}; the first is '7\" single' in line 50002"]


def test_titles_with_quotes_are_read_as_they_are(tmp_path):
    path = tmp_path / "t.csv"
    titles = ['12" vinyl', '"Heroes" live', '"weird al" yankovic', 'a ""b"" c', 'say "x"']
    path.write_text("id,title,n\n" + "".join(f"{i},{t},1\n" for i, t in enumerate(titles)))
    assert [row[1] for row in rows_of(path)] == titles
    assert [row[1] for row in rows_of(path, quote="none")] == titles
    with pytest.raises(DataError, match="line 2"):
        open_table(path, quote="double")
    # A field that is quoted by the rule keeps its separator and loses its quotes.
    path.write_text('id,title\n1,"a, b"\n2,"c"" d"\n3,5" x\n')
    assert rows_of(path) == [("1", "a, b"), ("2", 'c" d'), ("3", '5" x')]


def test_a_reader_that_loses_rows_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("user,item\n1,2\n3,4\n")
    table = open_table(path)
    assert table.expected == 2
    with pytest.raises(DataError, match=r"2 records of .*got 1"):
        table.check_count(1)
