"""Flat tables: every way of writing one, and every way of writing it wrong."""

from __future__ import annotations

import bz2
import csv
import datetime
import gzip
import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modalign.data.sources import SOURCES, flat_table, read
from modalign.errors import ConfigError, DataError, UnknownName

GOOD = [("u1", "a", 5.0, 100), ("u1", "b", 3.5, 200), ("u2", "a", 1.0, 300)]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def rows(source, **options):
    return flat_table.read(source, **options).interactions.collect().rows()


@pytest.mark.parametrize(
    ("suffix", "separator"), [(".csv", ","), (".tsv", "\t"), (".csv", ";"), (".txt", "|")]
)
@pytest.mark.parametrize(
    "header",
    [
        ("user_id", "item_id", "rating", "timestamp"),
        ("userID", "itemID", "score", "ts"),
        ("reviewerID", "asin", "overall", "unixReviewTime"),
        ("uid", "movie_id", "stars", "date"),
        ("user_id:token", "item_id:token", "rating:float", "timestamp:float"),
    ],
)
def test_separators_and_names_are_recognised(tmp_path, suffix, separator, header):
    lines = [header, *GOOD]
    path = write(
        tmp_path / f"log{suffix}", "\n".join(separator.join(map(str, line)) for line in lines)
    )
    assert rows(path) == GOOD
    assert flat_table.read(path).name == "log"


def test_columns_can_be_named_and_stand_in_any_order(tmp_path):
    path = write(tmp_path / "log.csv", "when,who,what,ignored\n1,x,y,0\n2,x,z,0\n")
    assert rows(path, user="who", item="what", time="when") == [("x", "y", 1), ("x", "z", 2)]


def test_parquet_and_frames_say_the_same_as_text(tmp_path):
    frame = pl.DataFrame(GOOD, schema=["user", "item", "rating", "time"], orient="row")
    frame.write_parquet(tmp_path / "log.parquet")
    pandas = pd.DataFrame(GOOD, columns=["user", "item", "rating", "time"])
    for source in (tmp_path / "log.parquet", frame, frame.lazy(), pandas):
        assert rows(source) == GOOD


def test_integer_ids_are_texts_even_where_pandas_made_them_floats():
    frame = pd.DataFrame({"user": [1.0, 2.0], "item": [10, 20]})
    assert rows(frame) == [("1", "10"), ("2", "20")]


def test_blank_lines_quotes_and_spaces_do_no_harm(tmp_path):
    path = write(tmp_path / "log.csv", 'user,item\n 1 ,"a, b"\n\n2,c\n\n')
    assert rows(path) == [("1", "a, b"), ("2", "c")]


def test_gzipped_tables_are_read_and_their_lines_counted(tmp_path):
    path = tmp_path / "log.tsv.gz"
    path.write_bytes(gzip.compress(b"user\titem\trating\r\n1\ta\t2\r\n"))
    assert rows(path) == [("1", "a", 2.0)]
    path.write_bytes(gzip.compress(b"user\titem\trating\r\n1\ta\t2\r\n1\tb\tx\r\n"))
    with pytest.raises(DataError, match="'x' in line 3"):
        rows(path)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"\xef\xbb\xbfuser,item\n1,a\n")
    assert rows(path) == [("1", "a")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2020-01-02", 1577923200),
        ("2020-01-02T03:04:05", 1577934245),
        ("2020-01-02 03:04:05.678", 1577934245),
        ("2020-01-02T03:04:05+01:00", 1577930645),
        ("2020-01-02T03:04:05Z", 1577934245),
        ("2020-01-02 03:04", 1577934240),
        ("2020/01/02", 1577923200),
        ("1577934245", 1577934245),
        ("1577934245.9", 1577934245),
        ("1577934245678", 1577934245),
        ("1577934245678000", 1577934245),
        ("1577934245678000000", 1577934245),
    ],
)
def test_times_become_seconds(tmp_path, text, seconds):
    path = write(tmp_path / "log.csv", f"user,item,time\n1,a,{text}\n")
    raw = flat_table.read(path)
    assert raw.interactions.collect()["time"].to_list() == [seconds]
    assert bool(raw.info["remarks"]) == (text.isdigit() and len(text) > 10)


def test_dates_of_frames_become_seconds():
    moment = datetime.datetime(2020, 1, 2, 3, 4, 5)
    frame = pl.DataFrame({"user": [1], "item": [2], "date": [moment]})
    assert rows(frame) == [("1", "2", 1577934245)]
    assert rows(frame.with_columns(pl.col("date").dt.date())) == [("1", "2", 1577923200)]
    assert rows(frame.to_pandas()) == [("1", "2", 1577934245)]


def test_the_result_is_lazy_and_a_frame_is_left_as_it_was():
    frame = pl.DataFrame({"user": [1], "item": [2]})
    assert isinstance(flat_table.read(frame).interactions, pl.LazyFrame)
    assert frame.columns == ["user", "item"]


# ------------------------------------------------------------------ items


def test_items_and_pictures_are_joined_by_id(tmp_path):
    log = write(tmp_path / "log.csv", "user,item\n1,a\n1,b\n")
    write(tmp_path / "items.csv", "asin,name,plot,picture,price\nb,Bee,hums,b.png,3\na,Ay,,,\n")
    write(tmp_path / "b.png", "picture")
    (tmp_path / "pictures").mkdir()
    write(tmp_path / "pictures" / "a.jpg", "picture")
    write(tmp_path / "pictures" / "c.jpg", "picture")
    plain = flat_table.read(log, items=tmp_path / "items.csv").items
    assert plain.columns == ["item_id", "title", "description", "image", "price"]
    assert plain.rows() == [("b", "Bee", "hums", str(tmp_path / "b.png"), 3),
                            ("a", "Ay", None, None, None)]  # fmt: skip
    both = flat_table.read(log, items=tmp_path / "items.csv", images=tmp_path / "pictures")
    assert dict(both.items.select("item_id", "image").rows()) == {
        "a": str(tmp_path / "pictures" / "a.jpg"),
        "b": str(tmp_path / "b.png"),
        "c": str(tmp_path / "pictures" / "c.jpg"),
    }
    alone = flat_table.read(log, images=tmp_path / "pictures").items
    assert alone["item_id"].to_list() == ["a", "c"]


# ------------------------------------------------------------------ bad input

BAD = {
    "no such file": (None, {}, "does not exist"),
    "empty file": ("", {}, "an empty file"),
    "header only": ("user,item\n", {}, "column names and no rows"),
    "wrong separator": (
        "user;item\n1;2\n",
        {"separator": ","},
        "separated by a semicolon, not by a comma",
    ),
    "long separator": (
        "user,item\n1,2\n",
        {"separator": "::"},
        "separated by '::': user,item.*separated by a comma, not by '::'",
    ),
    "no separator": ("user,item\n1,2\n", {"separator": ""}, "a separator between fields, got ''"),
    "no users": ("person,item\n1,2\n", {}, "column of users .*person, item"),
    "no items": ("user,thing\n1,2\n", {}, "column of items .*--item NAME"),
    "no header": ("1,2,5\n1,3,4\n", {}, "add a first line"),
    "named column missing": ("user,item\n1,2\n", {"user": "buyer"}, "column 'buyer'"),
    "bad rating": ("user,item,rating\n1,2,3\n1,3,good\n", {}, "'rating', got 'good' in line 3"),
    "no rating": ("user,item,rating\n1,2,3\n1,3,\n", {}, "got nothing in line 3"),
    "NaN rating": ("user,item,rating\n1,2,nan\n", {}, "'nan' in line 2"),
    "infinite rating": ("user,item,rating\n1,2,3\n1,3,inf\n", {}, "'inf' in line 3"),
    "bad time": ("user,item,time\n1,2,yesterday\n", {}, "'yesterday' in line 2"),
    "mixed times": ("user,item,time\n1,2,2020-01-01\n1,3,5\n", {}, "'5' in line 3"),
    "no user id": ("user,item\n1,2\n\n,3\n", {}, "a user id .*nothing in line 4"),
    "no item id": ("user,item\n1,2\n2\n", {}, "an item id .*nothing in line 3"),
    "too many fields": ("user,item\n1,2\n1,3,4,5\n", {}, "4 fields in line 3"),
    "open quote": ('user,item\n1,"2\n1,3\n', {"quote": "double"}, "a quote in line 2"),
    "quoted lines before": ('user,item,rating\n1,"a\nb",3\n1,c,x\n', {}, "'x' in line 4"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_told_with_file_line_and_column(tmp_path, case):
    text, options, match = BAD[case]
    path = tmp_path / "log.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=f"(?s){match}") as caught:
        flat_table.read(path, **options).interactions.collect()
    assert caught.value.expected
    assert caught.value.got
    assert caught.value.fix
    if "separator" not in case or case == "wrong separator":
        assert str(path) in str(caught.value)


def test_other_encodings_are_told(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes("user,item\n1,café\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        flat_table.read(path)


def test_bad_rows_of_frames_are_told_by_row():
    frame = pl.DataFrame({"user": [1, 2], "item": [1, 2], "rating": [1.0, float("nan")]})
    with pytest.raises(DataError, match="row 1 of the data frame"):
        flat_table.read(frame)
    with pytest.raises(DataError, match="no rows"):
        flat_table.read(frame.head(0))
    with pytest.raises(DataError, match="a list"):
        flat_table.read([1, 2])  # type: ignore[arg-type]


def test_a_folder_and_a_false_parquet_are_told(tmp_path):
    with pytest.raises(DataError, match="a folder"):
        flat_table.read(tmp_path)
    with pytest.raises(DataError, match="readable Parquet"):
        flat_table.read(write(tmp_path / "log.parquet", "text"))
    with pytest.raises(DataError, match="not a file"):
        flat_table.read(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("thing,title\n1,x\n", "column of item ids"),
        ("item,title\n1,x\n,y\n", "nothing in line 3"),
        ("item,title\n1,x\n1,y\n", "'1' in 2 rows"),
        ("item,title\n1,x\n1,y,z\n", "3 fields in line 3"),
    ],
)
def test_bad_item_tables_are_told(tmp_path, text, match):
    items = write(tmp_path / "items.csv", text)
    with pytest.raises(DataError, match=match):
        flat_table.read(pl.DataFrame({"user": [1], "item": [1]}), items=items)


def test_bad_picture_folders_are_told(tmp_path):
    frame = pl.DataFrame({"user": [1], "item": [1]})
    with pytest.raises(DataError, match="not a folder"):
        flat_table.read(frame, images=tmp_path / "none")
    with pytest.raises(DataError, match="pictures named by item id"):
        flat_table.read(frame, images=tmp_path)


# ------------------------------------------------------------------ registry of sources


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_can_be_imported_and_says_what_it_reads(kind):
    source = SOURCES[kind]
    assert callable(source.reader())
    assert source.help
    assert "path" not in source.options()


def test_unknown_sources_and_options_are_told(tmp_path):
    path = write(tmp_path / "log.csv", "user,item\n1,2\n")
    assert read("table", path).interactions.collect().height == 1
    with pytest.raises(UnknownName, match="did you mean 'movielens'"):
        read("movielense", path)
    with pytest.raises(ConfigError, match="'sep'"):
        read("table", path, sep=",")


def test_reading_takes_each_row_once_whatever_the_size():
    n = 300_000
    frame = pl.DataFrame({"user": np.arange(n) % 977, "item": np.arange(n)})
    found = flat_table.read(frame).interactions.collect()
    assert found["item_id"].n_unique() == n


FIELDS = st.text(st.sampled_from("ab\", ;\t|\n\r'é0."), max_size=8)
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))


@QUIET
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), FIELDS), min_size=1, max_size=12),
    st.sampled_from(",;\t|"),
)
@pytest.mark.slow
def test_as_many_rows_are_read_as_python_s_csv_wrote(tmp_path, found, separator):
    path = tmp_path / "log.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerows([("user", "item", "note"), *found])
    expected = [(str(user), str(item)) for user, item, _ in found]
    assert rows(path) == expected


ROWS = [(f"u{i % 7}", f"ü{i % 5}", i % 5 + 1, 1_600_000_000 + i) for i in range(40)]
LINES = "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in ROWS)
TABLE = "user_id,item_id,rating,timestamp\n" + LINES


def zstd(raw: bytes) -> bytes:
    return pa.compress(raw, codec="zstd", asbytes=True)


def _zip(path, text):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("orders.csv", text)
        archive.writestr("__MACOSX/._orders.csv", "what a Mac adds")


def _quoted(path, text):
    rows = (line.split(",") for line in text.splitlines())
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)


def _json(path, text):
    names = ("user_id", "item_id", "rating", "timestamp")
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS))


def _array(path, text):
    names = ("user_id", "item_id", "rating", "timestamp")
    path.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in ROWS]))


WRITTEN = {
    "gzip": ("o.csv.gz", lambda p, t: p.write_bytes(gzip.compress(t.encode())), {}),
    "bz2": ("o.csv.bz2", lambda p, t: p.write_bytes(bz2.compress(t.encode())), {}),
    "xz": ("o.csv.xz", lambda p, t: p.write_bytes(lzma.compress(t.encode())), {}),
    "zstd": ("o.csv.zst", lambda p, t: p.write_bytes(zstd(t.encode())), {}),
    "zip": ("o.zip", _zip, {}),
    "utf-16": ("o.csv", lambda p, t: p.write_bytes(t.encode("utf-16")), {}),
    "utf-16 be": (
        "o.csv", lambda p, t: p.write_bytes(b"\xfe\xff" + t.encode("utf-16-be")), {}
    ),
    "bom": ("o.csv", lambda p, t: p.write_bytes(t.encode("utf-8-sig")), {}),
    "cp1252": ("o.csv", lambda p, t: p.write_bytes(t.encode("cp1252")), {"encoding": "cp1252"}),
    "json lines": ("o.jsonl", _json, {}),
    "json array": ("o.json", _array, {}),
    "no header": (
        "o.csv",
        lambda p, t: p.write_text(LINES),
        {"header": False, "columns": "user,item,rating,time"},
    ),
    "colons": ("o.dat", lambda p, t: p.write_text(t.replace(",", "::")), {}),
    "semicolons": ("o.csv", lambda p, t: p.write_text(t.replace(",", ";")), {}),
    "blanks": ("o.txt", lambda p, t: p.write_text(t.replace(",", "  ")), {}),
    "tabs, crlf": (
        "o.tsv", lambda p, t: p.write_bytes(t.replace(",", "\t").replace("\n", "\r\n").encode()), {}
    ),
    "sep line": ("o.csv", lambda p, t: p.write_text("sep=;\n" + t.replace(",", ";")), {}),
    "quoted": ("o.csv", _quoted, {}),
}  # fmt: skip


@pytest.mark.parametrize("how", WRITTEN)
def test_a_table_is_the_same_in_every_writing(how, tmp_path):
    name, write_it, options = WRITTEN[how]
    write_it(tmp_path / name, TABLE)
    raw = flat_table.read(tmp_path / name, **options)
    assert raw.interactions.collect().rows() == [(u, i, float(r), t) for u, i, r, t in ROWS]
    assert raw.name == "o"


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "o.csv"
    path.write_bytes("user,item\n1,a\n2,Fußgängerbrücke über die Straße\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"got bytes df 67 e4 6e in line 3.*--encoding cp1252"):
        flat_table.read(path)
    with pytest.raises(DataError, match="name of an encoding, got 'klingon'"):
        flat_table.read(path, encoding="klingon")
    with pytest.raises(DataError, match=r"text in ascii .* line 3"):
        flat_table.read(path, encoding="ascii")
    for packed in (lzma.compress, bz2.compress, gzip.compress, zstd):
        path.write_bytes(packed(TABLE.encode() * 50)[:-20])
        with pytest.raises(DataError, match="complete"):
            flat_table.read(path).interactions.collect()
    _zip(tmp_path / "o.zip", TABLE)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "o.zip").read_bytes()[:300])
    with pytest.raises(DataError, match="complete zip archive"):
        flat_table.read(tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "o.zip", "a") as archive:
        archive.writestr("more.csv", "x")
    with pytest.raises(DataError, match=r"one file in the archive .* 2: orders.csv, more.csv"):
        flat_table.read(tmp_path / "o.zip")
    (tmp_path / "o.jsonl").write_text('{"user": 1, "item": 2}\n{"user": 1,\n')
    with pytest.raises(DataError, match="line 2"):
        flat_table.read(tmp_path / "o.jsonl")
    path.write_text(LINES)
    with pytest.raises(DataError, match="--no-header --columns"):
        flat_table.read(path)
    for options in ({"header": False}, {"columns": ["user", "item"]}):
        with pytest.raises(ConfigError, match=r"neither|both"):
            flat_table.read(path, **options)
    path.write_text("x" * (1 << 21))
    with pytest.raises(DataError, match="first line of more than"):
        flat_table.read(path)
