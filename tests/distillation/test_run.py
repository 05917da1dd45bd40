"""The whole of a distillation: stages, run folders, teachers of every kind, refusals, resume."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from torch.testing import assert_close

import modalign
from modalign.distillation import teachers
from modalign.distillation.source import MixedSource, factors, source_of
from modalign.errors import ConfigError, RunError
from modalign.evaluate.protocol import Evaluator
from modalign.experiments.fit import fit, load_model
from modalign.experiments.options import RunOptions
from modalign.export.export_run import export_run
from modalign.testing.toy import toy_dataset

QUICK = {"epochs": 3, "embedding_size": 8, "batch_size": 128, "logit": "sort"}
DATA = toy_dataset()


@pytest.fixture(scope="module")
def teacher():
    return fit(DATA, "cm3", epochs=2, embedding_size=8)


@pytest.fixture(scope="module")
def made(teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("tarec") / "run"
    return modalign.distill(teacher, DATA, out=out, seed=3, **QUICK), out


@pytest.mark.slow
def test_both_stages_are_runs_like_any_other(made):
    found, out = made
    for stage, model in (("assistant", "lightgcn"), ("student", "mlprec")):
        loaded = load_model(out / stage)
        assert loaded.spec.name == model
        assert loaded.results == getattr(found, stage).results
        assert loaded.results["distillation"]["stage"] == stage
        assert loaded.results["test"]["recall@20"] >= 0
        assert len(loaded.recommend(["u1"], k=3)) == 3
    told = json.loads((out / "teacher.json").read_text())
    assert told["teacher"] == "cm3"
    assert told["stages"]["student"]["test"] == found.student.results["test"]


@pytest.mark.slow
def test_the_student_learns_from_the_assistant_and_it_from_the_teacher(made):
    found, _ = made
    assert found.assistant.results["distillation"]["from"] == "cm3"
    assert found.student.results["distillation"]["from"] == "assistant"


def test_the_student_starts_from_the_assistants_own_vectors(teacher):
    options = {**QUICK, "student.epochs": 0}
    del options["epochs"]
    found = modalign.distill(teacher, DATA, seed=3, **options, **{"assistant.epochs": 3})
    start = found.student.model.ego_tables()
    of_assistant = source_of(found.assistant.model, DATA.view()).vectors
    of_teacher = source_of(teacher.model, DATA.view())
    for mine, given in zip(start, of_assistant, strict=True):
        assert_close(mine.detach(), given)
    for mine, other in zip(start, factors(of_teacher, 8), strict=True):
        assert (mine - other).abs().max() > 1e-3


@pytest.mark.slow
def test_the_same_seed_gives_the_same_student(teacher, made):
    again = modalign.distill(teacher, DATA, seed=3, **QUICK)
    assert_close(again.student.model.state_dict(), made[0].student.model.state_dict())
    other = modalign.distill(teacher, DATA, seed=4, **QUICK)
    assert any(
        not value.equal(other.student.model.state_dict()[name])
        for name, value in again.student.model.state_dict().items()
    )


@pytest.mark.parametrize("variant", ["no-assistant", "no-assistant-no-wasserstein"])
def test_without_assistant_there_is_one_stage(teacher, tmp_path, variant):
    options = {**QUICK, "logit": "kl"} if variant.endswith("wasserstein") else QUICK
    found = modalign.distill(teacher, DATA, variant=variant, out=tmp_path / "x", **options)
    assert found.assistant is None
    assert found.student.results["distillation"]["from"] == "cm3"
    assert not (tmp_path / "x" / "assistant").exists()


@pytest.mark.slow
def test_a_finished_assistant_is_not_trained_again(teacher, tmp_path, made):
    found, _ = made
    out = tmp_path / "killed"
    modalign.distill(teacher, DATA, out=out, seed=3, **QUICK)
    (out / "student" / "results.json").unlink()
    before = (out / "assistant" / "results.json").stat().st_mtime_ns
    run = RunOptions(resume=True)
    again = modalign.distill(teacher, DATA, out=out, seed=3, run=run, **QUICK)
    assert (out / "assistant" / "results.json").stat().st_mtime_ns == before
    assert_close(again.student.model.state_dict(), found.student.model.state_dict())


def test_going_on_with_another_distillation_is_refused(teacher, made):
    _, out = made
    run = RunOptions(resume=True)
    with pytest.raises(RunError, match="of another"):
        modalign.distill(teacher, DATA, out=out, seed=3, run=run, **{**QUICK, "p": 1.0})
    with pytest.raises(RunError, match="finished run"):
        modalign.distill(teacher, DATA, out=out, seed=3, **QUICK)


def test_any_kind_of_teacher_can_be_trained_first(tmp_path):
    options = {"teacher_options": {"reg": 10.0}, "out": tmp_path / "x"}
    found = modalign.distill(None, DATA, teacher_kind="ease", **options, **QUICK)
    assert found.teachers == ("ease",)
    assert load_model(tmp_path / "x" / "teacher").config.reg == 10.0


@pytest.mark.slow
def test_an_artifact_teaches_as_its_model_does(teacher, tmp_path):
    export_run(teacher, tmp_path / "vectors", adapter=False)
    by_folder = modalign.distill(tmp_path / "vectors", DATA, seed=3, **QUICK)
    by_model = modalign.distill(teacher, DATA, seed=3, **QUICK)
    assert_close(by_folder.student.model.state_dict(), by_model.student.model.state_dict())


def test_an_artifact_of_others_or_without_vectors_is_refused(teacher, tmp_path):
    export_run(teacher, tmp_path / "vectors", adapter=False)
    view = DATA.view()
    source = teachers.read_teacher(tmp_path / "vectors", DATA)
    live = teacher.model.scorer()
    assert_close(source.vectors, (live.users, live.items))
    assert source.name == "cm3"
    for kind in ("user", "item"):
        other = replace(view, **{f"{kind}_ids": "other"})
        with pytest.raises(RunError, match=f"of the {kind}s of these data"):
            teachers.read_teacher(tmp_path / "vectors", DATA, other)
    export_run(fit(DATA, "ease"), tmp_path / "ease", adapter=False)
    with pytest.raises(RunError, match="scores without"):
        teachers.read_teacher(tmp_path / "ease", DATA)


def test_several_teachers_are_mixed_with_the_weights_best_on_validation(teacher):
    ease = fit(DATA, "ease")
    found = modalign.distill([teacher, ease], DATA, **QUICK)
    assert found.teachers == ("cm3", "ease")
    sources = [source_of(one.model, DATA.view()) for one in (teacher, ease)]
    scores = {}
    for tenth in range(11):
        pair = (tenth / 10, 1 - tenth / 10)
        judged = teachers._Judged(MixedSource(sources, pair))
        measured = Evaluator(DATA, "valid", "train", (20,)).run(judged)
        scores[tenth] = measured.metrics["recall@20"]
    assert scores[round(10 * found.weights[0])] == max(scores.values())


def test_given_weights_are_taken(teacher):
    ease = fit(DATA, "ease")
    found = modalign.distill([teacher, ease], DATA, weights=[3, 1], **QUICK)
    assert found.weights == (0.75, 0.25)


def test_a_teacher_of_other_data_is_refused_with_what_differs(teacher):
    other = toy_dataset(seed=5)
    with pytest.raises(RunError, match=DATA.fingerprint):
        modalign.distill(teacher, other, **QUICK)


@pytest.mark.parametrize(
    ("given", "kind", "weights", "words"),
    [
        (None, None, None, "neither"),
        ([], None, None, "an empty list"),
        ("teacher", None, [1.0, 2.0], "one weight"),
        ("teacher", "cm3", None, "both"),
    ],
)
def test_mistakes_are_told(teacher, given, kind, weights, words):
    who = teacher if given == "teacher" else given
    with pytest.raises(ConfigError, match=words):
        modalign.distill(who, DATA, teacher_kind=kind, weights=weights, **QUICK)


def test_weights_cannot_be_searched_without_validation(teacher):
    blind = replace(DATA, valid=type(DATA.valid).empty())
    sources = [source_of(teacher.model, DATA.view())] * 2
    with pytest.raises(ConfigError, match="give the weights"):
        teachers.best_weights(sources, blind)
