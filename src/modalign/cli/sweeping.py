"""`modalign sweep` and `modalign ablate`: many runs at once.

Both commands share their options, their checks and the table that is drawn as runs end, and so
stand in one file; half of it is what `--help` prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from modalign.cli.options import (
    MASKS,
    Cutoffs,
    Device,
    Json,
    Sets,
    choose,
    own_options,
    parse_ks,
    parse_weights,
    refuse,
)
from modalign.cli.render import err, out, plain, print_json, say, table

Prepared = Annotated[Path, typer.Option(help="Prepared folder.")]
Model = Annotated[
    str | None, typer.Option(help="A name from `modalign models`; cm3, unless there is a teacher.")
]
Teachers = Annotated[
    list[Path] | None,
    typer.Option(
        "--teacher",
        help="In place of a model: run folder or folder of vectors to distil from; repeat it to "
        "mix several.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights of several teachers, as 0.6,0.4; else searched on validation."),
]
Config = Annotated[
    Path | None,
    typer.Option(help="YAML file of options that all runs share, one `key: value` a line."),
]
Seeds = Annotated[str, typer.Option(help="One run for each, with commas.")]
Metric = Annotated[str, typer.Option(help="Validation metric to sort by, as ndcg@20.")]
Workers = Annotated[
    int, typer.Option(min=1, help="Processes to run in, each with its share of the threads.")
]
Mask = Annotated[str, typer.Option(help="strict or train, as in `modalign train`.")]
TAKEN = {"data", "out", "model", "seed", "mask", "ks", "device", "workers", "metric", "seeds"}
TAKEN |= {"teacher", "weights"}
WIDE = 110  # columns of a terminal from which there is room for a second metric
SWEEP_EPILOG = """**Examples**

    modalign sweep --data data/ml --model cm3 --out runs/sweep --set epochs=50
    --grid learning_rate=0.001,0.01 --grid n_layers=1,2 --seeds 1,2,3 --workers 2

    modalign sweep --data data/ml --model cm3 --out runs/draw --grid learning_rate=1e-4,1e-3,1e-2
    --grid batch_size=512,1024,2048 --sample 5 --seed 1

    modalign sweep --data data/ml --teacher runs/teacher --out runs/curves
    --grid logit_weight=0.1,1,10 --grid embedding_weight=0.01,0.1,1

A list is written in brackets: `--grid modalities=[text],[text,image]`. A sweep that was stopped,
however that happened, goes on when its command is repeated.
"""
ABLATE_EPILOG = """**Examples**

    modalign ablate --data data/ml --model cm3 --out runs/ablation --seeds 1,2,3

    modalign ablate --data data/ml --model cm3 --out runs/fusion
    --variants without-fusion,linear-fusion

    modalign ablate --data data/ml --teacher runs/teacher --out runs/ablation --seeds 1,2,3

`modalign models NAME` shows a model's variants; those of distillation stand in
`modalign distill --help`. An ablation that was stopped goes on when its command is repeated.
"""


def register(root: typer.Typer) -> None:
    """Add the commands to the top level."""
    root.command(rich_help_panel="Models", epilog=SWEEP_EPILOG)(sweep)
    root.command(rich_help_panel="Models", epilog=ABLATE_EPILOG)(ablate)


def sweep(
    data: Prepared,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for all runs.")],
    model: Model = None,
    teacher: Teachers = None,
    weights: Weights = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="Values of an option as key=value,value; repeat it for more options."),
    ] = None,
    named: Annotated[
        Path | None,
        typer.Option(help="YAML file of named sets of options, in place of a grid."),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="A named ablation of the model or of the distillation, for all runs."),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Run so many combinations, drawn, not all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of that draw.")] = 1,
    seeds: Seeds = "1",
    config: Config = None,
    sets: Sets = None,
    metric: Metric = "recall@20",
    mask: Mask = "strict",
    k: Cutoffs = "5,10,20,50",
    device: Device = "auto",
    workers: Workers = 1,
    json: Json = False,
) -> None:
    """Train, or distil, with many options and seeds at once; the best is picked on validation.

    The folder holds the runs, results.json, results.csv and figures. What was finished stays
    when the command is repeated, what was interrupted goes on.
    """
    from modalign import sweeps
    from modalign.data.dataset import Dataset
    from modalign.errors import ConfigError
    from modalign.sweeps.plan import parse_grid

    what, owner, more = _what(model, teacher, weights)
    shared = _shared(owner, config, sets, mask)
    refuse(shared, {"variant"}, owner)
    shared = _variant(what, variant) | shared
    _check(what, shared)
    if sample is not None and named is not None:
        raise ConfigError("--sample with --grid", "--named", "leave the one out")
    if not grid and named is None:
        raise ConfigError(
            "options to vary, with --grid or --named", "none", "write --grid reg=0.001,0.01"
        )
    varied = parse_grid(grid) if grid else None
    refuse(varied or {}, TAKEN, owner)
    run: Any = sweeps.sweep_distillation if teacher else sweeps.sweep
    with _watching(metric) as told:
        found = run(
            Dataset.load(data),
            what,
            out_folder,
            varied,
            named=None if named is None else _named(named),
            seeds=_seeds(seeds),
            sample=sample,
            seed=seed,
            metric=metric,
            mask=mask,
            ks=parse_ks(k),
            device=device,
            workers=workers,
            told=told,
            **more,
            **shared,
        )
    _tell_failed(found)
    if json:
        print_json(found.to_dict())
    else:
        _show_sweep(found)


def ablate(
    data: Prepared,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for all runs.")],
    model: Model = None,
    teacher: Teachers = None,
    weights: Weights = None,
    variants: Annotated[
        str | None,
        typer.Option(help="Some variants of the model or the distillation, with commas; else all."),
    ] = None,
    seeds: Seeds = "1,2,3",
    config: Config = None,
    sets: Sets = None,
    metric: Metric = "recall@20",
    mask: Mask = "strict",
    k: Cutoffs = "5,10,20,50",
    device: Device = "auto",
    workers: Workers = 1,
    json: Json = False,
) -> None:
    """What each part of a model, or of a distillation, is worth: the whole against its variants.

    Means over seeds on the test part, with paired t-tests over users of the full model against
    each variant, Holm-corrected. What was finished stays when the command is repeated.
    """
    from modalign import sweeps
    from modalign.data.dataset import Dataset

    what, owner, more = _what(model, teacher, weights)
    shared = _shared(owner, config, sets, mask)
    _check(what, shared)
    run: Any = sweeps.ablate_distillation if teacher else sweeps.ablate
    with _watching(metric) as told:
        found = run(
            Dataset.load(data),
            what,
            out_folder,
            None if variants is None else [one.strip() for one in variants.split(",")],
            seeds=_seeds(seeds),
            metric=metric,
            mask=mask,
            ks=parse_ks(k),
            device=device,
            workers=workers,
            told=told,
            **more,
            **shared,
        )
    _tell_failed(found.sweep)
    if json:
        print_json(found.to_dict())
    else:
        _show_ablation(found)


# ---------------------------------------------------------------------- what is read


def _what(
    model: str | None, teachers: list[Path] | None, weights: str | None
) -> tuple[str | list[Path], str, dict[str, Any]]:
    """What is run, whose options `--set` is for, and arguments that go with it."""
    from modalign.errors import ConfigError
    from modalign.models import _registry as registry

    if teachers:
        if model is not None:
            raise ConfigError(
                "either --model or --teacher",
                "both",
                "leave --model out to distil, or --teacher to train",
            )
        return teachers, "distillation", {"weights": parse_weights(weights)}
    if weights is not None:
        raise ConfigError(
            "--weights with several --teacher", "no teacher", "name them, or leave it out"
        )
    model = model or "cm3"
    registry.get(model)
    return model, f"model {model}", {}


def _variant(what: str | list[Path], variant: str | None) -> dict[str, Any]:
    """Options of a variant that all runs have."""
    from modalign.models import _registry as registry

    if variant is None:
        return {}
    if not isinstance(what, str):
        return {"variant": variant}
    known = registry.get(what).variants
    return dict(known[choose(f"variant of {what}", variant, known)])


def _check(what: str | list[Path], options: dict[str, Any]) -> None:
    """Refuse options that no run takes, before any is handed on by its name."""
    from modalign.core import settings
    from modalign.models import _registry as registry

    if isinstance(what, str):
        settings.build(registry.get(what).config, options, f"model {what}")
    else:
        from modalign.distillation.sweep import plan_of

        plan_of(options)


def _shared(owner: str, config: Path | None, sets: list[str] | None, mask: str) -> dict[str, Any]:
    """Options that all runs have."""
    from modalign.core import settings

    choose("mask", mask, MASKS)
    found = {} if config is None else settings.read_yaml(config)
    refuse(found, TAKEN, owner)
    return found | own_options(sets, TAKEN, owner)


def _seeds(text: str) -> list[int]:
    from modalign.errors import ConfigError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            "seeds such as 1,2,3", repr(text), "write whole numbers from 0 up, with commas"
        ) from error


def _named(path: Path) -> dict[str, dict[str, Any]]:
    from modalign.core import settings
    from modalign.errors import ConfigError

    found = settings.read_yaml(path)
    for name, options in found.items():
        if not isinstance(options, dict | None):
            raise ConfigError(
                f"options under the name {name!r} in {path}",
                repr(options),
                "write `name:` on one line and `  key: value` below it",
            )
    return {
        name: {str(key): settings.scalar(value) for key, value in (options or {}).items()}
        for name, options in found.items()
    }


# ---------------------------------------------------------------------- what is shown


@contextmanager
def _watching(metric: str) -> Iterator[Callable[[Any], None]]:
    """A bar over runs with the best so far and the time left, and a line for each that ends."""
    note = Column(overflow="ellipsis", no_wrap=True, ratio=1)
    with Progress(
        TextColumn("[bold]runs"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", table_column=note, markup=False),
        console=err,
        disable=not err.is_terminal,
    ) as bar:
        task = bar.add_task("runs", total=None, note="")

        def told(progress: Any) -> None:
            best = progress.best and f"best {metric} {_of(progress.best, metric)}"
            left = progress.seconds_left
            parts = [None if left is None else f"{_time(left)} left", best]
            note = ", ".join(filter(None, parts))
            bar.update(task, completed=progress.done, total=progress.total, note=note)
            where = f"{progress.done}/{progress.total}"
            if progress.last is not None:
                say(f"{where} {_ended(progress.last, metric)}; {note}")
            elif progress.done:
                say(f"{where} runs were here already")

        yield told


def _of(run: Any, metric: str) -> str:
    return f"{run.value(metric):.4f} ({run.name}, seed {run.seed})"


def _ended(run: Any, metric: str) -> str:
    what = f"{run.name}, seed {run.seed}"
    if run.results is None:
        return f"{what} failed: {run.error}"
    value = run.value(metric)
    return what if value is None else f"{what}: validation {metric} {value:.4f}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _tell_failed(found: Any) -> None:
    for run in found.failed:
        say(f"note: {run.name}, seed {run.seed} failed: {run.error}")


def _stat(stat: Any) -> str:
    if stat is None:
        return ""
    return f"{stat.mean:.4f}" if stat.std is None else f"{stat.mean:.4f} ±{stat.std:.4f}"


def _show_sweep(found: Any) -> None:
    from modalign.sweeps.figures import siblings
    from modalign.sweeps.plan import text

    options = list(found.plan.grid) or ["set"]
    metrics = siblings(found.metric, found.rows)[: 2 if out.width >= WIDE else 1]
    columns = [*options, "seeds", *(f"valid {m}" for m in metrics), "│"]
    tested = [m for m in metrics if m in found.best.test]
    rows = []
    for row in found.rows:
        values = [text(v) for v in row.options.values()] if found.plan.grid else [row.name]
        chosen = row is found.best
        rows.append(
            [
                *(f"[bold green]{plain(v)}[/]" if chosen else plain(v) for v in values),
                f"{len(row.seeds)}" + (f" of {len(row.seeds + row.failed)}" if row.failed else ""),
                *(_stat(row.valid.get(m)) for m in metrics),
                "│",
                *(f"[dim]{_stat(row.test.get(m))}[/]" for m in tested),
            ]
        )
    columns += [f"test {m}" for m in tested]
    out.print(table("Best on validation first", columns, rows, range(len(options), len(columns))))
    best = found.best
    say(f"chosen on validation: {best.name}, {found.metric} {_stat(best.valid[found.metric])}", out)
    if tested:
        say("the test part, right of the line, was not chosen by", out)
    say(f"written to {found.folder}")


def _show_ablation(found: Any) -> None:
    from modalign.sweeps.figures import siblings

    room = 2 if out.width >= WIDE + 20 else 1  # each metric has p-values beside it
    metrics = siblings(found.sweep.metric, found.rows)[:room]
    columns = ["variant", "seeds"]
    for metric in metrics:
        columns += [metric, "to full", "p users", "p seeds"]
    rows = []
    for row in found.rows:
        cells = [plain(row.name), str(len(row.seeds))]
        for metric in metrics:
            cells += [_stat(row.test.get(metric)), *_against(found.test(row.name, metric))]
        rows.append(cells)
    kept = found.sweep.runs[0].results or next(r.results for r in found.sweep.runs if r.results)
    title = f"Test, all items ranked, mask {kept['mask']}"
    out.print(table(title, columns, rows, range(1, len(columns))))
    say("± is the deviation over seeds; p after Holm, of the paired t-test over users and of", out)
    say(
        f"Welch's between seeds; * marks a difference beyond chance over users ({found.level:g})",
        out,
    )
    say(f"written to {found.sweep.folder}")


def _against(test: Any) -> list[str]:
    """Difference to the full model, and its p-values."""
    if test is None:
        return ["", "", ""]
    p = f"{test.corrected:.2g}"
    marked = f"[bold green]{p} *[/]" if test.significant else f"{p}  "
    between = test.corrected_between_seeds
    return [f"{-test.difference:+.4f}", marked, "" if between is None else f"{between:.2g}"]
