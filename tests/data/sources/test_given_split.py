"""Folders of train, valid and test files."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from modalign.data.prepare import prepare
from modalign.data.sources import given_split
from modalign.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "amazon-baby"


def folder(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    return tmp_path


def test_parts_are_kept_under_any_of_their_names(tmp_path):
    where = folder(
        tmp_path,
        train__csv="user_id,item_id,rating\n1,a,4\n",
        dev__tsv="uid\tasin\tstars\n1\tb\t5\n",
        items__csv="item_id,title\na,Ay\n",
    )
    pl.DataFrame({"user": [1], "item": ["c"], "rating": [2]}).write_parquet(where / "test.parquet")
    raw = given_split.read(where)
    assert raw.interactions.collect().rows() == [
        ("1", "a", 4.0, "train"),
        ("1", "b", 5.0, "valid"),
        ("1", "c", 2.0, "test"),
    ]
    assert raw.items.rows() == [("a", "Ay")]
    assert raw.name == tmp_path.name


def test_a_column_of_one_file_alone_is_left_out_and_remarked(tmp_path):
    where = folder(tmp_path, train__csv="user,item,rating\n1,a,4\n", valid__csv="user,item\n1,b\n",
                   test__csv="user,item\n1,c\n")  # fmt: skip
    raw = given_split.read(where)
    assert raw.interactions.collect().columns == ["user_id", "item_id", "split"]
    assert raw.info["remarks"] == ["weight is not in all three files and was dropped"]


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "a train file .*nothing"),
        ({"train__csv": "user,item\n1,a\n", "test__csv": "user,item\n1,a\n"}, "a valid file"),
        ({"train__csv": "user,item\n1,a\n", "valid__csv": "user,item\n1,a\n",
          "val__tsv": "user\titem\n1\ta\n"}, "one valid file"),
        ({"train__csv": "user,item\n1,a\n", "valid__csv": "", "test__csv": "user,item\n1,a\n"},
         "valid.csv"),
        ({"train__csv": "user,item\n1,a\n", "valid__csv": "user,item\n1,a\n",
          "test__csv": "who,item\n1,a\n"}, "test.csv"),
    ],
)  # fmt: skip
def test_bad_folders_are_told(tmp_path, files, match):
    with pytest.raises(DataError, match=match):
        given_split.read(folder(tmp_path, **files))


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        given_split.read(tmp_path / "none")


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="the development data are not beside the checkout")
def test_amazon_baby_has_its_known_counts():
    data = prepare(given_split.read(REAL))
    assert (data.n_users, data.n_items) == (19_445, 7_050)
    assert (len(data.train), len(data.valid), len(data.test)) == (118_551, 21_682, 20_559)
    assert data.info["split"]["kind"] == "given"
    first = pl.read_csv(REAL / "train.csv", infer_schema=False)
    assert first["user_id"].to_list()[:50] == data.users.ids(data.train.users[:50])
    pairs = set(
        zip(data.users.ids(data.train.users), data.items.ids(data.train.items), strict=True)
    )
    assert pairs == set(first.rows())
