"""Feedback appended to a prepared folder, held against sets of pairs made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from modalign.core.modality import Modality
from modalign.data.append import append
from modalign.data.dataset import Dataset
from modalign.data.frames import to_frame
from modalign.data.prepare import prepare
from modalign.data.sources._columns import RowRules
from modalign.data.sources.flat_table import read
from modalign.errors import ConfigError, DataError
from modalign.testing.toy import toy_dataset

PARTS = ("train", "valid", "test")


@pytest.fixture
def shop(tmp_path: Path) -> Dataset:
    return toy_dataset(seed=1).save(tmp_path / "shop")


def events(path: Path, *rows: tuple[str, str, str, int]) -> Path:
    names = ["user_id", "item_id", "kind", "time"]
    frame = pl.DataFrame(rows, schema=names, orient="row")
    ids = pl.Series("event_id", [str(n) for n in range(len(rows))])
    frame.with_columns(ids, received=pl.col("time")).write_parquet(path)
    return path


def pairs(dataset: Dataset, part: str) -> set[tuple[str, str]]:
    one = dataset.part(part)
    return set(zip(dataset.users.ids(one.users), dataset.items.ids(one.items), strict=True))


def unseen_pair(dataset: Dataset) -> tuple[str, str]:
    known = set.union(*(pairs(dataset, part) for part in PARTS))
    user = dataset.users.ids([0])[0]
    return next((user, item) for item in dataset.items if (user, item) not in known)


def test_new_pairs_go_to_train_and_the_test_stays(shop: Dataset, tmp_path: Path) -> None:
    user, item = unseen_pair(shop)
    known = next(iter(pairs(shop, "test")))
    file = events(
        tmp_path / "f.parquet",
        (user, item, "click", 5),
        (user, item, "buy", 9),
        ("new-user", item, "like", 7),
        (user, "new-item", "cart", 8),
        (*known, "click", 3),
        ("viewer", item, "view", 3),
        ("hater", item, "dislike", 3),
    )
    made = append(tmp_path / "shop", file, tmp_path / "out")
    new = {(user, item), ("new-user", item), (user, "new-item")}
    assert pairs(made, "train") == pairs(shop, "train") | new
    for part in ("valid", "test"):
        assert pairs(made, part) == pairs(shop, part)
    assert set(made.items) == {*shop.items, "new-item"}
    assert "viewer" not in made.users
    assert made.info["appended"] == [{"interactions": 3, "users": 1, "items": 1, "latest": 9}]
    assert Dataset.load(tmp_path / "out").fingerprint == made.fingerprint


def test_features_follow_their_items_and_new_ones_lack_them(shop: Dataset, tmp_path: Path) -> None:
    numbers = np.arange(shop.n_users * 2, dtype=np.float32).reshape(-1, 2) + 1
    present = np.ones(shop.n_users, bool)
    taste = Modality("taste", numbers, present, "user", {"encoder": "hand"})
    shop.with_modality(taste).save(tmp_path / "shop")
    file = events(tmp_path / "f.parquet", ("a-user", "0-item", "click", 1))
    made = append(tmp_path / "shop", file, tmp_path / "out")
    for name in ("text", "image"):
        old, new = shop.modalities[name], made.modalities[name]
        rows = made.items.rows(list(shop.items))
        np.testing.assert_array_equal(new.features[rows], old.features)
        np.testing.assert_array_equal(new.present[rows], old.present)
        assert not new.present[made.items.rows(["0-item"])].any()
    users = [one for one in made.users if one != "a-user"]
    found = made.modalities["taste"]
    assert found.entity == "user"
    expected = numbers[shop.users.rows(users)]
    np.testing.assert_array_equal(found.features[made.users.rows(users)], expected)
    assert not found.present[made.users.rows(["a-user"])].any()


def test_the_folder_itself_with_pictures_times_and_weights(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for item in range(5):
        Image.new("RGB", (2, 2), (item, 0, 0)).save(tmp_path / "pictures" / f"{item}.png")
    rows = [(u, i, 3.0 + (u + i) % 3, 10 * u + i) for u in range(8) for i in range(5)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")
    raw = read(frame, images=tmp_path / "pictures")
    old = prepare(raw, tmp_path / "shop", split="leave-one-out", seed=1)
    late = events(tmp_path / "f.parquet", ("0", "new", "click", 77), ("0", "1", "click", 78))
    table = pl.DataFrame({"item_id": ["new", "1"], "title": ["A rucksack", "not this"]})
    made = append(tmp_path / "shop", late, tmp_path / "shop", items=table)
    assert made.info["split"]["kind"] == "leave-one-out"
    assert made.info["split"]["counts"]["train"] == len(old.train) + 1
    new = made.items.rows(["new"])[0]
    (place,) = np.flatnonzero(made.train.items == new)
    assert made.train.time is not None
    assert made.train.weight is not None
    assert made.train.time[place] == 77
    assert made.train.weight[place] == 4.0
    assert made.titles()[int(new)] == "A rucksack"
    for item in range(5):
        path = made.image_path(int(made.items.rows([item])[0]))
        assert path is not None
        assert Image.open(path).getpixel((0, 0)) == (item, 0, 0)
    again = append(
        tmp_path / "shop", events(tmp_path / "g.parquet", ("1", "new", "buy", 99)),
        tmp_path / "shop", split="ratio", seed=3,
    )  # fmt: skip
    assert again.info["split"]["kind"] == "ratio"
    assert [one["latest"] for one in again.info["appended"]] == [77, 99]


@pytest.mark.parametrize("kind", ["unseen-users", "cold-items"])
def test_what_is_held_out_stays_so(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(2)
    rows = sorted({(int(u), int(i)) for u, i in rng.integers(0, 40, (900, 2))})
    frame = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    old = prepare(read(frame), tmp_path / "shop", split=kind, seed=1)
    everyone = [(u, i, "click", 1) for u in old.users for i in old.items]
    made = append(tmp_path / "shop", events(tmp_path / "f.parquet", *everyone), tmp_path / "out")
    column = 0 if kind == "unseen-users" else 1
    held = {pair[column] for pair in pairs(old, "test") | pairs(old, "valid")}
    assert {pair[column] for pair in pairs(made, "train")}.isdisjoint(held)
    assert len(made.train) > len(old.train)
    for part in ("valid", "test", "valid_history", "test_history"):
        assert pairs(made, part) == pairs(old, part)
    assert any("held-out" in remark for remark in made.info["remarks"])


def test_a_split_by_time_must_be_made_anew(tmp_path: Path) -> None:
    rows = [(u, i, 10 * u + i) for u in range(12) for i in range(8)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    prepare(read(frame), tmp_path / "shop", split="time")
    file = events(tmp_path / "f.parquet", ("0", "new", "click", 900))
    with pytest.raises(ConfigError, match="--split time"):
        append(tmp_path / "shop", file, tmp_path / "out")
    made = append(tmp_path / "shop", file, tmp_path / "out", split="time")
    assert ("0", "new") in pairs(made, "test")


def test_mistakes_leave_everything_as_it_was(shop: Dataset, tmp_path: Path) -> None:
    good = events(tmp_path / "good.parquet", (*unseen_pair(shop), "click", 1))
    (tmp_path / "text.parquet").write_text("not Parquet")
    pl.DataFrame({"user_id": ["1"]}).write_parquet(tmp_path / "columns.parquet")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for file, out, told in (
        (tmp_path / "none.parquet", "out", "not a file"),
        (tmp_path / "text.parquet", "out", "readable"),
        (tmp_path / "columns.parquet", "out", "item_id"),
        (good, "full", "other files"),
    ):
        with pytest.raises(DataError, match=told):
            append(tmp_path / "shop", file, tmp_path / out)
    with pytest.raises(DataError, match=r"dataset\.json"):
        append(tmp_path / "full", good, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"
    assert Dataset.load(tmp_path / "shop").fingerprint == shop.fingerprint


def test_a_night_without_new_pairs_is_a_success(shop: Dataset, tmp_path: Path) -> None:
    user, item = next(iter(pairs(shop, "train")))
    known = events(tmp_path / "known.parquet", (user, item, "click", 1))
    made = append(tmp_path / "shop", known, tmp_path / "out")
    assert made.fingerprint == shop.fingerprint
    assert made.info["remarks"][-1].startswith("known.parquet has nothing new: 1 pairs")
    assert set(made.modalities) == set(shop.modalities)
    # The next night goes into the same folder, where that is asked for.
    good = events(tmp_path / "good.parquet", (*unseen_pair(shop), "click", 1))
    with pytest.raises(DataError, match="--overwrite"):
        append(tmp_path / "shop", good, tmp_path / "out")
    assert Dataset.load(tmp_path / "out").fingerprint == shop.fingerprint
    again = append(tmp_path / "shop", good, tmp_path / "out", overwrite=True)
    assert len(again.train) == len(shop.train) + 1


def test_no_copy_of_the_old_data_is_changed(shop: Dataset, tmp_path: Path) -> None:
    before = replace(shop)
    append(
        tmp_path / "shop", events(tmp_path / "f.parquet", (*unseen_pair(shop), "buy", 1)),
        tmp_path / "out",
    )  # fmt: skip
    assert before.fingerprint == Dataset.load(tmp_path / "shop").fingerprint


ORDERS = "customer;sku;qty;ordered_at\n"


def a_shop(folder: Path) -> Dataset:
    rows = [f"c{u};s{(u * 3 + k) % 20};1;2025-01-{1 + k:02d}" for u in range(12) for k in range(8)]
    (folder / "orders.csv").write_text(ORDERS + "\n".join(rows))
    return prepare(read(folder / "orders.csv"), folder / "shop", split="ratio", seed=1)


def test_orders_of_the_next_night_are_read_like_those_of_the_import(tmp_path: Path) -> None:
    shop = a_shop(tmp_path)
    user, item = unseen_pair(shop)
    (tmp_path / "night.csv").write_text(
        f"{ORDERS}{user};{item};2;2025-03-02T10:00:00\n{user};{item};5;2025-03-01\n"
        f"new;s1;3;2025-03-03\n{user};s99;-1;2025-03-03\n"
    )
    made = append(tmp_path / "shop", tmp_path / "night.csv", tmp_path / "out")
    assert pairs(made, "train") == pairs(shop, "train") | {(user, item), ("new", "s1")}
    rows = to_frame(made).filter(user_id=user, item_id=item)
    # The latest row of a pair counts, with its own quantity.
    assert rows["weight"].to_list() == [2.0]
    assert rows["time"].to_list() == [1740909600]
    assert any("1 return" in one for one in made.info["remarks"])


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("customer;sku;qty\nc1;s1;1\n", ("column of times", "--time NAME")),
        ("who;what\nc1;s1\n", ("column of users", "who")),
        (ORDERS + "c1;s1;1;2025-03-01\nc1;;1;2025-03-01\n", ("line 3", "'sku'")),
        (ORDERS + "c1;s1;1;yesterday\n", ("line 2", "yesterday")),
    ],
)
def test_bad_orders_are_refused_and_nothing_is_written(
    tmp_path: Path, text: str, facts: tuple[str, str]
) -> None:
    a_shop(tmp_path)
    (tmp_path / "night.csv").write_text(text)
    with pytest.raises(DataError) as refused:
        append(tmp_path / "shop", tmp_path / "night.csv", tmp_path / "out")
    assert all(fact in str(refused.value) for fact in facts)
    assert not (tmp_path / "out").exists()


def test_bad_orders_can_be_left_out_and_are_kept_in_a_file(tmp_path: Path) -> None:
    shop = a_shop(tmp_path)
    user, item = unseen_pair(shop)
    (tmp_path / "night.csv").write_text(
        f"{ORDERS}{user};{item};1;2025-03-01\nc1;;1;2025-03-01\nc2;s2;1;yesterday\n"
        "c3;s3;1;2025-03-01;more\n"
    )
    rules = RowRules(skip_bad=True)
    made = append(tmp_path / "shop", tmp_path / "night.csv", tmp_path / "out", rules=rules)
    assert pairs(made, "train") == pairs(shop, "train") | {(user, item)}
    bad = pl.read_csv(tmp_path / "out" / "bad_rows.csv", infer_schema=False)
    assert bad["ordered_at"].to_list() == ["2025-03-01", "yesterday", None]
    assert bad["reason"].to_list()[2] == "5 fields instead of 4"


def test_columns_of_another_export_are_named(tmp_path: Path) -> None:
    shop = a_shop(tmp_path)
    user, item = unseen_pair(shop)
    (tmp_path / "n.jsonl").write_text(f'{{"w": "{user}", "p": "{item}", "t": "2025-03-01"}}\n')
    columns = {"user": "w", "item": "p", "time": "t"}
    made = append(tmp_path / "shop", tmp_path / "n.jsonl", tmp_path / "out", columns=columns)
    assert pairs(made, "train") == pairs(shop, "train") | {(user, item)}
