"""A plan and a job to run folders and a table; what was finished stays.

sweep.yaml               what experiment this folder is of, written first
runs/SET/seed-N/         a run folder each
results.json             all runs and the table over seeds, best first; written last
results.csv              the table
*.png                    curves, and a heat map where two options were varied
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modalign.core import settings
from modalign.core.files import held, write_aside
from modalign.data.dataset import Dataset
from modalign.engines.local import each
from modalign.errors import ConfigError, RunError, TrainingError
from modalign.experiments.options import RunOptions
from modalign.sweeps.job import FitJob, Job, check_metric
from modalign.sweeps.plan import SweepPlan, chosen
from modalign.sweeps.table import (
    Progress,
    Sweep,
    SweepRun,
    best_first,
    read_result,
    rows_of,
    to_frame,
)


def run(
    plan: SweepPlan,
    job: Job,
    out: str | Path,
    *,
    metric: str = "recall@20",
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Sweep:
    """Make every run of a plan, and the table.

    Repeating the call continues a sweep that was stopped: finished runs are kept, an interrupted
    run continues from its checkpoint, and a failed run is tried again. The repeated call may have
    more seeds; everything else has to be the same.

    Args:
        plan: options and seeds.
        job: what one run does.
        out: folder of the sweep.
        metric: of validation, to sort by.
        workers: number of processes, each with its share of the threads; 1 runs in this one.
        progress: called with the progress, at the start and after each run.

    Raises:
        ConfigError: options that the job refuses, or a metric that its runs do not have.
        RunError: `out` holds another experiment, or another process is running it.
        TrainingError: no run came to a result.
    """
    if workers < 1:
        raise ConfigError("at least one worker", str(workers), "write --workers 1")
    for options in plan.settings.values():
        job.check(options)
    out = Path(out)
    with _alone(out):
        _open(out, plan, job)
        runs = list(_finish(plan, job, out, metric, workers, progress).values())
        if all(one.results is None for one in runs):
            raise TrainingError(f"none of {len(runs)} runs came to a result: {runs[0].error}")
        rows = best_first(rows_of(plan.settings, runs), metric)
        if rows[0].valid and metric not in rows[0].valid:
            expected = f"a validation metric of the runs: {', '.join(rows[0].valid)}"
            got = repr(metric)
            raise ConfigError(expected, got, "choose one of those; the finished runs are kept")
        found = Sweep(out, plan, metric, rows, runs)
        write(found)
    return found


def sweep(
    dataset: Dataset,
    model: str,
    out: str | Path,
    plan: SweepPlan | Mapping[str, Sequence[Any]],
    *,
    seeds: Sequence[int] = (settings.DEFAULT_SEED,),
    metric: str = "recall@20",
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
    run_options: RunOptions | None = None,
    **options: Any,
) -> Sweep:
    """Train a model with every combination of options and every seed; see `run`.

    Args:
        dataset: what to learn from.
        model: a registered name.
        out: folder of the sweep.
        plan: values by option, of which all combinations are tried; or a `SweepPlan`, such as a
            sample of a grid or sets of options by name, with seeds of its own.
        seeds: of the runs, where `plan` is a grid.
        metric: of validation, to choose by; the test part is never chosen by.
        workers: number of processes.
        progress: called with the progress, at the start and after each run.
        run_options: where and how each run is made.
        options: of the model, for all runs, and fields of `RunOptions`.

    Raises:
        ConfigError, UnknownName: the model, an option, the grid or the metric is not right.
        DataError: there is no validation part to choose by.
        RunError, TrainingError: as `run`.

    Example:
        >>> import tempfile
        >>> from modalign.testing.toy import toy_dataset
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = sweep(toy_dataset(), "popularity", folder, {"damping": [0.0, 1.0]})
        >>> sorted(row.name for row in found.rows)
        ['damping=0.0', 'damping=1.0']
    """
    run_options, options = RunOptions.split(run_options, options)
    check_metric(metric, run_options.ks)
    plan = chosen(dataset, plan, seeds, options)
    job = FitJob.on(dataset, model, out, options, run_options)
    return run(plan, job, out, metric=metric, workers=workers, progress=progress)


def write(found: Sweep, **more: Any) -> None:
    """`results.csv`, the figures, and last of all `results.json` with `more` in it."""
    from modalign.sweeps import figures

    with write_aside(found.folder / "results.csv") as aside:
        to_frame(found.rows).write_csv(aside)
    figures.draw(found)
    with write_aside(found.folder / "results.json") as aside:
        aside.write_text(json.dumps({**found.to_dict(), **more}, indent=2) + "\n")


def _finish(
    plan: SweepPlan,
    job: Job,
    out: Path,
    metric: str,
    workers: int,
    progress: Callable[[Progress], None],
) -> dict[Path, SweepRun]:
    """Make the runs that are missing; the runs of the plan by folder."""
    tasks = _tasks(plan, out)
    found: dict[Path, SweepRun | None] = {
        task.folder: _result(task, job) if (task.folder / job.result).is_file() else None
        for task in tasks
    }
    missing = [task for task in tasks if found[task.folder] is None]
    began = time.monotonic()
    progress(_progress(found, metric, None, None))
    for index, done in enumerate(each(missing, _RunOne(job), workers), 1):
        last = found[done.task.folder] = _result(done.task, job, done.error)
        left = (time.monotonic() - began) / index * (len(missing) - index)
        progress(_progress(found, metric, last, left))
    return {folder: one for folder, one in found.items() if one is not None}


@dataclass(frozen=True)
class _RunTask:
    """One run to make: the options of the set `name`, a seed, and the run's folder."""

    name: str
    options: Mapping[str, Any]
    seed: int
    folder: Path


@dataclass(frozen=True)
class _RunOne:
    """What a worker of an engine does with a `_RunTask`."""

    job: Job

    def __call__(self, task: _RunTask) -> None:
        self.job.run(task.options, task.seed, task.folder)


def _tasks(plan: SweepPlan, out: Path) -> list[_RunTask]:
    """Seed by seed, so that a sweep that is stopped early has seen every set once."""
    folders = plan.folders()
    return [
        _RunTask(name, options, seed, out / "runs" / folders[name] / f"seed-{seed}")
        for seed in plan.seeds
        for name, options in plan.settings.items()
    ]


def _result(task: _RunTask, job: Job, error: str | None = None) -> SweepRun:
    path = task.folder / job.result
    results = read_result(path) if error is None else None
    return SweepRun(task.name, task.seed, path.parent, results, error)


def _progress(
    found: Mapping[Path, SweepRun | None], metric: str, last: SweepRun | None, left: float | None
) -> Progress:
    runs = [one for one in found.values() if one is not None]
    known = [one for one in runs if one.value(metric) is not None]
    best = max(known, key=lambda one: one.value(metric) or 0.0, default=None)
    return Progress(len(runs), len(found), last, best, left)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder, so that two sweeps never write into the same runs."""
    with held(out, "sweep"):
        # Files with a dot are our own lock, and what a kill left of a description half written.
        others = any(entry.name != "data" and entry.name[0] != "." for entry in out.iterdir())
        if others and not (out / "sweep.yaml").is_file():
            raise RunError("a new or empty folder", f"{out} with other files", "choose another")
        try:
            yield
        except (KeyboardInterrupt, OSError) as error:
            # A sweep goes on without --resume, which a single run needs.
            error.__notes__ = [f"finished runs are kept in {out}; repeat the command to go on"]
            raise


def _open(out: Path, plan: SweepPlan, job: Job) -> None:
    """Write `sweep.yaml`, or refuse a folder that has one of another experiment."""
    facts = {
        **job.identity(),
        "grid": plan.grid,
        "settings": plan.settings,
        "seeds": list(plan.seeds),
    }
    facts = json.loads(json.dumps(facts))  # tuples to lists, as YAML reads them back
    path = out / "sweep.yaml"
    if path.is_file():
        _check_same(path, facts)
    with write_aside(path) as aside:
        aside.write_text(yaml.safe_dump(facts, sort_keys=False))


def _check_same(path: Path, facts: dict[str, Any]) -> None:
    try:
        old = dict(yaml.safe_load(path.read_text()))
        fewer = set(old["seeds"]) - set(facts["seeds"])
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise RunError(
            f"a readable {path}", " ".join(str(error).split()), "choose another --out"
        ) from error
    for key in [*facts, *(set(old) - set(facts))]:
        if key == "seeds" and not fewer:
            continue
        if old.get(key) != facts.get(key):
            before, now = _apart(old.get(key), facts.get(key))
            raise RunError(
                f"{key} {before!r}, as in the sweep in {path.parent}",
                f"{now!r}, of another experiment",
                "choose another --out, or repeat the command that started the sweep; a default "
                "may have changed since",
            )


def _apart(old: Any, new: Any) -> tuple[Any, Any]:
    """Of two mappings only what differs, however deep; anything else as it is."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return old, new
    left = {key: value for key, value in old.items() if key not in new}
    right = {key: value for key, value in new.items() if key not in old}
    for key in old.keys() & new.keys():
        if old[key] != new[key]:
            left[key], right[key] = _apart(old[key], new[key])
    return dict(sorted(left.items())), dict(sorted(right.items()))
