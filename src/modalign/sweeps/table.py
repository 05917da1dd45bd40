"""A sweep as it stands and what came out: means and deviations over seeds, as JSON and as CSV."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from modalign.core import showing
from modalign.errors import RunError
from modalign.sweeps.plan import SweepPlan, text

PARTS = ("valid", "test")


@dataclass(frozen=True)
class SweepRun:
    """One run of a plan.

    Attributes:
        folder: its run folder; of several a job leaves, the one that counts.
        results: as in its `results.json`; None where it failed.
        error: why it failed, or None.
    """

    name: str
    seed: int
    folder: Path
    results: Mapping[str, Any] | None
    error: str | None = None

    def __repr__(self) -> str:
        valid = (self.results or {}).get("valid") or {}
        came = f"failed: {self.error}" if self.results is None else showing.in_words(valid)
        return f"SweepRun({self.name}, seed {self.seed}; {came})"

    def value(self, metric: str, part: str = "valid") -> float | None:
        """A metric of the run."""
        return None if self.results is None else self.results[part].get(metric)


@dataclass(frozen=True)
class Stat:
    """Mean over seeds, and the sample deviation (over n - 1), None of one seed."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Stat:
        """Of one value or more.

        Example:
            >>> Stat.of([1.0, 3.0])
            Stat(mean=2.0, std=1.4142135623730951)
        """
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class SweepRow:
    """A set of options with what its finished runs came to.

    Attributes:
        options: those that it sets.
        seeds: of the finished runs.
        failed: seeds of the others.
        valid, test: metrics over the finished runs.
        parameters: trained ones of the first finished run.
        seconds: mean time of training.
    """

    name: str
    options: Mapping[str, Any]
    seeds: list[int]
    failed: list[int]
    valid: Mapping[str, Stat]
    test: Mapping[str, Stat]
    parameters: int | None
    seconds: float | None

    def __repr__(self) -> str:
        means = showing.in_words({name: stat.mean for name, stat in self.valid.items()})
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"SweepRow({self.name}; {len(self.seeds)} seeds{failed}; valid {means})"


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Attributes:
        done: runs that came to their end, those found finished included.
        last: the run that just ended; None at the start.
        best: the finished run with the highest validation metric, or None.
        seconds_left: at the pace so far; None before a run has ended.
    """

    done: int
    total: int
    last: SweepRun | None
    best: SweepRun | None
    seconds_left: float | None


@dataclass(frozen=True)
class Sweep:
    """What came out of a plan.

    Attributes:
        metric: of validation, that the rows are sorted by.
        rows: a table over seeds, best first.
        runs: every run, by seed, then in the order of the plan.
    """

    folder: Path
    plan: SweepPlan
    metric: str
    rows: list[SweepRow]
    runs: list[SweepRun]

    @property
    def best(self) -> SweepRow:
        """The set with the highest mean of the metric on validation."""
        return self.rows[0]

    @property
    def failed(self) -> list[SweepRun]:
        """Runs without a result."""
        return [run for run in self.runs if run.results is None]

    def __repr__(self) -> str:
        return showing.text_table(self._heading(), *shown_rows(self.rows, self.metric))

    def _repr_html_(self) -> str:
        notes = [f"{run.name}, seed {run.seed} failed: {run.error}" for run in self.failed]
        return showing.html_table(
            self._heading(), *shown_rows(self.rows, self.metric), notes[: showing.MOST_ROWS]
        )

    def _heading(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"Sweep of {len(self.runs)} runs{failed} in {self.folder}, by {self.metric}"

    def to_dict(self) -> dict[str, Any]:
        """As `results.json` has it."""
        runs = [
            {**asdict(run), "folder": run.folder.relative_to(self.folder).as_posix()}
            for run in self.runs
        ]
        return {
            "metric": self.metric,
            "grid": {key: list(values) for key, values in self.plan.grid.items()},
            "seeds": list(self.plan.seeds),
            "best": self.best.name,
            "table": [asdict(row) for row in self.rows],
            "runs": runs,
        }


def shown_rows(rows: Sequence[SweepRow], metric: str) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: the set, its seeds, and the metric on validation and test."""

    def cell(stats: Mapping[str, Stat]) -> str:
        if metric not in stats:
            return ""
        one = stats[metric]
        return f"{one.mean:.4f}" + ("" if one.std is None else f" ± {one.std:.4f}")

    cells = [[row.name, str(len(row.seeds)), cell(row.valid), cell(row.test)] for row in rows]
    return ["set", "seeds", f"valid {metric}", f"test {metric}"], cells


def rows_of(settings: Mapping[str, Mapping[str, Any]], runs: Sequence[SweepRun]) -> list[SweepRow]:
    """One row for every set of options, in their order."""
    return [_row(name, options, runs) for name, options in settings.items()]


def best_first(rows: Sequence[SweepRow], metric: str) -> list[SweepRow]:
    """By the mean of a validation metric; sets without a finished run come last."""
    return sorted(
        rows, key=lambda row: -row.valid[metric].mean if metric in row.valid else float("inf")
    )


def read_result(path: Path) -> dict[str, Any]:
    """A finished run's `results.json`.

    Raises:
        RunError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text())
        if not all(isinstance(found[part], dict) for part in PARTS):
            raise TypeError("its parts `valid` and `test` are no tables")
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = f"{type(error).__name__}: {error}".split("\n")[0]
        fix = f"delete the folder {path.parent} and repeat the command: that run is made again"
        raise RunError(f"a result with the parts `valid` and `test` in {path}", got, fix) from error
    return dict(found)


def to_frame(rows: Sequence[SweepRow]) -> pl.DataFrame:
    """A row for every set: its options, then validation, then test, mean and deviation each."""
    return pl.DataFrame([_flat(row) for row in rows], infer_schema_length=None)


def _row(name: str, options: Mapping[str, Any], runs: Sequence[SweepRun]) -> SweepRow:
    mine = [run for run in runs if run.name == name]
    good = [run.results for run in mine if run.results is not None]
    seconds = [one["seconds"] for one in good if "seconds" in one]
    return SweepRow(
        name=name,
        options=options,
        seeds=[run.seed for run in mine if run.results is not None],
        failed=[run.seed for run in mine if run.results is None],
        valid=_stats([one["valid"] for one in good]),
        test=_stats([one["test"] for one in good]),
        parameters=good[0].get("parameters") if good else None,
        seconds=statistics.fmean(seconds) if seconds else None,
    )


def _stats(metrics: Sequence[Mapping[str, float]]) -> dict[str, Stat]:
    shared = [key for key in metrics[0] if all(key in one for one in metrics)] if metrics else []
    return {key: Stat.of([one[key] for one in metrics]) for key in shared}


def _flat(row: SweepRow) -> dict[str, Any]:
    found: dict[str, Any] = {"name": row.name}
    found |= {
        key: value if isinstance(value, bool | int | float | str) else text(value)
        for key, value in row.options.items()
    }
    found |= {"seeds": len(row.seeds), "failed": len(row.failed)}
    found |= {"parameters": row.parameters, "seconds": row.seconds}
    for part in PARTS:
        for metric, stat in getattr(row, part).items():
            found |= {f"{part} {metric}": stat.mean, f"{part} {metric} std": stat.std}
    return found
