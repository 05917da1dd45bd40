"""Comparison of runs, with a winner only if it differs significantly from all others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modalign.errors import RunError
from modalign.evaluate.metrics import METRICS
from modalign.evaluate.significance import between_seeds, holm, holm_of_known, paired

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, pl.exceptions.PolarsError)


@dataclass(frozen=True)
class RunResult:
    """The result of one run, or of several seeds by `average`, which keeps the metrics of each in
    `seeds`.
    """

    name: str
    metrics: Mapping[str, float]
    per_user: pl.DataFrame
    mask: str
    fingerprint: str
    split: str = "test"
    seeds: Sequence[Mapping[str, float]] = ()

    @classmethod
    def read(cls, folder: str | Path, name: str | None = None) -> RunResult:
        """Read `results.json` and `per_user.parquet` of a run folder.

        Raises:
            RunError: a file is missing or unreadable, or the two do not match.
        """
        folder = Path(folder)
        try:
            found = json.loads((folder / "results.json").read_text())
            frame = pl.read_parquet(folder / "per_user.parquet")
            metrics = {str(key): float(value) for key, value in found["test"].items()}
            frame.select("user_id", *filter(_is_accuracy, metrics))  # raises where one is missing
            return cls(name or folder.name, metrics, frame, found["mask"], found["data"])
        except UNREADABLE as error:
            raise RunError(
                f"a finished run with results.json and per_user.parquet in {folder}",
                f"{type(error).__name__}: {error}".split("\n")[0],
                "train it again with `modalign train`, or give another folder",
            ) from error


@dataclass(frozen=True)
class MetricDifference:
    """One metric of two runs: difference (first minus second), its 95% confidence interval over
    users (uncorrected), p-values, the t-test corrected by Holm's method, and whether that is below
    the level. If both are averages of several seeds, also the p-value of Welch's t-test between
    seeds, which does not affect `significant`.
    """

    metric: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    t_test: float
    wilcoxon: float
    corrected: float
    significant: bool
    between_seeds: float | None = None
    corrected_between_seeds: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Metrics by run, pairwise tests, and per metric the winner or None."""

    runs: list[str]
    metrics: dict[str, dict[str, float]]
    pairs: list[MetricDifference]
    winner: dict[str, str | None]
    mask: str
    fingerprint: str
    split: str
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def compare(runs: Sequence[RunResult], level: float = 0.05) -> Comparison:
    """Compare runs on the same data, split and mask.

    Two runs differ in a metric if the t-test over users, corrected by Holm's method over all pairs
    for that metric, has a p-value below `level`. The winner has the best mean and differs from
    every other run. Metrics beyond accuracy have no winner, since higher is not better.

    Raises:
        RunError: fewer than two runs, equal names, or runs that cannot be compared.
    """
    _check(runs)
    order = runs[0].per_user["user_id"]
    frames = {run.name: _aligned(run, order) for run in runs}
    shared = [key for key in runs[0].metrics if all(key in run.metrics for run in runs)]
    pairs: list[MetricDifference] = []
    winner: dict[str, str | None] = {}
    for key in shared:
        if not _is_accuracy(key):
            continue
        tested = _pairs(key, frames, {run.name: run.seeds for run in runs}, level)
        best = max(runs, key=lambda run: run.metrics[key]).name
        wins = [p.significant for p in tested if best in (p.first, p.second)]
        winner[key] = best if all(wins) else None
        pairs += tested
    return Comparison(
        runs=[run.name for run in runs],
        metrics={run.name: {key: float(run.metrics[key]) for key in shared} for run in runs},
        pairs=pairs,
        winner=winner,
        mask=runs[0].mask,
        fingerprint=runs[0].fingerprint,
        split=runs[0].split,
        level=level,
    )


def average(name: str, seeds: Sequence[RunResult]) -> RunResult:
    """One result of several seeds: each user's values are averaged first.

    Raises:
        RunError: there is no run, or the runs cannot be compared.
    """
    if not seeds:
        raise RunError(f"at least one run of {name}", "none", "give a run for each seed")
    _comparable(seeds)
    order = seeds[0].per_user["user_id"]
    frames = [_aligned(run, order) for run in seeds]
    columns = [c for c in frames[0].columns if "@" in c and all(c in f.columns for f in frames)]
    means = {c: np.mean([f[c].to_numpy() for f in frames], axis=0) for c in columns}
    keys = [key for key in seeds[0].metrics if all(key in run.metrics for run in seeds)]
    return RunResult(
        name,
        {key: float(np.mean([run.metrics[key] for run in seeds])) for key in keys},
        frames[0].with_columns(**means),
        seeds[0].mask,
        seeds[0].fingerprint,
        seeds[0].split,
        [run.metrics for run in seeds],
    )


def _is_accuracy(key: str) -> bool:
    """Whether higher is better; False for a metric that this version does not have."""
    metric = METRICS.get(key.split("@", maxsplit=1)[0])
    return metric is not None and metric.accuracy


def _pairs(
    key: str,
    frames: Mapping[str, pl.DataFrame],
    seeds: Mapping[str, Sequence[Mapping[str, float]]],
    level: float,
) -> list[MetricDifference]:
    names = list(combinations(frames, 2))
    tests = [paired(frames[a][key].to_numpy(), frames[b][key].to_numpy()) for a, b in names]
    corrected = holm([test.t_test for test in tests])
    means = {name: [metrics[key] for metrics in several] for name, several in seeds.items()}
    welch = [between_seeds(means[a], means[b]) for a, b in names]
    return [
        MetricDifference(
            metric=key,
            first=a,
            second=b,
            difference=test.difference,
            low=test.low,
            high=test.high,
            t_test=test.t_test,
            wilcoxon=test.wilcoxon,
            corrected=float(p),
            significant=bool(p < level),
            between_seeds=q,
            corrected_between_seeds=raised,
        )
        for (a, b), test, p, q, raised in zip(
            names, tests, corrected, welch, holm_of_known(welch), strict=True
        )
    ]


def _check(runs: Sequence[RunResult]) -> None:
    names = [run.name for run in runs]
    if len(runs) < 2 or len(set(names)) < len(names):
        got = ", ".join(names) or "none"
        raise RunError("two or more runs with different names", got, "give each run once")
    _comparable(runs)


def _comparable(runs: Sequence[RunResult]) -> None:
    for what in ("fingerprint", "split", "mask"):
        values = {run.name: getattr(run, what) for run in runs}
        if len(set(values.values())) > 1:
            expected = f"runs with one {what if what != 'fingerprint' else 'data fingerprint'}"
            got = ", ".join(f"{name}: {value}" for name, value in values.items())
            raise RunError(expected, got, "evaluate all runs on the same data under the same mask")


def _aligned(run: RunResult, order: pl.Series) -> pl.DataFrame:
    frame = run.per_user
    if len(frame) == len(order) and frame["user_id"].equals(order):
        return frame
    if len(frame) != len(order) or set(frame["user_id"]) != set(order):
        got = f"{len(frame)} users in {run.name}, not the same ones"
        fix = "evaluate all runs with the same split and candidates"
        raise RunError(f"the same {len(order)} users in every run", got, fix)
    return pl.DataFrame({"user_id": order}).join(
        frame, on="user_id", how="left", maintain_order="left"
    )
