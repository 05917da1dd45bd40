"""RecBole's atomic files in, and both foreign layouts out and in again, exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.core.modality import Modality
from modalign.data.dataset import Dataset
from modalign.data.export_layout import export_mmrec, export_recbole
from modalign.data.interactions import Interactions
from modalign.data.raw import RawData
from modalign.data.sources import mmrec, recbole
from modalign.data.vocabulary import Vocabulary
from modalign.errors import DataError

INTER = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\textra:token\n"
    "ann\tB1\t4.0\t881250949\tx\nbob\tB2\t2.5\t881250950.0\ty\n"
)
ITEM = (
    "item_id:token\tmovie_title:token_seq\tyear:float\tclass:token_seq\ttext_emb:float_seq\n"
    'B1\t"Big one\t1999\tDrama Comedy\t1.5 -2\nB2\t\t\tDrama\t\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy.inter").write_text(INTER)
    (tmp_path / "toy.item").write_text(ITEM)
    (tmp_path / "toy.user").write_text("user_id:token\tage:float\nann\t30\nbob\t\n")
    return tmp_path


def test_all_three_files(folder: Path) -> None:
    raw = recbole.read(folder)
    table = raw.interactions.collect()
    assert table.rows() == [("ann", "B1", 4.0, 881250949), ("bob", "B2", 2.5, 881250950)]
    assert table.columns == ["user_id", "item_id", "weight", "time"]
    assert raw.name == "toy"
    assert raw.items is not None
    assert raw.items.columns == ["item_id", "title", "year", "class"]
    assert raw.items.rows() == [
        ("B1", '"Big one', 1999.0, "Drama Comedy"),
        ("B2", None, None, "Drama"),
    ]
    assert raw.users is not None
    assert raw.users.rows() == [("ann", 30.0), ("bob", None)]
    text = raw.features["text"]
    assert text.ids.to_list() == ["B1", "B2"]
    np.testing.assert_array_equal(text.features, np.array([[1.5, -2], [0, 0]], np.float32))
    assert text.present is not None
    assert text.present.tolist() == [True, False]


def test_interactions_alone(tmp_path: Path) -> None:
    (tmp_path / "toy.inter").write_text("item_id:token\tuser_id:token\ni\tu\n")
    raw = recbole.read(tmp_path / "toy.inter")
    assert raw.interactions.collect().rows() == [("u", "i")]
    assert (raw.items, raw.users, dict(raw.features)) == (None, None, {})


def test_benchmark_split_is_kept(folder: Path) -> None:
    head = "user_id:token\titem_id:token\n"
    for part, row in (("train", "ann\tB1\n"), ("valid", ""), ("test", "bob\tB1\n")):
        (folder / f"toy.{part}.inter").write_text(head + row)
    rows = recbole.read(folder).interactions.collect().rows()
    assert rows == [("ann", "B1", "train"), ("bob", "B1", "test")]
    (folder / "toy.valid.inter").unlink()
    with pytest.raises(DataError, match=r"got no toy\.valid\.inter"):
        recbole.read(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "toy.inter",
            INTER.replace("\t", ","),
            r"toy\.inter, got one column .*by a comma, not by a tab",
        ),
        ("toy.inter", INTER.replace(":token", ""), r"name:type.*toy\.inter, line 1, got 'user_id'"),
        ("toy.inter", INTER.replace("item_id:token", "thing:token"), r"item_id:token.*toy\.inter"),
        ("toy.inter", INTER.replace("timestamp:float", "timestamp:time"), r"got 'timestamp:time'"),
        (
            "toy.inter",
            INTER + "eve\tB1\tgood\t1\tx\n",
            r"'rating:float', got 'good' in line 4 of .*toy\.inter",
        ),
        (
            "toy.inter",
            INTER + "eve\t\t1\t1\tx\n",
            r"an item id .*got nothing in line 4 of .*toy\.inter",
        ),
        (
            "toy.inter",
            INTER + "eve\tB1\t1\t1\tx\ty\n",
            r"5 fields in .*toy\.inter.*got 6 fields in line 4",
        ),
        ("toy.inter", "", r"a line of column names in .*toy\.inter"),
        ("toy.inter", INTER.partition("\n")[0], r"column names and no rows"),
        ("toy.item", ITEM + "B3\tx\told\tDrama\t1 2\n", r"'year:float', got 'old' in line 4"),
        (
            "toy.item",
            ITEM + "B3\tx\t1\tDrama\t1 2 3\n",
            r"'text_emb:float_seq' of .*3, got 2 in line 2",
        ),
        ("toy.item", ITEM + "B3\tx\t1\tDrama\t1 z\n", r"'text_emb:float_seq', got 'z' in line 4"),
        ("toy.item", ITEM + "B1\tx\t1\tDrama\t1 2\n", r"each item once.*'B1' in 2 rows"),
        (
            "toy.item",
            ITEM + "B3\tx\t1\tDrama\t1 2\t9\n",
            r"5 fields in .*toy\.item.*6 fields in line 4",
        ),
        ("toy.item", ITEM.replace("1.5 -2", ""), r"'text_emb:float_seq' of .*no number"),
        ("second.inter", INTER, r"one data set.*second\.inter, toy\.inter"),
    ],
)
def test_bad_files_are_named(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        recbole.read(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere, which does not exist"):
        recbole.read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"\.inter files of one data set.*got none"):
        recbole.read(tmp_path)


# ------------------------------------------------------------------------------- there and back


def dataset(seed: int = 0, extras: bool = True) -> Dataset:
    """Six users and seven items, one of which nobody touched, with what exports must keep."""
    rng = np.random.default_rng(seed)
    users = Vocabulary([f"u {i}" for i in range(6)], "user")
    items = Vocabulary([f"B{i}" for i in (3, 1, 4, 0, 5, 9, 2)])
    pairs = rng.permutation(6 * 6)[:24]
    parts: dict[str, Any] = {}
    for name, some in zip(("train", "valid", "test"), np.split(pairs, (16, 20)), strict=True):
        weight = rng.integers(1, 11, len(some)).astype(np.float32) / 2 if extras else None
        time = rng.integers(0, 2**31, len(some)) if extras else None
        parts[name] = Interactions(some // 6, some % 6, weight, time)
    features = rng.standard_normal((7, 3)).astype(np.float32)
    present = np.arange(7) != 2
    features[~present] = 0
    table = pl.DataFrame(
        {
            "item_id": items.series,
            "title": ["a b", "7", None, "x\ty", "'q'", 'say "hi"', "é"],
            "price": [1.5, None, 2.0, 3.0, 4.0, 5.0, 6.0],
            "tags": [["a", "b"], [], None, ["c"], ["d"], ["e"], ["f"]],
        }
    )
    people = pl.DataFrame({"user_id": users.series, "age": [1, 2, 3, 4, 5, 6]})
    return Dataset(
        name="d",
        users=users,
        items=items,
        **parts,
        modalities={
            "text": Modality("text", features, present),
            "taste": Modality("taste", features[:6], present[:6], "user"),
        },
        item_table=table,
        user_table=people,
    )


def pairs(data: Dataset | RawData) -> pl.DataFrame:
    """All interactions with ids, sorted."""
    if isinstance(data, RawData):
        table = data.interactions.collect()
    else:
        table = pl.concat(
            pl.DataFrame(
                {
                    "user_id": data.users.series.gather(part.users),
                    "item_id": data.items.series.gather(part.items),
                    "split": name,
                }
            ).with_columns(
                pl.Series(column, values)
                for column, values in (("weight", part.weight), ("time", part.time))
                if values is not None
            )
            for name in ("train", "valid", "test")
            for part in [data.part(name)]
        )
    return table.select(sorted(table.columns)).sort("user_id", "item_id", "split")


BOTH = pytest.mark.parametrize(
    ("export", "read"), [(export_recbole, recbole.read), (export_mmrec, mmrec.read)]
)


@BOTH
@pytest.mark.parametrize("extras", [True, False])
def test_there_and_back(tmp_path: Path, export: Any, read: Any, extras: bool) -> None:
    data = dataset(extras=extras)
    back = read(export(data, tmp_path / "toy"))
    assert back.name == "toy"
    assert pairs(back).equals(pairs(data))
    assert back.items["item_id"].to_list() == list(data.items)
    assert back.users["user_id"].to_list() == list(data.users)
    assert list(back.features) == ["text"]
    text, features = data.modalities["text"], back.features["text"]
    assert features.ids.to_list() == list(data.items)
    np.testing.assert_array_equal(features.features, text.features)
    np.testing.assert_array_equal(features.present, text.present)
    assert back.items["price"].to_list() == [1.5, None, 2.0, 3.0, 4.0, 5.0, 6.0]
    titles = ["a b", "7", None, "x\ty", "'q'", 'say "hi"', "é"]
    if read is recbole.read:
        titles[3] = "x y"
        assert back.users["age"].to_list() == [1, 2, 3, 4, 5, 6]
    assert back.items["title"].to_list() == titles
    assert back.items["tags"][0] == "a b"


@pytest.mark.slow
@BOTH
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), exponents=st.tuples(*[st.integers(-38, 38)] * 3))
def test_every_float32_survives(
    tmp_path_factory: pytest.TempPathFactory,
    export: Any,
    read: Any,
    seed: int,
    exponents: tuple[int, ...],
) -> None:
    rng = np.random.default_rng(seed)
    scale = np.float32(10) ** np.array(exponents, np.float32)
    features = (rng.uniform(1, 3, (7, 3)) * scale).astype(np.float32)
    data = replace(dataset(), modalities={"m": Modality("m", features, np.ones(7, bool))})
    back = read(export(data, tmp_path_factory.mktemp("x") / "toy"))
    np.testing.assert_array_equal(back.features["m"].features, features)


@BOTH
def test_an_empty_part_and_parts_without_weights(tmp_path: Path, export: Any, read: Any) -> None:
    data = dataset()
    bare = Interactions(data.test.users, data.test.items, None, data.test.time)
    data = replace(data, valid=Interactions.empty(), test=bare)
    table = pairs(read(export(data, tmp_path / "toy")))
    assert len(table) == 20
    assert table.columns == ["item_id", "split", "time", "user_id"]
    assert not sum(table.null_count().row(0))


@BOTH
def test_unseen_users_are_refused(tmp_path: Path, export: Any, read: Any) -> None:
    data = replace(dataset(), valid_history=dataset().valid)
    with pytest.raises(DataError, match="'d' with the unseen-users split"):
        export(data, tmp_path / "toy")
    assert not (tmp_path / "toy").exists()


def test_ids_that_would_break_the_format(tmp_path: Path) -> None:
    data = replace(dataset(), users=Vocabulary([f"u{i}" for i in range(5)] + ["a\tb"], "user"))
    data = replace(data, user_table=pl.DataFrame())
    with pytest.raises(DataError, match=r"ids without tabs, .*user_id 'a\\tb'"):
        export_recbole(data, tmp_path / "toy")
    assert not (tmp_path / "toy").exists()


def test_export_leaves_other_files_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "notes.txt").write_text("mine")
    export_mmrec(dataset(), tmp_path / "toy")
    assert (tmp_path / "toy" / "notes.txt").read_text() == "mine"
