"""Comparison of runs, with a winner only if it differs significantly from all others.

Runs are compared on the users whose test pairs are the same in all of them. The test pairs of a
user are in the column `relevant` of `per_user.parquet`; older runs lack it and are compared by the
fingerprint of their data. Besides its own results, a run folder holds what `modalign evaluate`
measured later, in `evaluations/`: under another mask, or on other data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modalign.core import showing
from modalign.errors import RunError, UnknownName
from modalign.evaluate.metrics import METRICS
from modalign.evaluate.significance import between_seeds, holm, holm_of_known, paired

EVALUATIONS = "evaluations"
"""Folder of a run that keeps what was measured after its training."""
RELEVANT = "relevant"
"""Column of the ids of a user's test items."""
USUAL_LENGTH = 20
LARGE = 10.0
"""From this on a metric, such as a mean popularity, is shown with one decimal."""
ENOUGH = 2
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, pl.exceptions.PolarsError)


@dataclass(frozen=True)
class RunResult:
    """The result of one run, or of several seeds by `average`, which keeps the metrics of each in
    `seeds`.

    Attributes:
        per_user: user_id, the metrics, and `relevant`, the ids of the user's test items.
        measured: number of users before `on_shared_users` left out some; None if it did not.
        modalities: fingerprints by name of the modalities that the model read.
    """

    name: str
    metrics: Mapping[str, float]
    per_user: pl.DataFrame
    mask: str
    fingerprint: str
    split: str = "test"
    seeds: Sequence[Mapping[str, float]] = ()
    measured: int | None = None
    modalities: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        rules = f"{self.split}, mask {self.mask}, {len(self.per_user):,} users"
        return f"RunResult({self.name}: {rules}; {showing.in_words(self.metrics)})"

    @property
    def n_measured(self) -> int:
        """Number of users that were measured, also if only those that runs share are left."""
        return len(self.per_user) if self.measured is None else self.measured

    @classmethod
    def read(cls, folder: str | Path, name: str | None = None) -> RunResult:
        """Read `results.json` and `per_user.parquet` of a run folder.

        Raises:
            RunError: a file is missing or unreadable, or the two do not match.
        """
        return measurements(folder, name)[0]


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
    """Metrics by run, pairwise tests, and per metric the winner or None.

    Attributes:
        metrics: by run and metric; the mean over its seeds.
        top: by metric the runs that share the top: the best one, and those that do not differ
            significantly from it.
        deviations: by run and metric the standard deviation over its seeds; of runs with several.
        n_users: number of users that all runs share, with the same test pairs.
        measured: by run the number of its users.
        fingerprints: by run the data that it was measured on; `fingerprint` is that of the first.
        remarks: what to know when reading the numbers.
        modalities: by run, fingerprints by name of the modalities that it read.
    """

    runs: list[str]
    metrics: dict[str, dict[str, float]]
    pairs: list[MetricDifference]
    winner: dict[str, str | None]
    mask: str
    fingerprint: str
    split: str
    level: float
    top: dict[str, list[str]] = field(default_factory=dict)
    deviations: dict[str, dict[str, float]] = field(default_factory=dict)
    n_users: int = 0
    measured: dict[str, int] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    modalities: dict[str, dict[str, str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def ordered(self, metric: str) -> list[str]:
        """The runs by a metric, the highest first.

        Raises:
            UnknownName: the runs do not share that metric.
        """
        known = next(iter(self.metrics.values()))
        if metric not in known:
            raise UnknownName("metric of these runs", metric, known)
        return sorted(self.runs, key=lambda run: -self.metrics[run][metric])

    def shown_metrics(self) -> list[str]:
        """Recall and NDCG at the longest list that is not above 20, or whatever there is."""
        known = list(next(iter(self.metrics.values())))
        lengths = sorted({int(key.split("@")[1]) for key in known})
        k = max((one for one in lengths if one <= USUAL_LENGTH), default=min(lengths, default=0))
        main = [key for key in (f"recall@{k}", f"ndcg@{k}") if key in known]
        return main or known[:2]

    def rows(self, metrics: Sequence[str] | None = None) -> list[list[str]]:
        """One row for each run, sorted by the first metric: the name and a cell for each metric.

        A cell has four decimals, the deviation over seeds, and "*" for a winner or "=" for a run
        that shares the top.

        Args:
            metrics: the columns; None takes `shown_metrics`.

        Raises:
            UnknownName: the runs do not share one of them.
        """
        chosen = self.shown_metrics() if metrics is None else list(metrics)
        names = self.ordered(chosen[0]) if chosen else self.runs
        for metric in chosen[1:]:
            self.ordered(metric)
        return [[name, *(self._cell(name, metric) for metric in chosen)] for name in names]

    def _cell(self, run: str, metric: str) -> str:
        value = self.metrics[run][metric]
        text = f"{value:.4f}" if abs(value) < LARGE else f"{value:,.1f}"
        deviation = self.deviations.get(run, {}).get(metric)
        if deviation is not None:
            text += f" ± {deviation:.4f}" if abs(value) < LARGE else f" ± {deviation:,.1f}"
        if self.winner.get(metric) == run:
            return f"{text} *"
        return f"{text} =" if run in self.top.get(metric, ()) else f"{text}  "

    def _heading(self) -> str:
        return (
            f"Comparison of {len(self.runs)} runs on {self.n_users:,} users, {self.split}, "
            f"mask {self.mask}"
        )

    def __repr__(self) -> str:
        shown = self.shown_metrics()
        return showing.text_table(self._heading(), ["run", *shown], self.rows(shown))

    def _repr_html_(self) -> str:
        shown = self.shown_metrics()
        note = "* significantly better than every other run; = shares the top"
        return showing.html_table(
            self._heading(), ["run", *shown], self.rows(shown), [note, *self.remarks]
        )


def measurements(folder: str | Path, name: str | None = None) -> list[RunResult]:
    """All that was measured of a run with all items ranked on the test split, its own first.

    What `modalign evaluate` measured at more cut-offs, under the mask and on the data of the run,
    is part of its own results.

    Args:
        folder: a finished run.
        name: of the results; None takes the name of the folder.

    Raises:
        RunError: a file is missing or unreadable, or the metrics and the users do not match.
    """
    folder = Path(folder)
    name = name or folder.name
    own = _read(folder / "results.json", folder / "per_user.parquet", name)
    found = [own]
    for path in sorted((folder / EVALUATIONS).glob("test-*-all-*.json")):
        kept = _read(path, path.with_suffix(".parquet"), name)
        if (kept.mask, kept.fingerprint) != (own.mask, own.fingerprint):
            found.append(kept)
        elif own.per_user["user_id"].equals(kept.per_user["user_id"]):
            more = [c for c in kept.per_user.columns if c not in own.per_user.columns]
            found[0] = replace(
                own,
                metrics={**kept.metrics, **own.metrics},
                per_user=own.per_user.with_columns(kept.per_user.select(more)),
            )
    return found


def _read(results: Path, users: Path, name: str) -> RunResult:
    try:
        found = json.loads(results.read_text())
        frame = pl.read_parquet(users)
        metrics = {str(key): float(value) for key, value in found["test"].items()}
        frame.select("user_id", *filter(_is_accuracy, metrics))  # raises where one is missing
        read = found.get("modalities", {})
        return RunResult(name, metrics, frame, found["mask"], found["data"], modalities=read)
    except UNREADABLE as error:
        raise RunError(
            f"a finished run with {results.name} and {users.name} in {results.parent}",
            f"{type(error).__name__}: {error}".split("\n")[0],
            "train it again with `modalign train`, or give another folder"
            if results.name == "results.json"
            else f"remove {results}, and repeat `modalign evaluate`",
        ) from error


def matching(
    found: Sequence[Sequence[RunResult]], mask: str | None = None
) -> tuple[list[RunResult], list[str]]:
    """One measurement of each run: under one mask, and on the same data where there is one.

    Args:
        found: the `measurements` of each run.
        mask: "strict" or "train"; None takes that of the first run under which all were measured.

    Returns:
        The measurements, and remarks on the choice.

    Raises:
        RunError: there is no mask under which all runs were measured.
    """
    masks = [mask] if mask else list(dict.fromkeys(one.mask for some in found for one in some))
    chosen = next((m for m in masks if all(any(o.mask == m for o in some) for some in found)), None)
    if chosen is None:
        has = [f"{some[0].name}: {' and '.join({o.mask: 0 for o in some})}" for some in found]
        wanted = mask or masks[0]
        lacks = [s[0].name for s in found if all(one.mask != wanted for one in s)]
        raise RunError(
            f"runs measured under one mask{f', {mask}' if mask else ''}",
            "; ".join(has),
            f"measure {', '.join(lacks)} under it: modalign evaluate RUN --mask {wanted}",
        )
    remarks = []
    if not mask and any(some[0].mask != chosen for some in found):
        remarks.append(f"the runs are compared under mask {chosen}, under which all were measured")
    under = [[one for one in some if one.mask == chosen] for some in found]
    if len({some[0].fingerprint for some in under}) == 1:
        return [some[0] for some in under], remarks
    # The data of the last run first: the challenger's.
    for wanted in dict.fromkeys(some[0].fingerprint for some in reversed(under)):
        same = [next((o for o in some if o.fingerprint == wanted), None) for some in under]
        if None not in same:
            remarks.append(f"all runs were measured on the data with fingerprint {wanted}")
            return [one for one in same if one is not None], remarks
    return [some[0] for some in under], remarks


def on_shared_users(runs: Sequence[RunResult]) -> list[RunResult]:
    """The runs with only those users whose test pairs are the same in all of them.

    Means are taken again over these users; metrics of whole lists, such as coverage, are left out
    where users are.

    Args:
        runs: results under one mask; without a column `relevant`, their data must be the same.

    Raises:
        RunError: they share fewer than two such users.
    """
    if any(RELEVANT not in run.per_user.columns for run in runs):
        refuse_other_data(runs)
        return list(runs)
    shared = runs[0].per_user.select("user_id", first=pl.col(RELEVANT).list.sort())
    for run in runs[1:]:
        other = run.per_user.select("user_id", other=pl.col(RELEVANT).list.sort())
        both = shared.join(other, on="user_id", how="inner", maintain_order="left")
        shared = both.filter(pl.col("first") == pl.col("other")).drop("other")
    if len(shared) < ENOUGH:
        has = ", ".join(f"{run.name} has {len(run.per_user)} users" for run in runs)
        raise RunError(
            "runs with the same test pairs for two users or more",
            f"{len(shared)} such users ({has})",
            "evaluate all runs on the same data: modalign evaluate RUN --data DATA",
        )
    return [_only_users(run, shared["user_id"]) for run in runs]


def refuse_other_data(runs: Sequence[RunResult]) -> None:
    """Reject runs that were measured on different data.

    Raises:
        RunError: their fingerprints differ.
    """
    _one(runs, "fingerprint", "evaluate all runs on the same data under the same mask")


def _only_users(run: RunResult, users: pl.Series) -> RunResult:
    if len(users) == len(run.per_user):
        return run
    frame = run.per_user.join(users.to_frame(), on="user_id", how="semi", maintain_order="left")
    columns = [key for key in run.metrics if _is_accuracy(key)]
    means = {key: float(np.mean(frame[key].to_numpy())) for key in columns}
    return replace(run, metrics=means, per_user=frame, measured=run.n_measured)


def compare(
    runs: Sequence[RunResult], level: float = 0.05, remarks: Sequence[str] = ()
) -> Comparison:
    """Compare runs under the same split and mask, on the users whose test pairs they share.

    Two runs differ in a metric if the t-test over users, corrected by Holm's method over all pairs
    for that metric, has a p-value below `level`. The winner has the best mean and differs from
    every other run. Metrics beyond accuracy have no winner, since higher is not better.

    Args:
        runs: two or more results with different names.
        level: significance level of the corrected tests.
        remarks: what to know of the runs, kept in the comparison.

    Raises:
        RunError: fewer than two runs, equal names, or runs that cannot be compared.
    """
    _check(runs)
    runs = on_shared_users(runs)
    order = runs[0].per_user["user_id"]
    frames = {run.name: _aligned(run, order) for run in runs}
    shared = [key for key in runs[0].metrics if all(key in run.metrics for run in runs)]
    pairs: list[MetricDifference] = []
    winner: dict[str, str | None] = {}
    top: dict[str, list[str]] = {}
    for key in shared:
        if not _is_accuracy(key):
            continue
        tested = _pairs(key, frames, {run.name: run.seeds for run in runs}, level)
        best = max(runs, key=lambda run: run.metrics[key]).name
        beaten = {n for p in tested if p.significant for n in (p.first, p.second)
                  if best in (p.first, p.second)}  # fmt: skip
        top[key] = [run.name for run in runs if run.name == best or run.name not in beaten]
        winner[key] = best if top[key] == [best] else None
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
        top=top,
        deviations={run.name: _deviations(run, shared) for run in runs if len(run.seeds) > 1},
        n_users=len(order),
        measured={run.name: run.n_measured for run in runs},
        fingerprints={run.name: run.fingerprint for run in runs},
        remarks=[*remarks, *_remarks(runs)],
        modalities={run.name: dict(run.modalities) for run in runs},
    )


def _deviations(run: RunResult, keys: Sequence[str]) -> dict[str, float]:
    return {key: float(np.std([one[key] for one in run.seeds], ddof=1)) for key in keys}


def _remarks(runs: Sequence[RunResult]) -> list[str]:
    said = []
    n = len(runs[0].per_user)
    others = len({run.fingerprint for run in runs}) > 1
    if others or any(run.n_measured != n for run in runs):
        each = ", ".join(f"{run.n_measured:,} of {run.name}" for run in runs)
        said.append(f"{n:,} users are shared, with the same test pairs: of {each}")
    if others:
        said.append(
            "the runs ranked the items of different data; `modalign evaluate RUN --data DATA` "
            "measures a run on other data, with the same items to rank"
        )
    if len({tuple(sorted(run.modalities.items())) for run in runs if run.modalities}) > 1:
        each = "; ".join(
            f"{run.name} {', '.join(f'{n} ({mark[:6]})' for n, mark in run.modalities.items())}"
            for run in runs
            if run.modalities
        )
        said.append(f"the runs read different features: {each}")
    return said


def average(name: str, seeds: Sequence[RunResult]) -> RunResult:
    """One result of several seeds: each user's values are averaged first.

    Raises:
        RunError: there is no run, or the runs cannot be compared.
    """
    if not seeds:
        raise RunError(f"at least one run of {name}", "none", "give a run for each seed")
    _comparable(seeds)
    refuse_other_data(seeds)
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
        None if seeds[0].measured is None else max(run.n_measured for run in seeds),
        modalities=seeds[0].modalities,
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
    for what in ("split", "mask"):
        _one(runs, what, "evaluate all runs on the same data under the same mask")


def _one(runs: Sequence[RunResult], what: str, fix: str) -> None:
    values = {run.name: getattr(run, what) for run in runs}
    if len(set(values.values())) > 1:
        expected = f"runs with one {what if what != 'fingerprint' else 'data fingerprint'}"
        got = ", ".join(f"{name}: {value}" for name, value in values.items())
        raise RunError(expected, got, fix)


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
