"""`modalign distill`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from modalign.cli.options import (
    RUN_FIELDS,
    AgainFlags,
    Json,
    RunFlags,
    Seed,
    Sets,
    choose,
    own_options,
    parse_weights,
)
from modalign.cli.render import out, print_json, say, training
from modalign.cli.summaries import show_comparison, show_signs, show_training
from modalign.core.settings import DEFAULT_SEED
from modalign.errors import ConfigError
from modalign_serve.command.grouped import grouped

TAKEN = {"data", "teacher", "teacher_kind", "weights", "variant", "seed", *RUN_FIELDS}
EPILOG = """**Examples**

    modalign distill --data data/ml --teacher runs/teacher --out runs/tarec --seed 1

    modalign distill --data data/ml --teacher runs/teacher --out runs/kd --variant no-assistant

    modalign distill --data data/ml --teacher runs/ease --teacher runs/cm3 --out runs/mixed

    modalign distill --data data/ml --teacher-kind cm3 --out runs/all --set logit_weight=0.1

`--set` takes the losses' options (logit, logit_weight, embedding_weight, eps, p, group, ...), the
training options of both models (embedding_size, learning_rate, ...), and those of one model as
`assistant.n_layers=2`, `student.n_layers=1`, or `teacher.epochs=50` with `--teacher-kind`.
"""


@dataclass(frozen=True)
class TeacherFlags:
    """Who teaches: finished runs, or a model that is trained first."""

    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Run folder or exported artifact; repeat it to mix several teachers."),
    ] = None
    teacher_kind: Annotated[
        str | None, typer.Option(help="A model to train as the teacher first.")
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of several teachers, as 0.6,0.4; searched on validation if not given."
        ),
    ] = None

    def check(self) -> None:
        """Either teachers or the kind of one.

        Raises:
            ConfigError: both or neither.
        """
        if bool(self.teacher) == bool(self.teacher_kind):
            got = "both" if self.teacher else "neither"
            fix = "name a finished run with --teacher, or a model to train with --teacher-kind"
            raise ConfigError("either --teacher or --teacher-kind", got, fix)


@grouped
def distill(
    data: Annotated[Path, typer.Option(help="Prepared folder, the teacher's own.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for assistant and student.")],
    teachers: TeacherFlags,
    variant: Annotated[
        str,
        typer.Option(
            help="full, no-assistant, no-wasserstein, no-assistant-no-wasserstein, no-embedding, "
            "warm-start-only, from-random, per-user, masses, as-printed."
        ),
    ] = "full",
    logit: Annotated[
        str | None,
        typer.Option(
            help="Loss between logits: sinkhorn, sort, masses, kl, bernoulli, raw, paired."
        ),
    ] = None,
    seed: Seed = DEFAULT_SEED,
    sets: Sets = None,
    json: Json = False,
    *,
    flags: RunFlags,
    again: AgainFlags,
) -> None:
    """Compress a teacher into a small student: teacher, assistant, student (TARec).

    The teacher runs once. An assistant on the user-item graph alone learns from it, and a
    student without graph and content learns from the assistant. `assistant` and `student` in the
    folder are ordinary runs: use `evaluate`, `compare`, `recommend` and `profile` on them.
    """
    from modalign.data.dataset import Dataset
    from modalign.distillation.plan import VARIANTS, DistillationPlan
    from modalign.distillation.run import distill as teach
    from modalign.distillation.task import DistillConfig

    choose("variant of distillation", variant, VARIANTS)
    run = flags.options(out=out_folder, **again.options())
    teachers.check()
    logits = get_args(DistillConfig.model_fields["logit"].annotation)
    taken = TAKEN if logit is None else TAKEN | {"logit"}
    options = own_options(sets, taken, "distillation")
    if logit is not None:
        options["logit"] = choose("loss between logits", logit, logits)
    of_teacher = {
        key.removeprefix("teacher."): options.pop(key)
        for key in list(options)
        if key.startswith("teacher.")
    }
    DistillationPlan.of(variant, options)  # refuses an unknown option before anything is read

    made = teach(
        teachers.teacher or None,
        Dataset.load(data),
        variant=variant,
        teacher_kind=teachers.teacher_kind,
        teacher_options=of_teacher,
        weights=parse_weights(teachers.weights),
        seed=seed,
        run=run,
        progress=training,
        **options,
    )
    stages = [one for one in (made.assistant, made.student) if one is not None]
    if json:
        found = {one.results["distillation"]["stage"]: one.results for one in stages}
        print_json({"teachers": made.teachers, "weights": made.weights, **found})
        return
    if len(made.teachers) > 1:
        mixed = ", ".join(f"{n} {w:.2g}" for n, w in zip(made.teachers, made.weights, strict=True))
        say(f"teachers and their weights: {mixed}", out)
    taught_by = list(teachers.teacher or ())
    if teachers.teacher_kind is not None:
        taught_by = [out_folder / "teacher"]
    students = [out_folder / one.results["distillation"]["stage"] for one in stages]
    _show(taught_by, students, made.student.results)
    for one in stages:
        r = one.results
        stage = r["distillation"]["stage"]
        say(f"{stage}: {r['parameters']:,} parameters, {r['seconds']:.0f} s of training", out)
        show_signs(one)
    say(f"the student: {out_folder / 'student'}", out)


def _show(teachers: list[Path], students: list[Path], results: Mapping[str, Any]) -> None:
    """Teachers and students side by side, where they can be compared."""
    from modalign.errors import InputError
    from modalign.report.side_by_side import compare_runs

    runs = [one for one in teachers if (one / "results.json").is_file()]
    for folders in ([*runs, *students], students):
        if len(folders) > 1 and results["test"]:
            try:
                show_comparison(compare_runs(folders))
            except InputError as error:  # measured in another way than the teacher was
                say(f"note: not compared with the teacher: {error.got}")
            else:
                return
    show_training(results)
