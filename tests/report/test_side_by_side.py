"""Runs side by side: seeds as one, names, cut-offs, refusals, groups; oracles by slow loops."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest
import yaml
from reading import changed

from modalign.errors import ConfigError, RunError
from modalign.evaluate.compare import RunResult, compare
from modalign.evaluate.groups import by_activity
from modalign.experiments.fit import load_model
from modalign.report.side_by_side import (
    by_options,
    compare_all,
    compare_runs,
    folder_names,
    popularity_groups,
)


def test_seeds_are_averaged_for_each_user(runs):
    together, alone = by_options([runs.bpr, runs.popularity, runs.bpr_again])
    assert (together.name, alone.name) == ("bpr (2 seeds)", "popularity")
    first, second = (pl.read_parquet(f / "per_user.parquet") for f in (runs.bpr, runs.bpr_again))
    other = {row["user_id"]: row for row in second.to_dicts()}
    for mine, wanted in zip(together.per_user.to_dicts(), first.to_dicts(), strict=True):
        assert mine["user_id"] == wanted["user_id"]
        for key in ("recall@20", "ndcg@10", "hit@5"):
            assert mine[key] == pytest.approx((wanted[key] + other[mine["user_id"]][key]) / 2)
    tests = [
        json.loads((f / "results.json").read_text())["test"] for f in (runs.bpr, runs.bpr_again)
    ]
    for key in tests[0]:
        assert together.metrics[key] == pytest.approx((tests[0][key] + tests[1][key]) / 2)


def test_the_comparison_is_that_of_the_results(runs):
    folders = [runs.bpr, runs.popularity, runs.ease]
    found = compare_runs(folders, ks=[20])
    wanted = compare([RunResult.read(folder) for folder in folders])
    assert found.runs == ["bpr", "popularity", "ease"]
    assert {p.metric.split("@")[1] for p in found.pairs} == {"20"}
    assert found.pairs == [p for p in wanted.pairs if p.metric.endswith("@20")]
    assert found.winner == {k: v for k, v in wanted.winner.items() if k.endswith("@20")}


def test_cut_offs_are_10_and_20_where_shared_else_what_is_shared(runs):
    def ks(found):
        return {int(key.split("@")[1]) for key in found.winner}

    assert ks(compare_runs([runs.bpr, runs.popularity])) == {10, 20}
    assert ks(compare_runs([runs.bpr, runs.other_ks])) == {20}
    assert ks(compare_runs([runs.bpr, runs.popularity], ks=[5, 50])) == {5, 50}
    for folders, wanted in (
        ([runs.bpr, runs.popularity], {5, 10, 20, 50}),
        ([runs.bpr, runs.other_ks], {20}),
        ([runs.bpr, runs.only_7], set()),
    ):
        assert ks(compare_all(folders)[1]) == wanted


def test_cut_offs_that_are_not_there_are_refused(runs):
    with pytest.raises(ConfigError, match=r"\(5, 10, 20, 50\), got 7\b"):
        compare_runs([runs.bpr, runs.popularity], ks=[7, 10])
    with pytest.raises(ConfigError, match="there are none"):
        compare_runs([runs.bpr, runs.only_7])
    with pytest.raises(ConfigError):
        compare_runs([runs.bpr, runs.popularity], ks=[])


def test_one_result_has_no_comparison(runs):
    results, comparison = compare_all([runs.bpr, runs.bpr_again])
    assert [one.name for one in results] == ["bpr (2 seeds)"]
    assert comparison is None
    for folders in ([runs.bpr], [runs.bpr, runs.bpr_again]):
        with pytest.raises(RunError, match=f"got {len(folders[:1])} in"):
            compare_runs(folders)


def test_the_same_run_twice_is_refused(runs, tmp_path):
    copy = shutil.copytree(runs.bpr, tmp_path / "copy")
    for folders in ([runs.bpr, runs.bpr], [runs.bpr, copy, runs.ease]):
        with pytest.raises(RunError, match="every run once"):
            by_options(folders)


def test_other_data_or_another_mask_is_refused(runs, tmp_path):
    """Even where nothing else is compared, as the runs share no cut-off."""
    mask = changed(runs.only_7, tmp_path / "m", {"mask": "train"}, {"mask": "train"})
    data = changed(runs.only_7, tmp_path / "d", {"fingerprint": "0" * 16}, {"data": "0" * 16})
    for one, word in ((mask, "mask"), (data, "fingerprint")):
        for ask in (compare_all, compare_runs):
            with pytest.raises((RunError, ConfigError)):
                ask([runs.ease, one])
        with pytest.raises(RunError, match=word):
            compare_all([runs.ease, one])


def test_a_half_written_run_is_named(runs, tmp_path):
    for name in ("results.json", "per_user.parquet", "config.yaml"):
        broken = shutil.copytree(runs.ease, tmp_path / name)
        (broken / name).unlink()
        with pytest.raises(RunError, match=str(broken)):
            by_options([runs.bpr, broken])


def test_other_options_of_one_model_are_told_apart_by_folder(runs, tmp_path):
    options = yaml.safe_load((runs.bpr / "config.yaml").read_text())["options"]
    more = {"options": options | {"epochs": 4}}
    folders = [
        runs.bpr,
        runs.bpr_again,
        changed(runs.bpr, tmp_path / "four", more),
        changed(runs.bpr, tmp_path / "four-b", more | {"seed": 2}),
    ]
    assert [one.name for one in by_options(folders)] == ["bpr (2 seeds)", "four (2 seeds)"]
    assert [one.name for one in by_options(folders[:3])] == ["bpr (2 seeds)", "four"]


def test_names_are_short_unless_two_are_the_same(tmp_path):
    a, b, c = tmp_path / "x" / "cm3", tmp_path / "y" / "cm3", tmp_path / "z"
    assert folder_names([a, c]) == {a: "cm3", c: "z"}
    assert folder_names([a, b, c]) == {one: str(one) for one in (a, b, c)}


def test_groups_are_slow_loops(runs, shop):
    found = load_model(runs.ease).evaluate("test", ks=[5])
    counts = np.bincount(shop.train.items, minlength=shop.n_items)
    order = sorted(range(shop.n_items), key=lambda item: (-counts[item], item))
    head = set(order[: round(0.2 * shop.n_items)])
    pairs, hits = {"head": 0, "tail": 0}, {"head": 0, "tail": 0}
    for user, ranked in zip(found.ranking.users, found.ranking.items, strict=True):
        for item in shop.test.items[shop.test.users == user]:
            group = "head" if item in head else "tail"
            pairs[group] += 1
            hits[group] += item in ranked[:5]
    for row in popularity_groups(found, shop, 5).to_dicts():
        group = row["group"]
        assert row["n_pairs"] == pairs[group]
        assert row["recall@5"] == pytest.approx(hits[group] / pairs[group])
    (row,) = by_activity(found.per_user).to_dicts()
    assert (row["group"], row["n_users"]) == ("6-8", found.n_users)
    assert row["recall@5"] == pytest.approx(found.metrics["recall@5"])
