"""TARec: distil any teacher into a small student, through an assistant.

teacher.json        the teachers, their weights, and the results of each stage
assistant/          run folder of the assistant
student/            run folder of the student
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modalign.core import settings
from modalign.core.files import write_aside
from modalign.core.interfaces import Recommender
from modalign.core.view import TrainView
from modalign.data.dataset import Dataset
from modalign.distillation.plan import MODELS, DistillationPlan, Stage
from modalign.distillation.source import Source, source_of
from modalign.distillation.task import DistillTask
from modalign.distillation.teachers import (
    Teacher,
    check_weights,
    fingerprint_of,
    mixed,
    read_teacher,
)
from modalign.errors import ConfigError, RunError
from modalign.evaluate.protocol import validation_metric
from modalign.experiments import run_folder
from modalign.experiments.fit import fit_task, load_model, watched
from modalign.experiments.fitted import FittedModel
from modalign.experiments.options import RunOptions
from modalign.models import _registry as registry
from modalign.train.callbacks import Callback, shown


@dataclass(frozen=True)
class Distilled:
    """What `distill` returns.

    Attributes:
        assistant: the fitted assistant, None for the variants without one.
        weights: of the teachers in the mixture, summing to one.
    """

    student: FittedModel
    assistant: FittedModel | None
    teachers: tuple[str, ...]
    weights: tuple[float, ...]


def distill(
    teacher: Teacher | Sequence[Teacher] | None,
    dataset: Dataset,
    *,
    variant: str = "full",
    teacher_kind: str | None = None,
    teacher_options: Mapping[str, Any] | None = None,
    weights: Sequence[float] | None = None,
    seed: int = settings.DEFAULT_SEED,
    run: RunOptions | None = None,
    progress: Callable[[str], Sequence[Callback]] | None = None,
    **options: Any,
) -> Distilled:
    """Teach an assistant, and the assistant a student (TARec).

    The teacher's scores and vectors are computed once. The assistant is a LightGCN of one layer
    on ids alone; it learns from the teacher by `L_bpr + logit_weight L_logit +
    embedding_weight L_emb`. The student, free vectors through one shared perceptron, learns
    from the assistant by the same loss. Validation picks the best epoch of each.

    Args:
        teacher: a fitted model, a run folder, an exported
            artifact or a `Source`, or several of them: their scores are
            standardised user by user and mixed. None trains one of `teacher_kind` first.
        dataset: the data, the teacher's own.
        variant: "full", "no-assistant", "no-wasserstein", "no-assistant-no-wasserstein" or
            "no-embedding", or another name of `distillation.plan.VARIANTS`.
        teacher_kind: a registered model, to be trained first where `teacher` is None.
        teacher_options: its options.
        weights: of several teachers; None searches them on validation, in tenths.
        seed: of both stages.
        run: where and how. In its folder `out`, `assistant/` and `student/` (and `teacher/` where
            one is trained) are run folders; without one nothing is written.
        progress: for the name of a stage, the callbacks of its training; None shows it as
            `run.progress` says.
        options: see `DistillationPlan.of`; and fields of `RunOptions`, which win over `run`.

    Raises:
        RunError: a teacher that does not fit the data, or a folder with another run.
        UnknownName, ConfigError: a variant or an option that does not exist or is out of bounds.

    Source: TARec (Zhuang et al. 2025), section 4.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> data = toy_dataset()
        >>> quick = {"epochs": 2, "embedding_size": 8}
        >>> found = distill(None, data, teacher_kind="ease", logit="sort", **quick)
        >>> found.student.spec.name, found.assistant.spec.name
        ('mlprec', 'lightgcn')
    """
    run, options = RunOptions.split(run, options)
    showing = run.progress
    progress = progress or (lambda stage: shown(showing, stage))
    plan = DistillationPlan.of(variant, options)
    view = dataset.view()
    out = run.folder
    many = _listed(teacher, teacher_kind, teacher_options)
    check_weights(weights, max(len(many), 1))
    _check_epochs(dataset, plan, options)
    if out is not None:
        _check_folder(out, run, many, teacher_kind is not None, plan)
    if teacher_kind is not None:
        given = [_trained(teacher_kind, teacher_options or {}, dataset, seed, run, progress)]
    else:
        given = [read_teacher(each, dataset, view) for each in many]
    source, shares = mixed(given, dataset, weights)
    facts = {
        "variant": variant,
        "teacher": source.name,
        "weights": list(shares),
        "source": fingerprint_of(source),
        "losses": plan.config.model_dump(mode="json"),
    }
    # Everything in the folder is checked before anything is written into it.
    work = []
    for stage, taught_by in zip(plan.stages, [source.name, plan.stages[0].name], strict=False):
        where = replace(
            run,
            out=None if out is None else out / stage.name,
            callbacks=(*run.callbacks, *progress(stage.name)),
        )
        described = {"distillation": {**facts, "stage": stage.name, "from": taught_by}}
        made = _finished(dataset, stage.spec, stage.config, seed, where, described)
        work.append((stage, where, described, made))
    if run.overwrite and out is not None:
        _clear(out, plan)
    fitted: dict[str, FittedModel] = {}
    first = source
    for stage, where, described, made in work:
        lesson = (source, None if source is first else first)
        one = made or _taught(dataset, stage, plan, lesson, seed, where, described)
        fitted[stage.name] = one
        source = source_of(one.model, view, stage.name)
    if out is not None:
        results = {name: one.results for name, one in fitted.items()}
        with write_aside(out / "teacher.json") as aside:
            aside.write_text(json.dumps({**facts, "stages": results}, indent=2) + "\n")
    return Distilled(
        fitted["student"], fitted.get("assistant"), tuple(one.name for one in given), shares
    )


def _taught(
    dataset: Dataset,
    stage: Stage,
    plan: DistillationPlan,
    lesson: tuple[Source, Source | None],
    seed: int,
    run: RunOptions,
    described: Mapping[str, Any],
) -> FittedModel:
    by = getattr(stage.config, "select_by", "recall@20")
    valid = validation_metric(dataset, by) if len(dataset.valid) else None

    def task(recommender: Recommender, view: TrainView) -> DistillTask:
        validate = None if valid is None else lambda one: valid.run(one).metrics
        source, teacher = lesson
        return DistillTask(recommender, source, plan.config, view, validate, teacher)

    return fit_task(dataset, stage.spec, stage.config, seed, run, task, described)


def _trained(
    kind: str,
    options: Mapping[str, Any],
    dataset: Dataset,
    seed: int,
    run: RunOptions,
    progress: Callable[[str], Sequence[Callback]],
) -> Source:
    spec = registry.get(kind)
    config = settings.build(spec.config, dict(options), f"model {kind}")
    out = None if run.folder is None else run.folder / "teacher"
    where = replace(run, out=out, callbacks=(*run.callbacks, *progress("teacher")))
    fitted = _finished(dataset, spec, config, seed, where, {})
    fitted = fitted or fit_task(dataset, spec, config, seed, where)
    return source_of(fitted.model, dataset.view(), kind)


def _finished(
    dataset: Dataset,
    spec: registry.ModelSpec,
    config: Any,
    seed: int,
    run: RunOptions,
    described: Mapping[str, Any],
) -> FittedModel | None:
    """The run that an interrupted distillation left finished, None where it has to be made."""
    folder = run.folder
    if folder is None or not run.resume or not (folder / "config.yaml").is_file():
        return None
    facts = {
        "model": spec.name,
        "seed": seed,
        "options": watched(config, dataset).model_dump(mode="json"),
        "fingerprint": dataset.fingerprint,
        "mask": run.mask,
        "k": list(run.ks),
    }
    run_folder.check_same(folder, {**facts, **described})
    done = (folder / "results.json").is_file()
    return load_model(folder, dataset) if done else None


def _listed(
    teacher: Teacher | Sequence[Teacher] | None, kind: str | None, options: Mapping[str, Any] | None
) -> list[Teacher]:
    if (teacher is None) == (kind is None):
        got = "neither" if kind is None else "both"
        raise ConfigError("a teacher, or the kind of one to train", got, "give one of them")
    if teacher is None:
        return []
    if options:
        expected = "options of a teacher that this call trains"
        fix = "leave them out, or give the kind of a teacher"
        raise ConfigError(expected, f"{', '.join(options)} for one that is there", fix)
    many: list[Teacher] = (
        list(teacher)
        if isinstance(teacher, Sequence) and not isinstance(teacher, str)
        else [teacher]
    )
    if not many:
        raise ConfigError("at least one teacher", "an empty list", "give one")
    folders = [Path(one).resolve() for one in many if isinstance(one, str | Path)]
    if len(set(folders)) < len(folders):
        twice = next(one for one in folders if folders.count(one) > 1)
        raise ConfigError("every teacher once", f"{twice.name} twice", "name each once")
    return many


def _check_epochs(dataset: Dataset, plan: DistillationPlan, options: Mapping[str, Any]) -> None:
    for stage in plan.stages:
        if not len(dataset.valid) and not {"epochs", f"{stage.name}.epochs"} & set(options):
            got = f"data {dataset.name!r} without validation interactions"
            fix = "set epochs, or import the data with a split that has a validation part"
            raise ConfigError("a validation part to stop by, or a number of epochs", got, fix)


def _check_folder(
    out: Path, run: RunOptions, teachers: Sequence[Teacher], trains: bool, plan: DistillationPlan
) -> None:
    """Reject a folder with anything else in it, before the teacher is read or trained."""
    if out.is_file():
        raise RunError("a folder", f"the file {out}", "choose another name")
    stages = [stage.name for stage in plan.stages]
    held = [name for name in MODELS if (out / name / "config.yaml").is_file()]
    known = {*held, "teacher", "teacher.json"}
    if out.is_dir():
        others = sorted(e.name for e in out.iterdir() if e.name not in known and e.name[0] != ".")
        # An empty or half-written folder of a stage is one that a kill left.
        others = [name for name in others if name not in MODELS or any((out / name).iterdir())]
        if others:
            got = f"{out} with other files ({others[0]})"
            raise RunError("a new folder, or one of a distillation", got, "choose another")
    if trains and (out / "teacher" / "config.yaml").is_file():
        held.append("teacher")
    if held and not (run.resume or run.overwrite):
        done = [name for name in held if (out / name / "results.json").is_file()]
        what = f"the finished run {done[0]}" if done else f"the interrupted run {held[0]}"
        fix = "continue it with --resume, or start again with --overwrite"
        raise RunError("a new folder for the distillation", f"{out}, which holds {what}", fix)
    more = [name for name in held if name not in (*stages, "teacher")]
    if run.resume and more:
        raise RunError(
            f"a distillation into {' and '.join(stages)} in {out}",
            f"one with the {more[0]}, of another variant",
            "use another --out, or --overwrite",
        )
    replaced = {(out / name).resolve() for name in held}
    for one in teachers:
        if run.overwrite and isinstance(one, str | Path) and Path(one).resolve() in replaced:
            raise RunError(
                "a teacher that is not replaced itself", f"{one} inside {out}", "use another --out"
            )


def _clear(out: Path, plan: DistillationPlan) -> None:
    """Remove the stages of an earlier distillation that this variant does not have."""
    (out / "teacher.json").unlink(missing_ok=True)
    for name in set(MODELS) - {stage.name for stage in plan.stages}:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
