"""Measuring runs again: by id on data that have grown, and kept for `compare`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import modalign
from modalign.data.dataset import SPLITS, Dataset
from modalign.data.interactions import Interactions
from modalign.data.vocabulary import Vocabulary
from modalign.errors import DataError, RunError
from modalign.experiments.fit import fit
from modalign.experiments.measuring import evaluate
from modalign.report.side_by_side import compare_runs
from modalign.testing.toy import toy_dataset

TOY = toy_dataset(seed=1)


def reordered(data: Dataset, seed: int = 0) -> Dataset:
    """The same data with users and items in other rows, and without their tables."""
    rng = np.random.default_rng(seed)
    users, items = rng.permutation(data.n_users), rng.permutation(data.n_items)
    parts = {}
    for name in SPLITS:
        part = data.part(name)
        parts[name] = Interactions(np.argsort(users)[part.users], np.argsort(items)[part.items])
    return Dataset(
        data.name,
        Vocabulary(data.users.series.gather(users), "user"),
        Vocabulary(data.items.series.gather(items), "item"),
        **parts,
    )


def with_more(data: Dataset) -> Dataset:
    """The data with a new item that every second user has bought, and a new user with history."""
    users = Vocabulary([*data.users, "new"], "user")
    items = Vocabulary([*data.items, "fresh"], "item")
    half = np.arange(0, data.n_users, 2)
    more = Interactions(
        np.concatenate([half, np.full(3, data.n_users)]),
        np.concatenate([np.full(len(half), data.n_items), [0, 1, data.n_items]]),
    )
    test = Interactions(np.array([data.n_users]), np.array([2]))
    return Dataset(
        data.name,
        users,
        items,
        train=Interactions.joined([Interactions(data.train.users, data.train.items), more]),
        valid=data.valid,
        test=Interactions.joined([Interactions(data.test.users, data.test.items), test]),
    )


@pytest.mark.parametrize("name", ["bpr", "ease", "itemknn"])
@pytest.mark.parametrize("mask", ["strict", "train"])
def test_the_same_data_in_other_rows_give_the_same_numbers(name: str, mask: str) -> None:
    options = {"epochs": 2} if name == "bpr" else {}
    fitted = fit(TOY, name, ks=(5, 10), **options)
    other = reordered(TOY)
    assert other.fingerprint != TOY.fingerprint
    # The pairs are those that the run has learned from nothing of: valid and train are the same.
    own = fitted.evaluate("test", mask=mask, ks=(5, 10))
    found = evaluate(fitted, other, mask=mask, ks=(5, 10))
    assert found.n_users == own.n_users
    assert found.remarks == ()
    for metric, value in own.metrics.items():
        # EASE and ItemKNN have ties, which are broken by row.
        assert found.metrics[metric] == pytest.approx(value, abs=0.02), metric
    if name == "bpr":
        both = own.per_user.join(found.per_user, on="user_id", suffix=" by id")
        np.testing.assert_allclose(both["ndcg@10"], both["ndcg@10 by id"], rtol=1e-6)


def test_a_new_user_is_left_out_by_a_model_of_ids_and_scored_from_a_history() -> None:
    grown = with_more(TOY)
    by_id = evaluate(fit(TOY, "bpr", epochs=1, ks=(5,)), grown, ks=(5,))
    assert "new" not in by_id.per_user["user_id"]
    assert f"1 of {by_id.n_users + 1} users are left out" in by_id.remarks[0]
    assert f"1 of {TOY.n_items + 1} items are unknown" in by_id.remarks[1]
    reading = evaluate(fit(TOY, "ease", ks=(5,)), grown, ks=(5,))
    assert "new" in reading.per_user["user_id"]
    assert len(reading.remarks) == 1
    # An item that the run does not know is never listed.
    assert not (reading.ranking.items == TOY.n_items).any()


def test_a_history_is_the_one_of_the_new_data() -> None:
    fitted = fit(TOY, "ease", ks=(5,))
    grown = with_more(TOY)
    found = evaluate(fitted, grown, ks=(5,))
    place = found.per_user["user_id"].to_list().index("new")
    listed = found.ranking.items[place]
    expected = fitted.recommend_for({"new": list(TOY.items.ids([0, 1]))}, k=50)["item_id"].to_list()
    assert TOY.items.ids(listed[:5]) == expected[:5]


def test_what_the_run_has_learned_from_is_not_asked_of_it() -> None:
    fitted = fit(TOY, "bpr", epochs=1, ks=(5,))
    pairs = Interactions(TOY.train.users[:5], TOY.train.items[:5])
    shifted = replace(
        TOY,
        train=TOY.train.take(np.arange(5, len(TOY.train))),
        test=Interactions.joined([Interactions(TOY.test.users, TOY.test.items), pairs]),
    )
    found = evaluate(fitted, shifted, ks=(5,))
    assert "5 pairs are left out: the run has learned from them" in found.remarks
    assert found.per_user["n_relevant"].sum() == len(TOY.test)
    rows = {row: n for n, row in enumerate(found.per_user["user"])}
    for user, item in zip(pairs.users, pairs.items, strict=True):
        if user in rows:
            assert item not in found.ranking.items[rows[user]]


def test_data_without_anything_in_common_are_refused() -> None:
    strangers = replace(TOY, users=Vocabulary([f"x{row}" for row in range(TOY.n_users)], "user"))
    with pytest.raises(DataError, match="the run cannot score them"):
        evaluate(fit(TOY, "bpr", epochs=1, ks=(5,)), strangers)


def test_champion_and_challenger(tmp_path: Path) -> None:
    old = TOY.save(tmp_path / "old")
    new = with_more(TOY).save(tmp_path / "new")
    for data, name, out in ((old, "bpr", "champion"), (new, "ease", "challenger")):
        fit(data, name, out=tmp_path / out, ks=(5, 10), **({"epochs": 2} if name == "bpr" else {}))
    runs = [tmp_path / "champion", tmp_path / "challenger"]
    before = compare_runs(runs, [10])
    assert len(set(before.fingerprints.values())) == 2
    assert before.n_users == before.measured["champion"] == before.measured["challenger"] - 1
    found = evaluate(runs[0], tmp_path / "new", ks=(5, 10))
    after = compare_runs(runs, [10])
    assert set(after.fingerprints.values()) == {new.fingerprint}
    assert after.metrics["champion"]["ndcg@10"] == pytest.approx(found.metrics["ndcg@10"])
    assert modalign.load_model(runs[0]).results["data"] == old.fingerprint


def test_two_masks_and_more_cutoffs_come_together(tmp_path: Path) -> None:
    data = TOY.save(tmp_path / "data")
    for name, mask in (("ease", "strict"), ("popularity", "train")):
        fit(data, name, out=tmp_path / name, mask=mask, ks=(5,))
    runs = [tmp_path / "ease", tmp_path / "popularity"]
    with pytest.raises(RunError, match="one mask"):
        compare_runs(runs)
    found = evaluate(runs[0], mask="train", ks=(5,))
    assert compare_runs(runs).mask == "train"
    assert compare_runs(runs).metrics["ease"]["recall@5"] == pytest.approx(
        found.metrics["recall@5"]
    )
    for run in runs:
        evaluate(run, mask="train", ks=(3,))
    both = compare_runs(runs, [3, 5])
    assert {"recall@3", "recall@5"} <= set(both.metrics["ease"])
    # Kept twice at other cut-offs, the first are still there.
    kept = list((tmp_path / "ease" / "evaluations").glob("*.json"))
    assert len(kept) == 1
    assert {"recall@3", "recall@5"} <= set(json.loads(kept[0].read_text())["test"])
    assert "relevant" in pl.read_parquet(kept[0].with_suffix(".parquet")).columns


def test_a_run_that_is_replaced_takes_its_evaluations_along(tmp_path: Path) -> None:
    data = TOY.save(tmp_path / "data")
    fit(data, "ease", out=tmp_path / "run", ks=(5,))
    evaluate(tmp_path / "run", mask="train")
    fit(data, "ease", out=tmp_path / "run", ks=(5,), overwrite=True, reg=3.0)
    assert not (tmp_path / "run" / "evaluations").exists()


def test_what_is_known_already_is_not_kept_again(tmp_path: Path) -> None:
    data = TOY.save(tmp_path / "data")
    fit(data, "popularity", out=tmp_path / "run", ks=(5, 10))
    evaluate(tmp_path / "run", ks=(5,))
    assert not (tmp_path / "run" / "evaluations").exists()


def test_data_of_the_training_that_are_gone_are_named(tmp_path: Path) -> None:
    data = TOY.save(tmp_path / "data")
    fit(data, "ease", out=tmp_path / "run", ks=(5,))
    with_more(TOY).save(tmp_path / "new")
    shutil.rmtree(tmp_path / "data")
    with_more(TOY).save(tmp_path / "data")
    with pytest.raises(RunError) as caught:
        evaluate(tmp_path / "run", tmp_path / "new")
    assert "other data there" in caught.value.got
    assert "`modalign data append` with another --out" in caught.value.fix
