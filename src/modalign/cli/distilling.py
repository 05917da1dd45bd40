"""`modalign distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modalign.cli.options import (
    MASKS,
    Cutoffs,
    Device,
    Json,
    Seed,
    choose,
    parse_ks,
)
from modalign.cli.render import err, out, print_json, say
from modalign.cli.summaries import show_comparison

EPILOG = """**Examples**

    modalign distill --data data/ml --teacher runs/teacher --out runs/tarec --seed 1

    modalign distill --data data/ml --teacher runs/teacher --out runs/kd --variant no-assistant

    modalign distill --data data/ml --teacher runs/ease --teacher runs/cm3 --out runs/mixed

    modalign distill --data data/ml --teacher-kind cm3 --out runs/all --set logit_weight=0.1

`--set` takes the losses' options (logit, logit_weight, embedding_weight, eps, p, group, ...), the
training options of both models (embedding_size, learning_rate, ...), and those of one model as
`assistant.n_layers=2` or `student.n_layers=1`.
"""


def register(root: typer.Typer) -> None:
    """Add the command to the top level."""
    root.command(rich_help_panel="Models", epilog=EPILOG)(distill)


def distill(
    data: Annotated[Path, typer.Option(help="Prepared folder, the teacher's own.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for assistant and student.")],
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Run folder or folder of vectors; repeat it to mix several teachers."),
    ] = None,
    teacher_kind: Annotated[
        str | None, typer.Option(help="A model to be trained as teacher first.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights of several teachers, as 0.6,0.4; else searched on validation."),
    ] = None,
    variant: Annotated[
        str,
        typer.Option(
            help="full, no-assistant, no-wasserstein, no-assistant-no-wasserstein, no-embedding."
        ),
    ] = "full",
    logit: Annotated[
        str | None,
        typer.Option(help="Loss between logits: sinkhorn, sort, kl, bernoulli, raw, paired."),
    ] = None,
    seed: Seed = 1,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="An option as key=value; repeat it for more.")
    ] = None,
    mask: Annotated[
        str,
        typer.Option(
            help="strict: training and validation items are left out of the test ranking; "
            "train: training items only, as published numbers do."
        ),
    ] = "strict",
    k: Cutoffs = "5,10,20,50",
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted distillation.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier one.")] = False,
    json: Json = False,
) -> None:
    """Compress a teacher into a small student: teacher, assistant, student (TARec).

    The teacher runs once. An assistant on the user-item graph alone learns from it, and a
    student without graph and content from the assistant; `assistant` and `student` in the
    folder are runs like any other, for `evaluate`, `compare`, `recommend`, `profile`.
    """
    from modalign import devices, distilling, settings
    from modalign.data.dataset import Dataset
    from modalign.distillation.plan import VARIANTS
    from modalign.errors import ConfigError
    from modalign.experiment import RunOptions
    from modalign.report.side_by_side import compare_runs
    from modalign.train.callbacks import Callback, ProgressBar

    choose("mask", mask, MASKS)
    choose("variant of distillation", variant, VARIANTS)
    if resume and overwrite:
        raise ConfigError(
            "--resume or --overwrite", "both", "keep the one: go on with it, or replace it"
        )
    if bool(teacher) == bool(teacher_kind):
        raise ConfigError(
            "either --teacher or --teacher-kind",
            "both" if teacher else "neither",
            "name a finished run with --teacher, or have one trained with --teacher-kind",
        )
    devices.resolve(device)
    options = settings.parse_assignments(sets or ())
    if logit is not None:
        options["logit"] = logit

    def progress(stage: str) -> list[Callback]:
        return [ProgressBar(err, stage)]

    made = distilling.distill(
        teacher or None,
        Dataset.load(data),
        variant=variant,
        teacher_kind=teacher_kind,
        weights=None if weights is None else _numbers(weights),
        seed=seed,
        out=out_folder,
        run=RunOptions(
            mask=mask,  # type: ignore[arg-type]
            ks=parse_ks(k),
            device=device,
            resume=resume,
            overwrite=overwrite,
        ),
        progress=progress,
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
    runs = [one for one in teacher or () if (one / "results.json").is_file()]
    if teacher_kind is not None:
        runs.append(out_folder / "teacher")
    students = [out_folder / one.results["distillation"]["stage"] for one in stages]
    show_comparison(compare_runs([*runs, *students]))
    for one in stages:
        r = one.results
        stage = r["distillation"]["stage"]
        say(f"{stage}: {r['parameters']:,} parameters, {r['seconds']:.0f} s of training", out)
    say(f"the student: {out_folder / 'student'}", out)


def _numbers(text: str) -> list[float]:
    from modalign.errors import ConfigError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError("numbers as 0.6,0.4", repr(text), "one for each --teacher") from error
