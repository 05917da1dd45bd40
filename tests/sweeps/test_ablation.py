"""The ablation table against its parts computed by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from modalign import sweeps
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.errors import ConfigError, DataError, UnknownName
from modalign.evaluate.compare import RunResult
from modalign.sweeps import ablation
from modalign.testing.toy import toy_dataset

VARIANTS = ("without-pruning", "without-content-loss")
CALL = {"seeds": (1, 2), "epochs": 3, "ks": (5, 20)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> sweeps.Ablation:
    folder = tmp_path_factory.mktemp("ablation")
    return sweeps.ablate(toy_dataset(seed=1), "freedom", folder, **CALL)


def per_user(made: sweeps.Ablation, name: str, metric: str) -> np.ndarray:
    """Values of each user, the mean over seeds."""
    frames = [
        pl.read_parquet(run.folder / "per_user.parquet")
        for run in made.sweep.runs
        if run.name == name
    ]
    assert len(frames) == 2
    return np.mean([frame.sort("user_id")[metric].to_numpy() for frame in frames], axis=0)


@pytest.mark.slow
def test_the_full_model_comes_first_then_the_variants_as_declared(made: sweeps.Ablation) -> None:
    assert [row.name for row in made.rows] == ["full", *VARIANTS]
    assert made.rows[0].options == {}
    assert made.rows[1].options == {"dropout": 0.0}


@pytest.mark.parametrize("metric", ["recall@20", "ndcg@20"])
@pytest.mark.slow
def test_differences_tests_and_holm_by_hand(made: sweeps.Ablation, metric: str) -> None:
    full = per_user(made, "full", metric)
    raw = []
    for name in VARIANTS:
        other = per_user(made, name, metric)
        test = made.test(name, metric)
        assert test is not None
        assert test.difference == pytest.approx(full.mean() - other.mean())
        raw.append(stats.ttest_rel(full, other).pvalue)
        assert test.t_test == pytest.approx(raw[-1])
    low, high = sorted(raw)
    by_hand = {low: min(1.0, 2 * low), high: max(min(1.0, 2 * low), high)}
    for name, p in zip(VARIANTS, raw, strict=True):
        assert made.test(name, metric).corrected == pytest.approx(by_hand[p])


def test_between_seeds_by_hand(made: sweeps.Ablation, monkeypatch: pytest.MonkeyPatch) -> None:
    means = {
        "full": [0.30, 0.32],
        "without-pruning": [0.27, 0.28],
        "without-content-loss": [0.31, 0.305, 0.29],
    }
    users = pl.DataFrame({"user_id": ["a", "b", "c"], "recall@20": [0.1, 0.2, 0.6]})

    def read(found: sweeps.Sweep, name: str) -> list[RunResult]:
        return [
            RunResult(name, {"recall@20": value}, users, "strict", "of the data", "ratio")
            for value in means[name]
        ]

    monkeypatch.setattr(ablation, "_read", read)
    p, q = (
        stats.ttest_ind(means["full"], means[name], equal_var=False).pvalue for name in VARIANTS
    )
    found = {
        test.second: test.corrected_between_seeds for test in ablation.against_first(made.sweep)
    }
    assert p < q < 1  # so Holm doubles the first alone
    assert found == {VARIANTS[0]: pytest.approx(2 * p), VARIANTS[1]: pytest.approx(max(q, 2 * p))}


@pytest.mark.slow
def test_one_seed_has_no_test_between_seeds(tmp_path: Path) -> None:
    made = sweeps.ablate(toy_dataset(seed=1), "freedom", tmp_path, seeds=(1,), epochs=1, ks=(20,))
    assert {test.corrected_between_seeds for test in made.tests} == {None}


def test_the_means_are_those_of_the_runs(made: sweeps.Ablation) -> None:
    for row in made.rows:
        values = [run.value("recall@20", "test") for run in made.sweep.runs if run.name == row.name]
        assert row.test["recall@20"].mean == pytest.approx(np.mean(values))
        assert row.test["recall@20"].std == pytest.approx(np.std(values, ddof=1))
        assert row.test["recall@20"].mean == pytest.approx(
            per_user(made, row.name, "recall@20").mean()
        )


def test_what_is_written_is_what_is_returned(made: sweeps.Ablation) -> None:
    written = json.loads((made.sweep.folder / "results.json").read_text())
    assert written == json.loads(json.dumps(made.to_dict()))
    frame = pl.read_csv(made.sweep.folder / "results.csv")
    assert frame["name"].to_list() == ["full", *VARIANTS]
    assert (made.sweep.folder / "settings.png").is_file()
    assert (made.sweep.folder / "differences.png").is_file()


@pytest.mark.slow
def test_a_variant_wins_over_the_options_of_all_runs(tmp_path: Path) -> None:
    data = toy_dataset(seed=1)
    found = sweeps.ablate(
        data, "freedom", tmp_path, ["without-pruning"], **{**CALL, "seeds": (1,)}, dropout=0.5
    )
    dropouts = [options_of(run.folder)["dropout"] for run in found.sweep.runs]
    assert dropouts == [0.5, 0.0]


@pytest.mark.slow
def test_without_validation_there_is_still_a_table(tmp_path: Path) -> None:
    data = replace(toy_dataset(seed=1), valid=Interactions.empty())
    found = sweeps.ablate(data, "freedom", tmp_path, [VARIANTS[0]], **{**CALL, "seeds": (1,)})
    assert found.test(VARIANTS[0], "recall@20") is not None
    assert [row.valid for row in found.rows] == [{}, {}]


def options_of(folder: Path) -> dict:
    from modalign.experiments.fit import read_run

    return read_run(folder)[0]["options"]


def test_mistakes(tmp_path: Path) -> None:
    data: Dataset = toy_dataset(seed=1)
    bare = replace(data, test=Interactions.empty())
    for call, error, words in [
        ({"variants": ["without-prunning"]}, UnknownName, "without-pruning"),
        ({"variants": []}, ConfigError, "one or more"),
        ({"variants": [VARIANTS[0], VARIANTS[0]]}, ConfigError, "different variants"),
        ({"dropout": 0.0}, ConfigError, "differs from freedom"),
        ({"metric": "recall@7"}, ConfigError, "recall@7"),
    ]:
        with pytest.raises(error, match=words):
            sweeps.ablate(data.save(tmp_path / "toy"), "freedom", tmp_path / "out", **call)
    with pytest.raises(ConfigError, match="bpr, which has none"):
        sweeps.ablate(data, "bpr", tmp_path / "out")
    with pytest.raises(DataError, match="test part"):
        sweeps.ablate(bare, "freedom", tmp_path / "out")
