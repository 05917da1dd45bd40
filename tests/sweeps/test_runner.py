"""Plans carried out: what stays, what is made again, what is refused; with a job of no cost."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from filelock import FileLock
from sweep_jobs import Formula

from modalign import sweeps
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, DataError, RunError, TrainingError
from modalign.models._registry import get
from modalign.sweeps import FitJob, Progress, SweepPlan
from modalign.testing.toy import toy_dataset

PLAN = SweepPlan.of_grid({"x": [1, 3, 2], "y": ["a"]}, (1, 2))


def tries(folder: Path) -> dict[str, int]:
    """How often every run was begun."""
    return {
        str(path.parent.relative_to(folder / "runs")): len(path.read_text())
        for path in sorted((folder / "runs").glob("*/*/tries"))
    }


def test_a_table_sorted_by_validation_with_means_and_deviations(tmp_path: Path) -> None:
    found = sweeps.run(PLAN, Formula(), tmp_path)
    assert [row.options["x"] for row in found.rows] == [3, 2, 1]
    best = found.best
    # By hand: 3.01 and 3.02; half the squared distance of two values is their variance.
    assert best.valid["recall@20"].mean == pytest.approx(3.015)
    assert best.valid["recall@20"].std == pytest.approx(0.01 / 2**0.5)
    assert best.test["recall@20"].mean == pytest.approx(-3.015)
    assert (best.seeds, best.failed, best.parameters, best.seconds) == ([1, 2], [], 7, 2.0)
    assert set(tries(tmp_path).values()) == {1}
    assert len(tries(tmp_path)) == 6


def test_what_is_written_is_what_is_returned(tmp_path: Path) -> None:
    found = sweeps.run(PLAN, Formula(), tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == json.loads(json.dumps(found.to_dict()))
    for run in written["runs"]:
        assert (tmp_path / run["folder"] / "results.json").is_file()
    frame = pl.read_csv(tmp_path / "results.csv")
    assert frame["x"].to_list() == [3, 2, 1]
    assert frame.columns[-4:] == [
        "valid recall@20", "valid recall@20 std", "test recall@20", "test recall@20 std"
    ]  # fmt: skip


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    found = sweeps.run(SweepPlan.of_grid({"x": [1, 2]}), Formula(), tmp_path)
    assert found.best.valid["recall@20"].std is None


@pytest.mark.slow
def test_finished_runs_stay_and_missing_ones_are_made(tmp_path: Path) -> None:
    first = sweeps.run(PLAN, Formula(), tmp_path)
    lost = first.runs[3].folder / "results.json"
    lost.unlink()
    again = sweeps.run(PLAN, Formula(), tmp_path)
    assert again.to_dict() == first.to_dict()
    assert sorted(tries(tmp_path).values()) == [1] * 5 + [2]


def test_more_seeds_may_be_asked_for_but_not_fewer(tmp_path: Path) -> None:
    sweeps.run(SweepPlan(PLAN.settings, (1,), PLAN.grid), Formula(), tmp_path)
    found = sweeps.run(PLAN, Formula(), tmp_path)
    assert found.best.seeds == [1, 2]
    assert set(tries(tmp_path).values()) == {1}
    with pytest.raises(RunError, match="seeds"):
        sweeps.run(SweepPlan(PLAN.settings, (2,), PLAN.grid), Formula(), tmp_path)


@pytest.mark.parametrize(
    ("plan", "job", "what"),
    [
        (PLAN, Formula("other"), "data fingerprint"),
        (SweepPlan.of_grid({"x": [1, 2]}, (1, 2)), Formula(), "grid"),
        (
            SweepPlan(dict(list(PLAN.settings.items())[:2]), (1, 2), PLAN.grid),
            Formula(),
            "settings",
        ),
    ],
)
def test_another_experiment_is_refused(plan, job, what: str, tmp_path: Path) -> None:
    sweeps.run(PLAN, Formula(), tmp_path)
    before = (tmp_path / "sweep.yaml").read_text()
    with pytest.raises(RunError) as told:
        sweeps.run(plan, job, tmp_path)
    assert what in told.value.expected
    assert "another experiment" in told.value.got
    assert (tmp_path / "sweep.yaml").read_text() == before


@pytest.mark.slow
def test_a_folder_begun_with_other_defaults_is_refused(tmp_path: Path) -> None:
    data, grid = toy_dataset(), {"learning_rate": [0.01, 0.1]}
    sweeps.sweep(data, "bpr", tmp_path, grid, epochs=1)
    path = tmp_path / "sweep.yaml"
    written = yaml.safe_load(path.read_text())
    assert written["base options"].pop("patience") == get("bpr").config().patience
    assert written["base options"]["epochs"] == 1
    written["base options"] |= {"patience": 7, "batch_size": 100, "of_old": None}
    path.write_text(yaml.safe_dump(written))
    with pytest.raises(RunError) as told:
        sweeps.sweep(data, "bpr", tmp_path, grid, epochs=1, batch_size=100)
    # What is the same is not told.
    assert "{'of_old': None, 'patience': 7}, as in the sweep in" in told.value.expected
    assert "{'patience': 20}, of another experiment" in told.value.got
    assert "a default may have changed" in told.value.fix


def test_folders_that_are_none_of_a_sweep_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "sweep.yaml").write_text("kind: [")
    for name in ("full", "file", "torn"):
        with pytest.raises(RunError):
            sweeps.run(PLAN, Formula(), tmp_path / name)


def test_a_folder_that_another_sweep_is_at_is_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(RunError, match="another sweep is running"):
        sweeps.run(PLAN, Formula(), tmp_path)
    sweeps.run(PLAN, Formula(), tmp_path)


def test_a_folder_killed_before_its_description_was_whole_is_used(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".sweep.yaml.123.part").write_text("kind: [")
    sweeps.run(PLAN, Formula(), tmp_path)


def test_options_the_job_refuses_are_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="x up to 99"):
        sweeps.run(SweepPlan.of_grid({"x": [1, 100]}), Formula(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_run_that_fails_ends_alone_and_is_tried_again(tmp_path: Path) -> None:
    plan = SweepPlan({"good": {"x": 1}, "bad": {"x": 2, "mood": "fails"}}, (1,))
    for n in (1, 2):
        found = sweeps.run(plan, Formula(), tmp_path)
        assert [row.name for row in found.rows] == ["good", "bad"]
        assert [run.error for run in found.failed] == ["the loss became nan"]
        assert found.rows[1].failed == [1]
        assert tries(tmp_path) == {"bad/seed-1": n, "good/seed-1": 1}


def test_where_all_runs_fail_there_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="none of 1 runs came to a result: the loss"):
        sweeps.run(SweepPlan({"bad": {"x": 2, "mood": "fails"}}, (1,)), Formula(), tmp_path)
    assert not (tmp_path / "results.json").exists()


def test_a_result_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    found = sweeps.run(PLAN, Formula(), tmp_path)
    (found.runs[0].folder / "results.json").write_text("{")
    with pytest.raises(RunError) as told:
        sweeps.run(PLAN, Formula(), tmp_path)
    assert str(found.runs[0].folder) in told.value.fix


def test_a_metric_that_the_runs_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        sweeps.run(PLAN, Formula(), tmp_path, metric="ndcg@20")
    assert "recall@20" in told.value.expected
    assert sweeps.run(PLAN, Formula(), tmp_path).best.options["x"] == 3
    assert set(tries(tmp_path).values()) == {1}


def test_progress_counts_names_the_best_and_tells_the_time_left(tmp_path: Path) -> None:
    seen: list[Progress] = []
    sweeps.run(SweepPlan.of_grid({"x": [1, 3, 2]}), Formula(), tmp_path, progress=seen.append)
    assert [(one.done, one.total) for one in seen] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [one.best and one.best.name for one in seen] == [None, "x=1", "x=3", "x=3"]
    assert [one.last and one.last.name for one in seen] == [None, "x=1", "x=3", "x=2"]
    assert seen[0].seconds_left is None
    assert seen[1].seconds_left is not None
    assert seen[3].seconds_left == 0.0
    seen.clear()
    sweeps.run(SweepPlan.of_grid({"x": [1, 3, 2]}), Formula(), tmp_path, progress=seen.append)
    assert [(one.done, one.best and one.best.name) for one in seen] == [(3, "x=3")]


# ------------------------------------------------------------------ training


@pytest.mark.slow
def test_a_grid_of_trainings_goes_on_where_one_was_interrupted(tmp_path: Path) -> None:
    data = toy_dataset(seed=1)
    call = {"plan": {"learning_rate": [0.01, 0.1]}, "seeds": (1, 2), "epochs": 2, "ks": (5, 20)}
    whole = sweeps.sweep(data, "bpr", tmp_path / "a", **call)
    first = sweeps.sweep(data, "bpr", tmp_path / "b", **call)
    torn = first.runs[1].folder
    (torn / "results.json").unlink()
    (torn / ".results.json.123.part").write_text("{")
    bare = first.runs[2].folder  # killed before its description was there
    for name in ("results.json", "config.yaml"):
        (bare / name).unlink()
    again = sweeps.sweep(data, "bpr", tmp_path / "b", **call)
    assert [(row.name, row.valid, row.test) for row in again.rows] == [
        (row.name, row.valid, row.test) for row in whole.rows
    ]
    assert not list((tmp_path / "b" / "runs").rglob("*.part"))


@pytest.mark.slow
def test_data_in_memory_are_kept_once_and_not_mixed(tmp_path: Path) -> None:
    grid = {"damping": [0.0, 1.0]}
    sweeps.sweep(toy_dataset(seed=1), "popularity", tmp_path, grid)
    assert Dataset.load(tmp_path / "data").fingerprint == toy_dataset(seed=1).fingerprint
    sweeps.sweep(toy_dataset(seed=1), "popularity", tmp_path, grid)
    with pytest.raises(RunError, match="other data or features"):
        sweeps.sweep(toy_dataset(seed=2), "popularity", tmp_path, grid)


def test_data_that_changed_meanwhile_fail_the_run(tmp_path: Path) -> None:
    data = toy_dataset(seed=1).save(tmp_path / "toy")
    job = FitJob.on(data, "popularity", tmp_path / "out")
    toy_dataset(seed=2).save(tmp_path / "toy")
    with pytest.raises(RunError, match="the data that the sweep started with"):
        job.run({}, 1, tmp_path / "out" / "run")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ({"plan": {"rge": [1]}}, ConfigError),
        ({"plan": {"damping": [0.5, 2.0]}}, ConfigError),
        ({"plan": {"damping": [0.5]}, "damping": 1.0}, ConfigError),
        ({"plan": {}}, ConfigError),
        ({"plan": {"damping": [0.5]}, "metric": "recall@7"}, ConfigError),
        ({"plan": {"damping": [0.5]}, "metric": "novelty@20"}, ConfigError),
        ({"plan": {"damping": [0.5]}, "workers": 0}, ConfigError),
        ({"plan": {"damping": [0.5]}, "device": "abacus"}, ConfigError),
    ],
)
def test_mistakes_are_told_before_a_run_begins(call, error, tmp_path: Path) -> None:
    data = toy_dataset(seed=1).save(tmp_path / "toy")
    with pytest.raises(error):
        sweeps.sweep(data, "popularity", tmp_path / "out", **call)
    assert not (tmp_path / "out").exists()


def test_without_validation_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    from dataclasses import replace

    from modalign.data.interactions import Interactions

    data = replace(toy_dataset(), valid=Interactions.empty())
    with pytest.raises(DataError, match="validation part"):
        sweeps.sweep(data, "popularity", tmp_path, {"damping": [0.0]})
