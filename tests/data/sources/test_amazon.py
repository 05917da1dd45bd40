"""Amazon reviews of three collections: the same rows out of each, and bad lines by number."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modalign.data.sources import _lines, amazon
from modalign.errors import DataError

ROWS = [("A1UN", "B000000001", 5.0, 1362787200), ("A2DEUX", "0000000002", 1.5, 1362787300)]


def classic(user: str, item: str, rating: float, time: int) -> dict[str, Any]:
    words = {"reviewText": "long", "helpful": [0, 1], "summary": "s"}
    return {
        "reviewerID": user,
        "asin": item,
        "overall": rating,
        "unixReviewTime": time,
    } | words


def recent(user: str, item: str, rating: float, time: int) -> dict[str, Any]:
    pictures = [{"small_image_url": "u"}]
    return {
        "user_id": user,
        "parent_asin": item,
        "asin": "B0VARIANT0",
        "rating": rating,
        "timestamp": time * 1000 + 923,
    } | {"images": pictures, "text": "long", "verified_purchase": True}


def lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def read_rows(path: Path) -> list[tuple[object, ...]]:
    return amazon.read(path).interactions.collect().rows()


def test_2014_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "reviews_Baby_5.json.gz"
    path.write_bytes(gzip.compress(lines([classic(*row) for row in ROWS]).encode()))
    raw = amazon.read(path)
    table = raw.interactions.collect()
    assert table.rows() == ROWS
    assert table.schema == {
        "user_id": pl.Utf8,
        "item_id": pl.Utf8,
        "weight": pl.Float32,
        "time": pl.Int64,
    }
    assert raw.name == "Baby"
    assert raw.items is not None
    assert raw.items.rows() == [("B000000001",), ("0000000002",)]
    assert raw.info["remarks"] == ["no metadata file was found: items have ids only"]


def test_2018_has_more_fields(tmp_path: Path) -> None:
    records = [classic(*row) for row in ROWS]
    records[1] |= {"verified": True, "image": ["https://x/1.jpg"], "style": {"Size:": "L"}}
    (tmp_path / "Baby_5.json").write_text(lines(records))
    assert read_rows(tmp_path) == ROWS


def test_2023_milliseconds_and_parent(tmp_path: Path) -> None:
    (tmp_path / "Baby.jsonl").write_text(lines([recent(*row) for row in ROWS]))
    raw = amazon.read(tmp_path)
    assert raw.interactions.collect().rows() == ROWS
    assert raw.info["layout"] == "2023"


def test_content_tells_gzip_and_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "Baby.jsonl.gz").write_text(lines([recent(*row) for row in ROWS]))
    assert read_rows(tmp_path) == ROWS


@pytest.mark.parametrize(
    "text",
    [
        "A1UN,B000000001,5.0,1362787200\nA2DEUX,0000000002,1.5,1362787300\n",
        "B000000001,A1UN,5.0,1362787200\n0000000002,A2DEUX,1.5,1362787300",
        "user_id,parent_asin,rating,timestamp\n"
        "A1UN,B000000001,5.0,1362787200000\nA2DEUX,0000000002,1.5,1362787300999\n",
    ],
    ids=["2014", "2018", "2023"],
)
def test_ratings_only_tables(tmp_path: Path, text: str) -> None:
    (tmp_path / "ratings_Baby.csv").write_text(text)
    assert read_rows(tmp_path) == ROWS


RECENT = ("user_id", "parent_asin", "rating", "timestamp")
ROWS_OF_50 = [(f"A{i}", f"B{i % 5:09d}", float(i % 5), 1000 + i) for i in range(50)]


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_pieces_of_any_size_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = tmp_path / "x.json"
    path.write_text(lines([classic(*row) for row in ROWS_OF_50]))
    monkeypatch.setattr(amazon, "chunks", lambda path: _lines.chunks(path, size))
    assert amazon.read(path).interactions.collect().rows() == ROWS_OF_50


@pytest.mark.parametrize(("header", "ticks"), [("", 1), (",".join(RECENT) + "\n", 1000)])
def test_longer_ratings_only_tables(tmp_path: Path, header: str, ticks: int) -> None:
    text = "".join(f"{u},{i},{r},{t * ticks}\n" for u, i, r, t in ROWS_OF_50)
    path = tmp_path / "x.csv"
    path.write_text(header + text)
    assert amazon.read(path).interactions.collect().rows() == ROWS_OF_50


def test_metadata_2014_as_python_literals(tmp_path: Path) -> None:
    (tmp_path / "reviews_Baby_5.json").write_text(lines([classic(*row) for row in ROWS]))
    (tmp_path / "meta_Baby.json").write_text(
        "{'asin': 'B000000001', 'title': 'It\\'s &quot;soft&quot;', 'price': 12.5, "
        "'imUrl': 'http://i/1.jpg', 'categories': [['Baby', 'Bath'], ['Baby', 'Toys']], "
        "'description': 'One\\n two', 'related': {'also_bought': ['B1']}}\n"
        "{'asin': 'B00UNKNOWN', 'title': 'nobody reviewed it'}\n"
    )
    raw = amazon.read(tmp_path)
    assert raw.items is not None
    assert raw.items.rows(named=True)[0] == {
        "item_id": "B000000001",
        "title": 'It\'s "soft"',
        "description": "One two",
        "categories": "Baby | Bath | Toys",
        "brand": None,
        "price": 12.5,
        "image_url": "http://i/1.jpg",
        "features": None,
        "details": None,
    }
    assert raw.items["item_id"].to_list() == ["B000000001", "0000000002"]
    assert raw.info["remarks"] == ["1 of 2 items are not in meta_Baby.json"]


def test_metadata_2018_and_2023(tmp_path: Path) -> None:
    (tmp_path / "Baby.jsonl").write_text(lines([recent(*row) for row in ROWS]))
    (tmp_path / "meta_Baby.jsonl.gz").write_bytes(
        gzip.compress(
            lines(
                [
                    {
                        "parent_asin": "B000000001",
                        "title": "Soft",
                        "description": ["One", "", "two"],
                        "categories": ["Baby", "Bath, Body"],
                        "store": "Shop",
                        "price": None,
                        "images": [{"thumb": "t", "large": "l", "hi_res": None}],
                    },
                    {
                        "asin": "0000000002",
                        "title": "var x = getTime() {",
                        "category": ["Baby"],
                        "brand": "Maker",
                        "price": "$1,234.50 - $2,000",
                        "imageURLHighRes": ["h"],
                        "imageURL": ["s"],
                        "feature": ["Soft &amp; warm"],
                        "details": {"Fit:": ["slim"], "ASIN": "0000000002", "Date": "2011"},
                    },
                    {"asin": "0000000002", "title": "a repetition"},
                ]
            ).encode()
        )
    )
    items = amazon.read(tmp_path).items
    assert items is not None
    assert items.rows() == [
        ("B000000001", "Soft", "One two", "Baby | Bath, Body", "Shop", None, "l", None, None),
        ("0000000002", None, None, "Baby", "Maker", 1234.5, "h", "Soft & warm", "Fit: slim"),
    ]


def test_pictures_beside_the_reviews(tmp_path: Path) -> None:
    (tmp_path / "Baby.jsonl").write_text(lines([recent(*row) for row in ROWS]))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0000000002.jpg").write_bytes(b"")
    raw = amazon.read(tmp_path)
    assert raw.items is not None
    assert raw.items["image"].to_list() == [None, str(tmp_path / "images" / "0000000002.jpg")]


def test_options_choose_among_several_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines([recent(*ROWS[0])]))
    (tmp_path / "b.jsonl").write_text(lines([recent(*ROWS[1])]))
    (tmp_path / "meta_a.jsonl").write_text(lines([{"parent_asin": "0000000002", "title": "x"}]))
    with pytest.raises(DataError, match=r"one review file .*got a\.jsonl, b\.jsonl.*reviews"):
        amazon.read(tmp_path)
    raw = amazon.read(tmp_path, reviews="b.jsonl", metadata="meta_a.jsonl")
    assert raw.items is not None
    assert raw.items["title"].to_list() == ["x"]
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "meta_a.jsonl").rename(tmp_path / "elsewhere" / "meta_a.jsonl")
    items = amazon.read(tmp_path, reviews="b.jsonl", metadata=str(moved)).items
    assert items is not None
    assert items["title"].to_list() == ["x"]
    with pytest.raises(DataError, match=r"c\.jsonl, not there"):
        amazon.read(tmp_path, reviews="c.jsonl")


def test_numbers_written_as_text_are_read(tmp_path: Path) -> None:
    record = classic(*ROWS[0]) | {"overall": "5.0", "unixReviewTime": "1362787200"}
    (tmp_path / "x.json").write_text(lines([classic(*ROWS[1]), record]))
    assert read_rows(tmp_path) == [ROWS[1], ROWS[0]]


GOOD = lines([classic(*ROWS[0])])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", GOOD + "{'asin': \n", r"JSON object in each line of .*x\.json, got line 2"),
        ("x.json", GOOD + "\n" + GOOD + GOOD[:40] + "\n", r"x\.json, got line 4, "),
        ("x.json", GOOD + "[1]\n", r"x\.json, got a list in line 2"),
        ("x.json", GOOD + '{"asin": "B"}\n', r"x\.json, got line 2 with no 'reviewerID'"),
        ("x.json", GOOD + GOOD.replace("5.0", '"good"'), r"line 2 with could not convert .*'good'"),
        ("x.json", GOOD + GOOD.replace('"A1UN"', "null"), r"line 2 with an id is null"),
        ("x.json", '{"a": 1}\n', r"reviews with .*line 1 with a: no "),
        ("x.json", "\n \n", r"lines of data in .*x\.json.*empty"),
        ("x.csv", "A1,B000000001,5\n", r"four fields .*x\.csv, got 3 in line 1"),
        ("x.csv", "A1,B000000001,5,1\nA2,B000000002,x,2\n", r"got 'x' in line 2 of .*x\.csv"),
        (
            "x.csv",
            "A1,B000000001,5,1\nA2,B000000002,5\n",
            r"Time', got nothing in line 2 of .*x\.csv",
        ),
        (
            "x.csv",
            "A1,B000000001,5,1\nA2,B000000002,5,1,9\n",
            r"4 fields .*x\.csv, got 5 fields in line 2",
        ),
        ("x.csv", "u1,i1,5,1\nu2,i2,5,2\n", r"product numbers .*'u1,i1,5,1' in line 1"),
        ("x.csv", "user_id,parent_asin,rating\na,b,5\n", r"timestamp in .*name the column timest"),
        ("x.csv", "user_id,parent_asin,rating,timestamp\n", r"got column names and no rows"),
        (
            "x.csv",
            "user_id,parent_asin,rating,timestamp\na,b,5,1\na,,5,1\n",
            r"'parent_asin', got nothing in line 3",
        ),
        ("meta_x.json", "{'asin'\n", r"meta_x\.json, got line 1"),
        ("meta_x.json", '{"title": "no number"}\n', r"asin or parent_asin in .*meta_x\.json"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    if name.startswith("meta"):
        (tmp_path / "x.json").write_text(GOOD)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        amazon.read(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_broken_gzip(tmp_path: Path, damage: str) -> None:
    whole = gzip.compress((GOOD * 500).encode())
    broken = whole[:-30] if damage == "cut" else whole[:20] + b"\xff\xff\xff" + whole[23:]
    (tmp_path / "x.json.gz").write_bytes(broken)
    with pytest.raises(
        DataError, match=r"a complete gzip file .*x\.json\.gz.*breaks off after line"
    ):
        amazon.read(tmp_path)


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere, which does not exist"):
        amazon.read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"one review file .*got none"):
        amazon.read(tmp_path)


def split_file(part: str, row: tuple[Any, ...]) -> tuple[str, str]:
    text = ",".join((*RECENT, "history")) + "\n" + ",".join(map(str, row)) + ",B0 B1\n"
    return f"Baby.{part}.csv", text


def test_the_three_files_of_an_official_split(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "valid", "test")):
        name, text = split_file(part, ("A1", f"B{number:09d}", 5.0, 1588615855070 + number * 1000))
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "meta_Baby.jsonl").write_text('{"parent_asin": "B000000000", "title": "Cup"}\n')
    wanted = [
        ("A1", "B000000000", 5.0, 1588615855, "train"),
        ("A1", "B000000001", 5.0, 1588615856, "valid"),
        ("A1", "B000000002", 5.0, 1588615857, "test"),
    ]
    raw = amazon.read(tmp_path)
    assert raw.name == "Baby"
    assert raw.interactions.collect().rows() == wanted
    assert raw.items is not None
    assert raw.items["title"].to_list() == ["Cup", None, None]
    assert raw.info["files"][:3] == [f"Baby.{part}.csv.gz" for part in ("train", "valid", "test")]
    # One of the files stands for all; whole reviews beside them must be told apart.
    assert amazon.read(tmp_path / "Baby.valid.csv.gz").interactions.collect().rows() == wanted
    (tmp_path / "Baby.jsonl").write_text(lines([recent(*row) for row in ROWS]))
    with pytest.raises(DataError, match="one review file"):
        amazon.read(tmp_path)
    assert amazon.read(tmp_path, reviews="Baby.jsonl").interactions.collect().rows() == ROWS
    split = amazon.read(tmp_path, reviews="Baby.train.csv.gz").interactions.collect()
    assert split.rows() == wanted
    (tmp_path / "Baby.valid.csv.gz").unlink()
    with pytest.raises(DataError, match="no file of valid"):
        amazon.read(tmp_path / "Baby.train.csv.gz")
