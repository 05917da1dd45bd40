"""The MMRec layout: what is read, against tables written by hand, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modalign.data.sources import mmrec
from modalign.errors import DataError

REAL = Path(__file__).parents[3].parent / "shared" / "data"
INTER = "userID\titemID\tx_label\n0\t0\t0\n0\t2\t1\n1\t1\t2\n1\t0\t0\n"
TEXT = np.array([[1.0, 2.0], [0.0, 0.0], [0.0, 3.0]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy.inter").write_text(INTER)
    np.save(tmp_path / "text_feat.npy", TEXT.astype(np.float16))
    np.save(tmp_path / "image_feat.npy", np.ones((3, 4)))
    return tmp_path


def rows(folder: Path) -> list[tuple[object, ...]]:
    return mmrec.read(folder).interactions.collect().rows()


def test_numbers_are_ids_without_mapping(folder: Path) -> None:
    raw = mmrec.read(folder)
    assert raw.name == "toy"
    assert raw.interactions.collect().columns == ["user_id", "item_id", "split"]
    assert rows(folder) == [
        ("0", "0", "train"),
        ("0", "2", "valid"),
        ("1", "1", "test"),
        ("1", "0", "train"),
    ]
    assert raw.items is not None
    assert raw.items["item_id"].to_list() == ["0", "1", "2"]
    assert raw.users is not None
    assert raw.users["user_id"].to_list() == ["0", "1"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_feature_file_is_a_modality(folder: Path, dtype: type) -> None:
    np.save(folder / "text_feat.npy", TEXT.astype(dtype))
    raw = mmrec.read(folder)
    assert sorted(raw.features) == ["image", "text"]
    text = raw.features["text"]
    assert text.features.dtype == np.float32
    np.testing.assert_array_equal(text.features, TEXT)
    assert text.present is not None
    assert text.present.tolist() == [True, False, True]
    assert raw.info["remarks"] == ["1 of 3 rows of text_feat.npy are zero: taken as missing"]


@pytest.mark.parametrize(
    ("items", "users"),
    [
        ("asin\titemID\nB0\t0\nB2\t2\nB1\t1\n", "user_id\tuserID\nann\t0\nbob\t1\n"),
        ("item_id,row\nB0,0\nB1,1\nB2,2\n", "user_id,row\nann,0\nbob,1\n"),
        ("itemID,asin\n0,B0\n1,B1\n2,B2\n", "userID,user_id\n0,ann\n1,bob\n"),
        ("original\tindex\nB0\t0\nB1\t1\nB2\t2\n", "original\tindex\nann\t0\nbob\t1\n"),
    ],
)
def test_mappings_give_original_ids(folder: Path, items: str, users: str) -> None:
    (folder / "i_id_mapping.csv").write_text(items)
    (folder / "u_id_mapping.csv").write_text(users)
    assert rows(folder)[:2] == [("ann", "B0", "train"), ("ann", "B2", "valid")]
    features = mmrec.read(folder).features["text"]
    assert features.ids.to_list() == ["B0", "B1", "B2"]


def test_rating_and_time_are_kept(folder: Path) -> None:
    (folder / "toy.inter").write_text(
        "userID\titemID\trating\ttimestamp\tx_label\textra\n0\t2\t4.5\t99.0\t0\tx\n"
    )
    table = mmrec.read(folder).interactions.collect()
    assert table.rows() == [("0", "2", 4.5, 99, "train")]
    assert table.schema["time"] == pl.Int64


def test_item_table_is_joined_by_id(folder: Path) -> None:
    (folder / "i_id_mapping.csv").write_text("item_id,row\n7,0\n8,1\n9,2\n")
    (folder / "items.csv").write_text("item_id,title,year\n9,1984,1949\n7,Dune,1965\n")
    items = mmrec.read(folder).items
    assert items is not None
    assert items.rows() == [("7", "Dune", 1965), ("8", None, None), ("9", "1984", 1949)]


def test_items_without_interactions_count(folder: Path) -> None:
    (folder / "toy.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n")
    items = mmrec.read(folder).items
    assert items is not None
    assert len(items) == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "toy.inter",
            INTER.replace("\t", ","),
            "toy.inter, got one column in line 1, separated by a tab.*by a comma, not by a tab",
        ),
        ("toy.inter", "userID\titemID\n0\t0\n", "2 columns .*: userID, itemID.*x_label"),
        ("toy.inter", "", "a line of column names in .*toy.inter.*empty file"),
        ("toy.inter", "userID\titemID\tx_label\n", "column names and no rows"),
        ("toy.inter", INTER + "1\tfish\t0\n", "'itemID', got 'fish' in line 6 of .*toy.inter"),
        ("toy.inter", INTER + "1\t\t0\n", "'itemID', got nothing in line 6 of .*toy.inter"),
        ("toy.inter", INTER + "1\t1\t0\t5\n", "3 fields in every line.*got 4 fields in line 6"),
        ("toy.inter", INTER + "1\t1\n", "'x_label', got nothing in line 6"),
        ("toy.inter", INTER + "-1\t1\t0\n", "from 0 upward in column 'userID'.*'-1' in line 6"),
        ("toy.inter", INTER + "1\t1\t3\n", r"0 \(train\), 1 .* 'x_label'.*got '3' in line 6"),
        ("toy.inter", INTER + "1\t3\t0\n", "itemID below 3, as image_feat.npy.*3 in line 6"),
        ("i_id_mapping.csv", "asin\titemID\na\t0\nb\t1\n", "itemID below 2, as the mapping file"),
        ("i_id_mapping.csv", "asin itemID\na 0\n", "two columns.*i_id_mapping.csv, line 1"),
        ("i_id_mapping.csv", "asin\titemID\na\t0\nb\t2\nc\t3\n", "each number from 0 to 2 once"),
        ("i_id_mapping.csv", "asin\titemID\na\t0\na\t1\nc\t2\n", "each id once.*'a' twice"),
        ("i_id_mapping.csv", "asin\titemID\na\t0\nb\tx\nc\t2\n", "got 'x' in line 3"),
        ("items.csv", "title\nDune\n", "the columns item_id in .*items.csv"),
        ("items.csv", "item_id,title\n1,Dune\n1,Emma\n", "each item once.*'1' in 2 rows"),
        ("image_feat.npy", "no numpy", "a NumPy matrix of numbers in .*image_feat.npy"),
        ("second.inter", INTER, "exactly one .*inter.*second.inter, toy.inter"),
    ],
)
def test_bad_files_are_named(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        mmrec.read(folder)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((4, 2)), "3 rows, one per item, in .*text_feat.npy, got 4 rows"),
        (np.ones(3), r"a matrix \(items, width\).*shape \(3,\)"),
        (np.ones((3, 2), np.int64), "floating-point.*int64"),
        (np.array([[None]]), "a NumPy matrix"),
    ],
)
def test_bad_features_are_named(folder: Path, matrix: np.ndarray, message: str) -> None:
    np.save(folder / "text_feat.npy", matrix, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        mmrec.read(folder)


def test_missing_folder_and_file_instead_of_folder(folder: Path) -> None:
    with pytest.raises(DataError, match="nowhere, which does not exist"):
        mmrec.read(folder / "nowhere")
    with pytest.raises(DataError, match=r"toy\.inter, which is a file"):
        mmrec.read(folder / "toy.inter")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "counts", "widths"),
    [
        ("bench-ml", (938, 1008, 43509, 5452, 5452), {"image": 1280, "text": 384}),
        ("bench-citeulike", (3527, 6339, 60954, 8296, 8296), {"tags": 128, "text": 256}),
    ],
)
def test_real_folders(name: str, counts: tuple[int, ...], widths: dict[str, int]) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"the development data {name} are not beside the checkout")
    raw = mmrec.read(REAL / name)
    table = raw.interactions.collect()
    sizes = [table.filter(pl.col("split") == part).height for part in mmrec.PARTS]
    assert raw.users is not None
    assert raw.items is not None
    assert (len(raw.users), len(raw.items), *sizes) == counts
    assert {k: f.features.shape[1] for k, f in raw.features.items()} == widths
