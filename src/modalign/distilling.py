"""TARec: any teacher into a small student, through an assistant.

teacher.json        who taught, with which weights, and what each stage came to
assistant/          run folder of the assistant
student/            run folder of the student
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modalign import experiment, registry, settings
from modalign.data.dataset import Dataset
from modalign.data.files import write_aside
from modalign.data.view import TrainView
from modalign.distillation.plan import Plan, Stage
from modalign.distillation.source import MixedSource, Source, source_of
from modalign.distillation.tables import read_tables
from modalign.distillation.task import DistillTask
from modalign.errors import ConfigError, RunError
from modalign.evaluate.protocol import Evaluator
from modalign.experiment import RunOptions
from modalign.fitted import FittedModel
from modalign.interfaces import Queries, Recommender
from modalign.train.callbacks import Callback

Teacher = FittedModel | str | Path
STEPS = 10
"""Weights of several teachers are searched in steps of one tenth."""


@dataclass(frozen=True)
class Distilled:
    """What `distill` returns.

    Attributes:
        student: the fitted student.
        assistant: the fitted assistant, None for the variants without one.
        teachers: names of the teachers.
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
    seed: int = 1,
    out: str | Path | None = None,
    run: RunOptions | None = None,
    progress: Callable[[str], Sequence[Callback]] = lambda stage: (),
    **options: Any,
) -> Distilled:
    """Teach an assistant, and the assistant a student (TARec).

    The teacher's scores and vectors are computed once. The assistant is a LightGCN of one layer
    on ids alone; it learns from the teacher by `L_bpr + logit_weight L_logit +
    embedding_weight L_emb`. The student, free vectors through one shared perceptron, learns
    from the assistant likewise. Validation picks each one's best epoch.

    Args:
        teacher: a fitted model, a run folder or a folder of vectors
            (`distillation.tables`), or several of them: their scores are standardised user by
            user and mixed. None trains one of `teacher_kind` first.
        dataset: the data, the teacher's own.
        variant: "full", "no-assistant", "no-wasserstein", "no-assistant-no-wasserstein" or
            "no-embedding".
        teacher_kind: a registered model, to be trained first where `teacher` is None.
        teacher_options: its options.
        weights: of several teachers; None searches them on validation, in tenths.
        seed: of both stages.
        out: folder to write; `assistant/` and `student/` (and `teacher/` where one is trained)
            are run folders in it. None writes nothing.
        run: mask, cut-offs, device and the like, as for `fit`.
        progress: for the name of a stage, what is told of its epochs.
        options: see `Plan.of`.

    Raises:
        RunError: a teacher that does not fit the data, or a folder with another run.
        UnknownName, ConfigError: a variant or an option that does not exist or is out of bounds.

    Source: TARec (Zhuang et al. 2025), section 4; E24 and E25 of our notes.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> data = toy_dataset()
        >>> quick = {"epochs": 2, "embedding_size": 8}
        >>> found = distill(None, data, teacher_kind="ease", logit="sort", **quick)
        >>> found.student.spec.name, found.assistant.spec.name
        ('mlprec', 'lightgcn')
    """
    plan = Plan.of(variant, options)
    view = dataset.view()
    run = replace(run or RunOptions(), out=None if out is None else Path(out))
    given = _teachers(teacher, dataset, view, teacher_kind, teacher_options, seed, run, progress)
    source, shares = _mixed(given, dataset, weights)
    told = {
        "variant": variant,
        "teacher": source.name,
        "weights": list(shares),
        "source": fingerprint(source),
        "losses": plan.config.model_dump(mode="json"),
    }
    fitted: dict[str, FittedModel] = {}
    for stage in plan.stages:
        where = replace(
            run,
            out=None if out is None else Path(out) / stage.name,
            callbacks=(*run.callbacks, *progress(stage.name)),
        )
        described = {"distillation": {**told, "stage": stage.name, "from": source.name}}
        one = _stage(dataset, stage, plan, source, seed, where, described)
        fitted[stage.name] = one
        source = source_of(one.model, view, stage.name)
    if out is not None:
        _note(Path(out), told, fitted)
    return Distilled(
        fitted["student"], fitted.get("assistant"), tuple(one.name for one in given), shares
    )


def fingerprint(source: Source) -> str:
    """A short hash of what a source says: of its vectors, or of some of its scores."""
    digest = hashlib.sha256(f"{source.n_users} {source.n_items}".encode())
    if source.vectors is not None:
        tensors = list(source.vectors)
    else:
        step = max(source.n_users // 64, 1)
        tensors = [source.score(torch.arange(0, source.n_users, step))]
    for one in tensors:
        digest.update(one.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _stage(
    dataset: Dataset,
    stage: Stage,
    plan: Plan,
    source: Source,
    seed: int,
    run: RunOptions,
    described: Mapping[str, Any],
) -> FittedModel:
    """Train one stage, or take it as it is where it was finished before an interruption."""
    folder = None if run.out is None else Path(run.out)
    if folder is not None and run.resume and (folder / "results.json").is_file():
        done = experiment.load_model(folder, dataset)
        same = done.results.get("distillation") == described["distillation"]
        if not same or done.seed != seed or done.config != stage.config:
            raise RunError(
                f"in {folder} the {stage.name} of this distillation",
                "one of another",
                "use another --out, or --overwrite",
            )
        return done

    def task(recommender: Recommender, view: TrainView) -> DistillTask:
        return DistillTask(recommender, source, plan.config, view)

    return experiment.fit_task(dataset, stage.spec, stage.config, seed, run, task, described)


def _teachers(
    teacher: Teacher | Sequence[Teacher] | None,
    dataset: Dataset,
    view: TrainView,
    kind: str | None,
    options: Mapping[str, Any] | None,
    seed: int,
    run: RunOptions,
    progress: Callable[[str], Sequence[Callback]],
) -> list[Source]:
    if (teacher is None) == (kind is None):
        got = "neither" if kind is None else "both"
        raise ConfigError("a teacher, or the kind of one to train", got, "give one of them")
    if teacher is None:
        assert kind is not None
        spec = registry.get(kind)
        config = settings.build(spec.config, dict(options or {}), f"model {kind}")
        out = None if run.out is None else Path(run.out) / "teacher"
        where = replace(run, out=out, callbacks=(*run.callbacks, *progress("teacher")))
        if out is not None and run.resume and (out / "results.json").is_file():
            fitted = experiment.load_model(out, dataset)
        else:
            fitted = experiment.fit_task(dataset, spec, config, seed, where)
        return [source_of(fitted.model, view, kind)]
    many = [teacher] if isinstance(teacher, FittedModel | str | Path) else list(teacher)
    if not many:
        raise ConfigError("at least one teacher", "an empty list", "give one")
    return [_one(each, dataset, view) for each in many]


def _one(teacher: Teacher, dataset: Dataset, view: TrainView) -> Source:
    if isinstance(teacher, FittedModel):
        if teacher.dataset.fingerprint != dataset.fingerprint:
            raise RunError(
                f"a teacher of these data (fingerprint {dataset.fingerprint})",
                f"{teacher.spec.name} of {teacher.dataset.name} ({teacher.dataset.fingerprint})",
                "train a teacher on these data, or distil on the teacher's",
            )
        return source_of(teacher.model, view, teacher.spec.name)
    folder = Path(teacher)
    if (folder / "manifest.json").is_file():
        return read_tables(folder, view)
    fitted = experiment.load_model(folder, dataset)
    return source_of(fitted.model, view, fitted.spec.name)


def _mixed(
    given: Sequence[Source], dataset: Dataset, weights: Sequence[float] | None
) -> tuple[Source, tuple[float, ...]]:
    if len(given) == 1:
        if weights is not None and len(weights) != 1:
            raise ConfigError("one weight for one teacher", str(list(weights)), "leave them out")
        return given[0], (1.0,)
    chosen = best_weights(given, dataset) if weights is None else tuple(weights)
    mixed = MixedSource(given, chosen)
    return mixed, tuple(mixed.weights)


def best_weights(sources: Sequence[Source], dataset: Dataset) -> tuple[float, ...]:
    """Weights of a mixture, in tenths and summing to one, with the best validation Recall@20.

    Raises:
        ConfigError: no validation part, or more than four teachers.
    """
    if not len(dataset.valid) or len(sources) > 4:
        raise ConfigError(
            "weights, or a validation part to search them on and at most four teachers",
            f"{len(dataset.valid)} validation interactions and {len(sources)} teachers",
            "give the weights",
        )
    evaluator = Evaluator(dataset, split="valid", mask="train", ks=(20,), metrics=("recall",))
    grid = [
        tuple(part / STEPS for part in parts)
        for parts in product(range(STEPS + 1), repeat=len(sources))
        if sum(parts) == STEPS
    ]
    found = [
        (evaluator.run(_Judged(MixedSource(sources, w))).metrics["recall@20"], w) for w in grid
    ]
    return max(found)[1]


class _Judged(Recommender):
    """A source as something the evaluation can rank with."""

    factorised = False

    def __init__(self, source: Source) -> None:
        nn.Module.__init__(self)
        self.source = source
        self.n_users, self.n_items = source.n_users, source.n_items

    def score(self, queries: Queries) -> torch.Tensor:
        return self.source.score(queries.user)


def _note(out: Path, told: Mapping[str, Any], fitted: Mapping[str, FittedModel]) -> None:
    results = {name: one.results for name, one in fitted.items()}
    with write_aside(out / "teacher.json") as aside:
        aside.write_text(json.dumps({**told, "stages": results}, indent=2) + "\n")
