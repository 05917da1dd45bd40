"""`modalign sweep` and `modalign ablate`: many runs at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from modalign.cli.options import (
    RUN_FIELDS,
    Json,
    RunFlags,
    Sets,
    choose,
    own_options,
    parse_weights,
    refuse,
)
from modalign.cli.render import err, out, plain, print_json, say, table
from modalign.core.settings import DEFAULT_SEED
from modalign_serve.command.grouped import grouped

if TYPE_CHECKING:
    from modalign.sweeps.plan import SweepPlan

Prepared = Annotated[Path, typer.Option(help="Prepared folder.")]
Seeds = Annotated[str, typer.Option(help="Seeds of the runs, with commas; one run for each.")]


@dataclass(frozen=True)
class ManyRuns:
    """What is trained or distilled many times, and how many runs at a time."""

    model: Annotated[
        str | None,
        typer.Option(help="A name from `modalign models`; cm3, unless there is a teacher."),
    ] = None
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            "--teacher",
            help="In place of a model: run folder or folder of vectors to distil from; repeat it "
            "to mix several.",
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of several teachers, as 0.6,0.4; searched on validation if not given."
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of options that all runs share, one `key: value` a line."),
    ] = None
    sets: Sets = None
    metric: Annotated[str, typer.Option(help="Validation metric to sort by, as ndcg@20.")] = (
        "recall@20"
    )
    workers: Annotated[
        int, typer.Option(min=1, help="Number of processes, which share the threads.")
    ] = 1

    @property
    def owner(self) -> str:
        """Whose options `--set` is for, in messages."""
        return "distillation" if self.teacher else f"model {self.what}"

    @property
    def what(self) -> str | list[Path]:
        """A model's name, or the teachers."""
        return self.teacher or self.model or "cm3"

    def fixed(self) -> dict[str, Any]:
        """Options that all runs share, from `--config` and `--set`.

        Raises:
            ConfigError, UnknownName: options that do not go together, or no such model.
        """
        from modalign.core import settings
        from modalign.errors import ConfigError
        from modalign.models import _registry as registry

        if self.teacher and self.model is not None:
            fix = "leave --model out to distil, or --teacher to train"
            raise ConfigError("either --model or --teacher", "both", fix)
        if self.weights is not None and not self.teacher:
            raise ConfigError(
                "--weights with several --teacher", "no teacher", "name them, or leave it out"
            )
        if isinstance(self.what, str):
            registry.get(self.what)
        found = {} if self.config is None else settings.read_yaml(self.config)
        refuse(found, TAKEN, self.owner)
        return found | own_options(self.sets, TAKEN, self.owner)

    def check(self, options: dict[str, Any]) -> None:
        """Refuse options that no run takes, before any is handed on by its name."""
        from modalign.core import settings
        from modalign.models import _registry as registry

        if isinstance(self.what, str):
            settings.build(registry.get(self.what).config, options, self.owner)
        else:
            from modalign.distillation.sweep import plan_of

            plan_of(options)

    def arguments(self, run: RunFlags) -> dict[str, Any]:
        """What `sweep` and `ablate` take alike, for models as for distillations."""
        found = {"metric": self.metric, "workers": self.workers, "run_options": run.options()}
        return found | ({"weights": parse_weights(self.weights)} if self.teacher else {})


@dataclass(frozen=True)
class Draw:
    """A random sample of a grid."""

    sample: Annotated[
        int | None, typer.Option(min=1, help="Run a random sample of this many combinations.")
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of that sample.")] = DEFAULT_SEED


TAKEN = {"data", "model", "teacher", "weights", "metric", "workers", "seed", "seeds", *RUN_FIELDS}
WIDE = 110  # columns of a terminal from which there is room for a second metric
SWEEP_EPILOG = """**Examples**

    modalign sweep --data data/ml --model cm3 --out runs/sweep --set epochs=50
    --grid learning_rate=0.001,0.01 --grid n_layers=1,2 --seeds 1,2,3 --workers 2

    modalign sweep --data data/ml --model cm3 --out runs/draw --grid learning_rate=1e-4,1e-3,1e-2
    --grid batch_size=512,1024,2048 --sample 5 --seed 1

    modalign sweep --data data/ml --teacher runs/teacher --out runs/curves
    --grid logit_weight=0.1,1,10 --grid embedding_weight=0.01,0.1,1

Write a list in brackets: `--grid modalities=[text],[text,image]`. Repeat the command to continue a
sweep that was stopped.
"""
ABLATE_EPILOG = """**Examples**

    modalign ablate --data data/ml --model cm3 --out runs/ablation --seeds 1,2,3

    modalign ablate --data data/ml --model cm3 --out runs/fusion
    --variants without-fusion,linear-fusion

    modalign ablate --data data/ml --teacher runs/teacher --out runs/ablation --seeds 1,2,3

`modalign models NAME` shows a model's variants, `modalign distill --help` those of distillation.
Repeat the command to continue an ablation that was stopped.
"""


@grouped
def sweep(
    data: Prepared,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for all runs.")],
    many: ManyRuns,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="Values of an option as key=value,value; repeat it for more options."),
    ] = None,
    named: Annotated[
        Path | None, typer.Option(help="YAML file of named sets of options, in place of a grid.")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="A named ablation of the model or of the distillation, for all runs."),
    ] = None,
    seeds: Seeds = str(DEFAULT_SEED),
    json: Json = False,
    *,
    draw: Draw,
    run: RunFlags,
) -> None:
    """Train, or distil, with many options and seeds; the best is picked on validation.

    The folder holds the runs, results.json, results.csv and figures. Repeat the command to
    continue: finished runs are kept, interrupted runs resume.
    """
    from modalign.data.dataset import Dataset
    from modalign.distillation.sweep import sweep_distillation
    from modalign.sweeps.runner import sweep as sweep_model

    fixed = many.fixed()
    refuse(fixed, {"variant"}, many.owner)
    fixed = _variant(many.what, variant) | fixed
    many.check(fixed)
    plan = _plan(grid, named, draw, _seeds(seeds), many.owner)
    make: Any = sweep_distillation if many.teacher else sweep_model
    with _watching(many.metric) as report:
        found = make(
            Dataset.load(data),
            many.what,
            out_folder,
            plan,
            progress=report,
            **many.arguments(run),
            **fixed,
        )
    _tell_failed(found)
    if json:
        print_json(found.to_dict())
    else:
        _show_sweep(found)


@grouped
def ablate(
    data: Prepared,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for all runs.")],
    many: ManyRuns,
    variants: Annotated[
        str | None,
        typer.Option(
            help="Variants of the model or the distillation, with commas; all if not given."
        ),
    ] = None,
    seeds: Seeds = "1,2,3",
    json: Json = False,
    *,
    run: RunFlags,
) -> None:
    """Measure what each part of a model, or of a distillation, is worth: it against its variants.

    Means over seeds on the test part, with paired t-tests over users of the full model against
    each variant, Holm-corrected. Repeat the command to continue: finished runs are kept.
    """
    from modalign.data.dataset import Dataset
    from modalign.distillation.sweep import ablate_distillation
    from modalign.sweeps.ablation import ablate as ablate_model

    fixed = many.fixed()
    many.check(fixed)
    make: Any = ablate_distillation if many.teacher else ablate_model
    with _watching(many.metric) as report:
        found = make(
            Dataset.load(data),
            many.what,
            out_folder,
            None if variants is None else [one.strip() for one in variants.split(",")],
            seeds=_seeds(seeds),
            progress=report,
            **many.arguments(run),
            **fixed,
        )
    _tell_failed(found.sweep)
    if json:
        print_json(found.to_dict())
    else:
        _show_ablation(found)


def _plan(
    grid: list[str] | None, named: Path | None, draw: Draw, seeds: list[int], owner: str
) -> SweepPlan:
    """The sets of options, from a grid or from a file."""
    from modalign.errors import ConfigError
    from modalign.sweeps.plan import SweepPlan, parse_grid

    if named is not None and draw.sample is not None:
        raise ConfigError("--sample with --grid", "--named", "drop one of them")
    if bool(grid) == (named is not None):
        expected = "options to vary, with --grid or --named"
        raise ConfigError(expected, "both" if grid else "neither", "write --grid reg=0.001,0.01")
    if named is not None:
        return SweepPlan(_named(named), tuple(seeds))
    varied = parse_grid(grid or [])
    refuse(varied, TAKEN, owner)
    return SweepPlan.of_grid(varied, seeds, draw.sample, draw.seed)


def _variant(what: str | list[Path], variant: str | None) -> dict[str, Any]:
    """Options of a variant that all runs have."""
    from modalign.models import _registry as registry

    if variant is None:
        return {}
    if not isinstance(what, str):
        return {"variant": variant}
    known = registry.get(what).variants
    return dict(known[choose(f"variant of {what}", variant, known)])


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
            fix = "write `name:` on one line and `  key: value` below it"
            raise ConfigError(f"options under the name {name!r} in {path}", repr(options), fix)
    return {
        name: {str(key): settings.scalar(value) for key, value in (options or {}).items()}
        for name, options in found.items()
    }


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

        def report(progress: Any) -> None:
            best = progress.best
            if best is not None:
                best = f"best {metric} {best.value(metric):.4f} ({best.name}, seed {best.seed})"
            left = progress.seconds_left
            parts = [None if left is None else f"{timedelta(seconds=round(left))} left", best]
            note = ", ".join(filter(None, parts))
            bar.update(task, completed=progress.done, total=progress.total, note=note)
            where = f"{progress.done}/{progress.total}"
            if progress.last is not None:
                say(f"{where} {_ended(progress.last, metric)}; {note}")
            elif progress.done:
                say(f"{where} runs were finished before")

        yield report


def _ended(run: Any, metric: str) -> str:
    what = f"{run.name}, seed {run.seed}"
    if run.results is None:
        return f"{what} failed: {run.error}"
    value = run.value(metric)
    return what if value is None else f"{what}: validation {metric} {value:.4f}"


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
