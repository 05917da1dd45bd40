"""From raw data to a prepared folder: joined by id, replaced as a whole, refused in time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from modalign.core.modality import Modality
from modalign.data import prepare as module
from modalign.data.dataset import Dataset
from modalign.data.frames import to_frame
from modalign.data.modality_file import write_modality
from modalign.data.prepare import prepare
from modalign.data.raw import RawData, RawFeatures
from modalign.errors import ConfigError, DataError, InputError, UnknownName


def raw(n_users: int = 12, n_items: int = 8, seed: int = 0, **more: object) -> RawData:
    """Users "u<k>" with about three quarters of the items "1" to "<n_items>"."""
    generator = np.random.default_rng(seed)
    users, items = np.nonzero(generator.random((n_users, n_items)) < 0.75)
    frame = pl.DataFrame(
        {
            "user_id": [f"u{u}" for u in users],
            "item_id": [str(i + 1) for i in items],
            "weight": generator.integers(1, 6, len(users)).astype(np.float32),
            "time": generator.integers(0, 10**9, len(users)),
        }
    )
    return RawData("shop", frame.lazy(), **more)  # type: ignore[arg-type]


def with_pictures(folder: Path, ids: list[str]) -> pl.DataFrame:
    folder.mkdir(exist_ok=True)
    paths = []
    for n in range(len(ids)):
        path = folder / f"file{n}.PNG"
        Image.new("RGB", (n + 1, 1)).save(path, "png")  # as wide as its place
        paths.append(str(path))
    return pl.DataFrame({"item_id": ids, "title": [f"Thing {i}" for i in ids], "image": paths})


def events(dataset: Dataset) -> set[tuple[object, ...]]:
    return set(to_frame(dataset).rows())


# ------------------------------------------------------------------ rows and ids


def test_all_interactions_come_through_with_weight_and_time():
    source = raw()
    data = prepare(source, seed=3)
    frame = source.interactions.collect()
    assert set(to_frame(data).select(frame.columns).rows()) == set(frame.rows())
    assert to_frame(data).height == frame.height
    assert data.train.weight is not None
    assert data.train.weight.dtype == np.float32
    assert data.train.users.dtype == data.train.items.dtype == np.int64


def test_numbers_stand_by_value_and_texts_by_code_point():
    frame = pl.DataFrame({"user_id": ["b", "a", "C"], "item_id": ["10", "9", "007"]})
    log = module.read_log(RawData("x", frame.lazy()), with_split=False)
    assert log.item_ids.to_list() == ["007", "9", "10"]
    assert log.user_ids.to_list() == ["C", "a", "b"]


def test_the_order_of_rows_in_the_file_changes_nothing():
    source = raw()
    frame = source.interactions.collect()
    twice = pl.concat([frame, frame.head(20).with_columns(pl.col("time") + 5)])
    mixed = twice.sample(fraction=1, shuffle=True, seed=5)
    for split in ("ratio", "leave-one-out", "time", "cold-items", "unseen-users"):
        one, two = (
            prepare(RawData("x", f.lazy()), split=split, seed=2, k_core=3) for f in (twice, mixed)
        )
        assert one.fingerprint == two.fingerprint
        assert events(one) == events(two)


def test_parts_do_not_overlap_and_seeds_differ():
    one, two = prepare(raw(), seed=1), prepare(raw(), seed=2)
    pairs = to_frame(one).select("user_id", "item_id")
    assert pairs.is_duplicated().sum() == 0
    assert one.fingerprint != two.fingerprint
    assert one.items.fingerprint == two.items.fingerprint


def test_a_given_split_is_kept_and_a_pair_in_two_parts_is_remarked():
    frame = pl.DataFrame(
        {
            "user_id": ["1", "1", "1", "2", "1"],
            "item_id": ["a", "b", "c", "a", "a"],
            "split": ["train", "valid", "test", "train", "test"],
        }
    )
    data = prepare(RawData("x", frame.lazy()))
    assert data.info["split"] == {
        "kind": "given",
        "seed": None,
        "options": {},
        "counts": {"train": 2, "valid": 1, "test": 2},
    }
    assert set(to_frame(data).select(frame.columns).rows()) == set(frame.rows())
    assert "1 pairs of user and item are in more than one part" in data.info["remarks"][0]
    anew = prepare(RawData("x", pl.concat([frame] * 2).lazy()), split="ratio", duplicates="max")
    assert anew.info["split"]["kind"] == "ratio"
    assert len(anew.train) == 2


def test_ratings_that_some_rows_lack_are_left_out_and_remarked():
    frame = raw().interactions.with_columns(
        weight=pl.when(pl.col("item_id") != "3").then(pl.col("weight"))
    )
    data = prepare(RawData("x", frame))
    assert data.train.weight is None
    assert data.train.time is not None
    assert data.info["remarks"][0].startswith("weight is missing in")


# ------------------------------------------------------------------ filters told


def test_every_filter_leaves_a_line_that_people_can_read():
    source = raw(40, 12)
    frame = source.interactions.collect()
    again = RawData("x", pl.concat([frame, frame.head(7)]).lazy())
    data = prepare(again, min_rating=2, k_core=(4, 5))
    steps = data.info["filters"]
    assert [s["step"] for s in steps] == [
        "as read",
        "rating at least 2",
        "one interaction of each pair (last)",
        "core of 4 and 5",
    ]
    assert steps[0] == {"step": "as read", "users": 40, "items": 12, "interactions": 7 + len(frame)}
    left = [s["interactions"] for s in steps]
    assert left == sorted(left, reverse=True)
    assert left[-1] == to_frame(data).height
    assert to_frame(data)["weight"].min() >= 2


def test_too_little_left_tells_what_each_filter_left():
    with pytest.raises(DataError, match=r"as read: 12 users.*10-core: 0 users, 0 items") as caught:
        prepare(raw(), k_core=10)
    assert "k-core" in caught.value.fix
    with pytest.raises(DataError, match="rating at least 6: 0 users"):
        prepare(raw(), min_rating=6)


# ------------------------------------------------------------------ items, users, features


def test_tables_are_joined_by_id_and_what_is_unknown_is_null(tmp_path):
    items = with_pictures(tmp_path / "p", ["7", "99", "2", "1"])
    users = pl.DataFrame({"user_id": ["u3", "u1"], "age": [30, 10]})
    data = prepare(raw(items=items, users=users), allow_unmatched=True)
    titles = dict(data.item_table.select("item_id", "title").rows())
    assert titles == {str(i): f"Thing {i}" if i in (1, 2, 7) else None for i in range(1, 9)}
    ages = dict(data.user_table.select("user_id", "age").rows())
    assert (ages["u3"], ages["u1"], ages["u0"]) == (30, 10, None)
    path = data.image_path(data.items.rows(["7"])[0])
    assert path is not None
    assert path.read_bytes() == (tmp_path / "p" / "file0.PNG").read_bytes()
    assert "5 of 8 items are not in their table" in data.info["remarks"]
    assert any("1 items of the table have no interaction" in r for r in data.info["remarks"])


def test_items_without_interactions_stay_where_asked():
    items = pl.DataFrame({"item_id": ["99", "3"], "title": ["New", "Three"]})
    data = prepare(raw(items=items), all_items=True, allow_unmatched=True)
    assert data.n_items == 9
    assert data.items.ids([8]) == ["99"]
    assert data.titles()[8] == "New"
    plain = prepare(raw(items=items), allow_unmatched=True)
    assert events(data) == events(plain)
    # An id that sorts before the others moves all rows.
    first = prepare(
        raw(items=pl.DataFrame({"item_id": ["0", "3"]})), all_items=True, allow_unmatched=True
    )
    assert first.items.ids([0]) == ["0"]
    assert events(first) == events(plain)


def test_features_are_joined_by_id_never_by_place():
    ids = pl.Series(["8", "99", "3", "1"])
    matrix = np.array([[8, 8], [99, 99], [3, 3], [1, 1]], np.float16)
    features = {"text": RawFeatures(ids, matrix, np.array([True, True, False, True]), {"by": "me"})}
    data = prepare(raw(features=features))
    modality = data.modalities["text"]
    assert modality.features.dtype == np.float32
    wanted = np.zeros((8, 2), np.float32)
    wanted[7], wanted[0] = 8, 1
    np.testing.assert_array_equal(modality.features, wanted)
    assert np.flatnonzero(modality.present).tolist() == [0, 7]
    assert modality.provenance == {"by": "me"}
    assert "1 rows of modality text are of other items" in data.info["remarks"]


@pytest.mark.parametrize(
    ("ids", "matrix", "match"),
    [
        (["1", "2"], np.ones((3, 2)), "2 ids and an array of shape"),
        (["1", "1"], np.ones((2, 2)), "'1' twice"),
        (["x", "y"], np.ones((2, 2)), "features of 2 other items, such as 'x'"),
        (["1", "2"], np.array([[1, 1], [np.nan, 1]]), "of 1 items, the first '2'"),
        (["1", "2"], np.array([[np.inf, 1], [1, 1]]), "of 1 items, the first '1'"),
        (["1", "2"], np.ones(2), "one row of numbers"),
    ],
)
def test_bad_features_are_told(ids, matrix, match):
    with pytest.raises(DataError, match=match):
        prepare(raw(features={"text": RawFeatures(pl.Series(ids), matrix)}))


def test_an_item_twice_in_its_table_is_told():
    with pytest.raises(DataError, match="'3' twice"):
        prepare(raw(items=pl.DataFrame({"item_id": ["3", "3"]})))


def test_what_the_source_says_of_itself_is_kept(tmp_path):
    told = {"kind": "drawn", "synthetic": True, "remarks": "made by a program", "seed": 9}
    data = prepare(raw(info=told), tmp_path / "out", seed=3)
    assert data.info["synthetic"] is True
    assert (data.info["source"], data.info["seed"]) == ("drawn", 9)
    assert data.info["split"]["seed"] == 3
    assert data.info["remarks"] == ["made by a program"]


# ------------------------------------------------------------------ the folder


def test_the_folder_says_what_the_memory_says(tmp_path):
    items = with_pictures(tmp_path / "p", ["a/b:c é", "2"])
    frame = raw().interactions.with_columns(pl.col("item_id").replace({"1": "a/b:c é"}))
    features = {"text": RawFeatures(pl.Series(["2"]), np.ones((1, 3)))}
    source = RawData("shop", frame, items, features=features, info={"licence": "mine"})
    stages: list[str] = []
    data = prepare(source, tmp_path / "out", seed=1, progress=stages.append, allow_unmatched=True)
    memory = prepare(source, seed=1, allow_unmatched=True)
    loaded = Dataset.load(tmp_path / "out")
    for one in (data, loaded):
        assert one.folder == tmp_path / "out"
        assert one.fingerprint == memory.fingerprint
        assert events(one) == events(memory)
        assert one.info == json.loads(json.dumps(memory.info))
        assert one.modalities["text"].fingerprint == memory.modalities["text"].fingerprint
        for item in range(one.n_items):
            ours, theirs = one.image_path(item), memory.image_path(item)
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:
                assert ours.parent == tmp_path / "out" / "images"
                assert ours.read_bytes() == theirs.read_bytes()
    assert loaded.info["licence"] == "mine"
    assert stages[0] == "reading interactions (1 of 5)"
    assert len(stages) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "p"]


def test_linked_pictures_stay_where_they_are(tmp_path):
    items = with_pictures(tmp_path / "p", ["2"])
    data = prepare(raw(items=items), tmp_path / "out", images="link", allow_unmatched=True)
    path = data.image_path(data.items.rows(["2"])[0])
    assert path == tmp_path / "p" / "file0.PNG"
    assert not (tmp_path / "out" / "images").exists()


def test_pictures_are_copied_never_linked(tmp_path):
    items = with_pictures(tmp_path / "p", ["2"])
    data = prepare(raw(items=items), tmp_path / "out", allow_unmatched=True)
    path = data.image_path(data.items.rows(["2"])[0])
    assert path is not None
    assert path.read_bytes() == Path(items["image"][0]).read_bytes()
    assert path.stat().st_nlink == 1


def test_named_pictures_that_are_not_there_are_null_and_remarked(tmp_path):
    items = with_pictures(tmp_path / "p", ["2", "3"])
    Path(items["image"][0]).unlink()
    data = prepare(raw(items=items), tmp_path / "out", allow_unmatched=True)
    assert data.image_path(data.items.rows(["2"])[0]) is None
    assert data.image_path(data.items.rows(["3"])[0]) is not None
    assert "1 of the pictures not taken: no such file (2)" in data.info["remarks"]


def test_importing_again_leaves_nothing_of_the_old_folder(tmp_path):
    out = tmp_path / "out"
    old = prepare(raw(items=with_pictures(tmp_path / "p", ["2"])), out, allow_unmatched=True)
    mine = Modality("image", np.ones((old.n_items, 2), np.float32), np.ones(old.n_items, bool))
    write_modality(out / "modalities", mine, old.items)
    (out / "cache").mkdir()
    assert set(Dataset.load(out).modalities) == {"image"}
    with pytest.raises(DataError, match=r"holds a prepared data set.*--overwrite"):
        prepare(raw(9, 6, seed=4), out)
    new = prepare(raw(9, 6, seed=4), out, overwrite=True)
    assert new.n_items == 6
    assert not new.modalities
    assert sorted(p.name for p in out.iterdir()) == [
        "dataset.json",
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]
    assert Dataset.load(out).fingerprint == new.fingerprint


def test_a_failure_while_writing_leaves_the_old_folder(tmp_path, monkeypatch):
    out = tmp_path / "out"
    old = prepare(raw(), out)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            prepare(raw(9, 6, seed=4), out, overwrite=True)
    assert Dataset.load(out).fingerprint == old.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failure_at_the_last_rename_brings_the_old_folder_back(tmp_path, monkeypatch):
    out = tmp_path / "out"
    old = prepare(raw(), out)
    real = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(target) == out and str(source).endswith(".part"):
            raise OSError("no")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no"):
            prepare(raw(9, 6, seed=4), out, overwrite=True)
    assert Dataset.load(out).fingerprint == old.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_import_left_is_put_back(tmp_path):
    out = tmp_path / "out"
    prepare(raw(), out)
    out.rename(tmp_path / ".out.999999999.old")
    new = prepare(raw(9, 6, seed=4), out, overwrite=True)
    assert Dataset.load(out).fingerprint == new.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_import_left_is_put_back_even_where_the_next_one_fails(tmp_path, monkeypatch):
    out = tmp_path / "out"
    old = prepare(raw(), out)
    out.rename(tmp_path / ".out.999999999.old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            prepare(raw(9, 6, seed=4), out, overwrite=True)
    assert Dataset.load(out).fingerprint == old.fingerprint


@pytest.mark.parametrize("what", ["folder", "file"])
def test_other_peoples_things_are_not_overwritten(tmp_path, what):
    out = tmp_path / "out"
    if what == "folder":
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    else:
        out.write_text("mine")
    with pytest.raises(DataError, match=r"other files|which is a file"):
        prepare(raw(), out)
    assert (out / "thesis.txt" if what == "folder" else out).read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    assert prepare(raw(), tmp_path / "out").folder == tmp_path / "out"


# ------------------------------------------------------------------ bad options

NO_SPLIT = {"user_id": ["1"], "item_id": ["a"]}


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"split": "leave-one-in"}, UnknownName, "did you mean 'leave-one-out'"),
        ({"split": "given"}, DataError, "come with their split"),
        ({"split_options": {"shares": 1}}, ConfigError, "'shares'"),
        ({"k_core": -1}, ConfigError, "k_core.0 of .*greater than or equal to 0"),
        ({"duplicates": "newest"}, ConfigError, "'newest'"),
        ({"images": "move"}, ConfigError, "'move'"),
    ],
)
def test_bad_options_are_told_and_nothing_is_written(tmp_path, options, error, match):
    with pytest.raises(error, match=match):
        prepare(raw(), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("frame", "options", "match"),
    [
        ({**NO_SPLIT, "split": ["training"]}, {}, "'training'"),
        ({**NO_SPLIT, "split": ["train"]}, {}, "nothing for valid and test"),
        ({**NO_SPLIT, "split": ["train"]}, {"split_options": {"train": 8}}, "no options"),
        (NO_SPLIT, {"min_rating": 3}, "without ratings"),
        (NO_SPLIT, {"split": "time"}, "column of times, .* got x without one"),
        (NO_SPLIT, {}, "three interactions"),
        ({"user_id": [], "item_id": []}, {}, "none in x"),
        ({"user_id": ["1", None], "item_id": ["a", "b"]}, {}, "1 rows without one"),
    ],
)
def test_bad_data_are_told(frame, options, match):
    table = pl.DataFrame(frame, schema_overrides={"user_id": pl.String, "item_id": pl.String})
    with pytest.raises(InputError, match=match) as caught:
        prepare(RawData("x", table.lazy()), **options)
    assert caught.value.expected
    assert caught.value.fix
