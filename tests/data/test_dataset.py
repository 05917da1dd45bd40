"""The prepared folder: what is written is what is read, and damage is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modalign.core.modality import Modality
from modalign.data.dataset import SPLITS, Dataset
from modalign.data.interactions import Interactions
from modalign.data.vocabulary import Vocabulary
from modalign.errors import DataError, UnknownName


def part(pairs: list[tuple[int, int]], **more: np.ndarray) -> Interactions:
    users, items = np.array(pairs, np.int64).reshape(-1, 2).T
    return Interactions(users, items, **more)


def toy(**changes: object) -> Dataset:
    fields: dict[str, object] = {
        "name": "toy",
        "users": Vocabulary(["a", "b", "c"], "user"),
        "items": Vocabulary([10, 20, 30, 40], "item"),
        "train": part(
            [(1, 3), (0, 0), (0, 2)],
            weight=np.array([1, 2, 3], np.float32),
            time=np.array([2**40, 5, 6]),
        ),
        "valid": part([(1, 0)]),
        "test": part([(0, 1), (1, 2)]),
        "valid_history": part([(2, 2)]),
        "test_history": part([(2, 3)]),
        "info": {"source": "hand"},
    }
    return Dataset(**{**fields, **changes})  # type: ignore[arg-type]


def same(one: Interactions, two: Interactions) -> None:
    for column in ("users", "items", "weight", "time"):
        left, right = getattr(one, column), getattr(two, column)
        assert (left is None) == (right is None), column
        if left is not None:
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype


def test_a_folder_holds_everything(tmp_path):
    data = toy(
        item_table=pl.DataFrame(
            {"item_id": ["10", "20", "30", "40"], "title": ["x", None, "y", "z"]}
        )
    )
    saved = data.save(tmp_path / "data")
    loaded = Dataset.load(tmp_path / "data")
    for one in (saved, loaded):
        assert (one.name, dict(one.info)) == ("toy", {"source": "hand"})
        assert list(one.users) == ["a", "b", "c"]
        assert list(one.items) == ["10", "20", "30", "40"]
        assert one.fingerprint == data.fingerprint
        assert one.titles().to_list() == ["x", "20", "y", "z"]
        for name in SPLITS:
            same(one.part(name), data.part(name))
    # Torch shares memory with these arrays and wants them writable.
    assert loaded.train.users.flags.writeable
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_people_can_read_the_tables(tmp_path):
    toy().save(tmp_path / "data")
    table = pl.read_parquet(tmp_path / "data" / "interactions.parquet")
    assert table.columns[:2] == ["user", "item"]
    assert table["split"].cast(pl.String).to_list() == (
        ["train"] * 3 + ["valid"] + ["test"] * 2 + ["valid_history", "test_history"]
    )
    told = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert told["interactions"]["train"] == 3
    assert (told["n_users"], told["n_items"]) == (3, 4)


def test_the_fingerprint_sees_the_split_and_not_the_order():
    data = toy()
    shuffled = toy(train=part([(0, 2), (1, 3), (0, 0)]))
    assert shuffled.fingerprint == data.fingerprint
    swapped = toy(train=data.test, test=data.train)
    moved = toy(train=part([(0, 2), (1, 3), (0, 1)]))
    renamed = toy(items=Vocabulary([10, 20, 30, 41], "item"))
    prints = {one.fingerprint for one in (data, swapped, moved, renamed)}
    assert len(prints) == 4


def test_the_view_shows_training_pairs_once_and_nothing_else():
    data = toy(train=part([(1, 3), (0, 2), (1, 3), (0, 0)]))
    view = data.view()
    assert list(zip(view.users.tolist(), view.items.tolist(), strict=True)) == [
        (0, 0), (0, 2), (1, 3)
    ]  # fmt: skip
    assert not hasattr(view, "test")
    assert not hasattr(view, "valid")
    assert view.item_counts().tolist() == [1, 0, 1, 1]


def test_an_empty_part_can_be_written_and_read(tmp_path):
    data = toy(valid=Interactions.empty(), valid_history=Interactions.empty())
    loaded = data.save(tmp_path / "data")
    assert len(loaded.valid) == 0
    assert loaded.fingerprint == data.fingerprint


def test_modalities_are_written_and_must_have_a_row_per_item(tmp_path):
    features = np.array([[1.0], [0.0], [3.0], [4.0]], np.float32)
    modality = Modality("text", features, np.array([True, False, True, True]))
    loaded = toy().with_modality(modality).save(tmp_path / "data")
    np.testing.assert_array_equal(loaded.modalities["text"].features, features)
    assert loaded.modalities["text"].present.tolist() == [True, False, True, True]
    with pytest.raises(DataError, match="4 rows, one per item"):
        toy().with_modality(Modality("text", features[:3], np.ones(3, bool)))


def test_a_modality_of_other_items_is_told(tmp_path):
    features, present = np.ones((4, 1), np.float32), np.ones(4, bool)
    toy().with_modality(Modality("text", features, present)).save(tmp_path / "one")
    other = toy(items=Vocabulary([1, 2, 3, 4], "item")).save(tmp_path / "two")
    assert not other.modalities
    (tmp_path / "two" / "modalities").mkdir()
    file = "modalities/text.safetensors"
    (tmp_path / "two" / file).write_bytes((tmp_path / "one" / file).read_bytes())
    with pytest.raises(DataError, match="features of 4 other items"):
        Dataset.load(tmp_path / "two")


def test_saving_elsewhere_takes_the_pictures_along(tmp_path):
    (tmp_path / "one" / "images").mkdir(parents=True)
    (tmp_path / "one" / "images" / "20.png").write_text("picture")
    table = pl.DataFrame({"item_id": ["10", "20", "30", "40"],
                          "image": [None, "images/20.png", None, None]})  # fmt: skip
    one = toy(item_table=table).save(tmp_path / "one")
    two = one.save(tmp_path / "two")
    again = two.save(tmp_path / "two")
    for data in (one, two, again):
        assert data.image_path(0) is None
        path = data.image_path(np.int64(1))  # type: ignore[arg-type]
        assert path is not None
        assert path.parent == data.folder / "images"
        assert path.read_text() == "picture"


def test_parts_go_by_name():
    assert toy().part("test") is not None
    with pytest.raises(UnknownName, match="did you mean 'valid'"):
        toy().part("validation")


# ------------------------------------------------------------------ damage


def lose(name: str):
    return lambda folder: (folder / name).unlink()


def cut(name: str):
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def rewrite(**changes: object):
    def damage(folder: Path) -> None:
        told = json.loads((folder / "dataset.json").read_text())
        told = {k: v for k, v in {**told, **changes}.items() if v is not None}
        (folder / "dataset.json").write_text(json.dumps(told))

    return damage


def swap_items(folder: Path) -> None:
    table = pl.read_parquet(folder / "items.parquet").reverse()
    table.write_parquet(folder / "items.parquet")


def drop_column(folder: Path) -> None:
    table = pl.read_parquet(folder / "interactions.parquet").drop("user")
    table.write_parquet(folder / "interactions.parquet")


def drop_rows(folder: Path) -> None:
    table = pl.read_parquet(folder / "interactions.parquet").head(4)
    table.write_parquet(folder / "interactions.parquet")


def no_ids(folder: Path) -> None:
    pl.DataFrame({"name": ["a"]}).write_parquet(folder / "users.parquet")


def a_list(folder: Path) -> None:
    (folder / "dataset.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lose("dataset.json"), "without one"),
        (lose("items.parquet"), "items.parquet"),
        (lose("interactions.parquet"), "interactions.parquet"),
        (cut("dataset.json"), "readable data folder"),
        (cut("users.parquet"), "readable data folder"),
        (cut("interactions.parquet"), "readable data folder"),
        (rewrite(schema=99), "schema 99"),
        (rewrite(name=None), "'name'"),
        (rewrite(fingerprint="0" * 16), "a file was modified"),
        (swap_items, "a file was modified"),
        (drop_rows, "a file was modified"),
        (drop_column, "readable data folder"),
        (no_ids, "user_id"),
        (a_list, "readable data folder"),
    ],
)
def test_damaged_folders_are_told(tmp_path, damage, match):
    folder = tmp_path / "data"
    toy().save(folder)
    damage(folder)
    with pytest.raises(DataError, match=match) as caught:
        Dataset.load(folder)
    assert str(folder) in str(caught.value) or "schema" in match


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Dataset.load(tmp_path / "none")


def test_tables_in_another_order_than_the_rows_are_refused(tmp_path):
    wrong = pl.DataFrame({"item_id": ["20", "10", "30", "40"]})
    with pytest.raises(ValueError, match="not in row order"):
        toy(item_table=wrong).save(tmp_path / "data")
    assert not list(tmp_path.iterdir())
