"""The job that distils: what it is known by, what a run leaves, and a teacher that changed."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from modalign import distill, sweeps
from modalign.data.dataset import Dataset
from modalign.distillation import DistillJob, sweep_distillation
from modalign.errors import ConfigError, RunError
from modalign.experiments.fit import fit, load_model
from modalign.experiments.options import RunOptions
from modalign.sweeps import SweepPlan
from modalign.sweeps.job import read_dataset
from modalign.testing.toy import toy_dataset

QUICK = {"epochs": 2, "embedding_size": 8, "logit": "sort", "variant": "no-assistant"}


@pytest.fixture
def school(tmp_path: Path) -> tuple[Dataset, Path, Path]:
    """Data, and two teachers of them."""
    data = toy_dataset().save(tmp_path / "toy")
    read_dataset.cache_clear()
    folders = [
        fit(data, "bpr", seed=seed, epochs=1, embedding_size=8, out=tmp_path / f"bpr{seed}").folder
        for seed in (1, 2)
    ]
    return data, folders[0], folders[1]


def job(data: Dataset, *teachers: Path, **rest: object) -> DistillJob:
    run = RunOptions(ks=(5, 20))
    return DistillJob.on(data, teachers, "unused", options=QUICK, run=run, **rest)


def test_it_is_known_by_the_teachers_weights_and_not_by_their_place(school, tmp_path: Path) -> None:
    data, one, two = school
    shutil.copytree(one, tmp_path / "moved" / "teacher")
    made = job(data, one)
    assert job(data, tmp_path / "moved" / "teacher").identity() == made.identity()
    assert job(data, two).identity() != made.identity()
    assert job(data, one, two, weights=[3, 1]).identity()["weights"] == [0.75, 0.25]
    student = made.identity()["base options"]["student"]
    assert student["epochs"] == 2
    assert student["patience"] == 10  # a default, which may change
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.slow
def test_a_run_that_was_torn_is_made_again_and_is_what_distill_makes(
    school, tmp_path: Path
) -> None:
    data, teacher, _ = school
    made, folder = job(data, teacher), tmp_path / "run"
    made.run({"logit_weight": 0.5}, 3, folder)
    (folder / "student" / "config.yaml").unlink()
    made.run({"logit_weight": 0.5}, 3, folder)
    found = load_model(folder / "student").results["valid"]
    alone = distill(teacher, data, seed=3, logit_weight=0.5, **QUICK).student.results["valid"]
    assert found == pytest.approx({key: alone[key] for key in found})


@pytest.mark.slow
def test_a_teacher_that_changed_is_refused(school, tmp_path: Path) -> None:
    data, one, two = school
    made = replace(job(data, one), teachers=(two,))
    with pytest.raises(RunError, match="the teacher that the sweep started with"):
        made.run({}, 1, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_variant_of_a_set_decides_its_own_options(school) -> None:
    data, teacher, _ = school
    made = DistillJob.on(data, [teacher], "unused", options={"logit": "sort"})
    assert made.config({})["losses"]["logit"] == "sort"
    assert made.config({"variant": "no-wasserstein"})["losses"]["logit"] == "kl"
    assert "assistant" not in made.config({"variant": "no-assistant"})
    with pytest.raises(ConfigError, match="makes the variant"):
        made.check({"variant": "no-wasserstein", "logit": "raw"})


@pytest.mark.slow
def test_processes_make_the_same_students(school, tmp_path: Path) -> None:
    data, teacher, _ = school
    grid = {"logit_weight": [0.1, 10.0]}
    found = [
        sweep_distillation(data, teacher, tmp_path / f"s{n}", grid, seeds=(1,), workers=n, **QUICK)
        for n in (1, 2)
    ]
    assert not found[1].failed
    assert found[0].rows[0].name == found[1].rows[0].name


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_with_more_seeds(school, tmp_path: Path) -> None:
    data, teacher, _ = school
    made = job(data, teacher)
    for seeds in ((1,), (1, 2)):
        found = sweeps.run(SweepPlan({"plain": {}}, seeds), made, tmp_path / "s")
        assert found.rows[0].seeds == list(seeds)
