"""A model against its variants: what each part is worth, with paired tests over users."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modalign.core import showing
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, DataError, UnknownName
from modalign.evaluate.compare import MetricDifference, RunResult, average, compare
from modalign.evaluate.significance import holm, holm_of_known
from modalign.experiments.options import RunOptions
from modalign.models import _registry as registry
from modalign.sweeps import runner
from modalign.sweeps.job import FitJob, Job, check_metric
from modalign.sweeps.plan import SweepPlan
from modalign.sweeps.table import Progress, Sweep, SweepRow, rows_of, shown_rows

FULL = "full"


@dataclass(frozen=True)
class Ablation:
    """A full model and its variants on the test part.

    Attributes:
        rows: means and deviations over seeds, the full model first.
        tests: for every variant and metric of accuracy the paired t-test over users of the full
            model (first) against the variant (second), each user's values averaged over seeds, and
            Welch's t-test between the seeds; Holm's correction is over the variants.
        level: below which a corrected p-value is significant.
    """

    sweep: Sweep
    rows: list[SweepRow]
    tests: list[MetricDifference]
    level: float

    def test(self, variant: str, metric: str) -> MetricDifference | None:
        """The test of a variant; None where it has no finished run."""
        found = (t for t in self.tests if (t.second, t.metric) == (variant, metric))
        return next(found, None)

    def _heading(self) -> str:
        return f"Ablation of {len(self.rows)} variants, {len(self.sweep.runs)} runs"

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        columns, rows = shown_rows(self.rows, self.sweep.metric)
        found = [self.test(row[0], self.sweep.metric) for row in rows]
        tests = ["" if one is None else f"{one.corrected:.2g}" for one in found]
        return [*columns, "p"], [[*row, p] for row, p in zip(rows, tests, strict=True)]

    def __repr__(self) -> str:
        return showing.text_table(self._heading(), *self._cells())

    def _repr_html_(self) -> str:
        return showing.html_table(self._heading(), *self._cells())

    def to_dict(self) -> dict[str, Any]:
        """As `results.json` has it."""
        more = {"level": self.level, "tests": [asdict(test) for test in self.tests]}
        rows = [asdict(row) for row in self.rows]
        return {**self.sweep.to_dict(), "table": rows, "best": None, **more}


def ablate(
    dataset: Dataset,
    model: str,
    out: str | Path,
    variants: Sequence[str] | None = None,
    *,
    seeds: Sequence[int] = (1, 2, 3),
    metric: str = "recall@20",
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
    run_options: RunOptions | None = None,
    **options: Any,
) -> Ablation:
    """Train a model and its declared variants with several seeds, and compare them.

    Args:
        dataset: what to learn from.
        model: a registered name with variants.
        out: folder of the ablation; an interrupted one continues, as in `run`.
        variants: names of some; None takes all.
        seeds: of the runs.
        metric: to report first.
        workers: number of processes.
        progress: called with the progress, at the start and after each run.
        run_options: where and how each run is made.
        options: of the full model, and of a variant where it does not say otherwise; and fields
            of `RunOptions`.

    Raises:
        UnknownName, ConfigError: the model, a variant, an option or the metric is not right, or
            a variant is the same as the full model with these options.
        DataError: there is no test part to compare on.
        RunError, TrainingError: as `run`.
    """
    run_options, options = RunOptions.split(run_options, options)
    check(dataset, metric, run_options.ks)
    job = FitJob.on(dataset, model, out, options, run_options)
    plan = plan_of(model, registry.get(model).variants, variants, job.config, seeds)
    return run(plan, job, out, metric=metric, workers=workers, progress=progress)


def check(dataset: Dataset, metric: str, ks: Sequence[int]) -> None:
    """Check that there is a test part to compare on, and such a metric.

    Args:
        dataset: the data of the runs.
        metric: to report first, as "recall@20".
        ks: cut-offs of the runs.

    Raises:
        ConfigError: no metric of accuracy at one of the cut-offs.
        DataError: no test part.
    """
    check_metric(metric, ks)
    if not len(dataset.test):
        fix = "import the data with a split that has one"
        raise DataError("data with a test part to compare on", f"{dataset.name!r} without one", fix)


def plan_of(
    owner: str,
    known: Mapping[str, Mapping[str, Any]],
    variants: Sequence[str] | None,
    config: Callable[[Mapping[str, Any]], Any],
    seeds: Sequence[int],
) -> SweepPlan:
    """The full set and its variants.

    Args:
        owner: whose variants they are, for messages.
        known: options by variant.
        variants: names of some; None takes all.
        config: all options of a run with a set of options, to tell whether two are the same.
        seeds: of the runs.

    Raises:
        UnknownName, ConfigError: no such variant, one twice, or one that changes nothing.
    """
    chosen = _chosen(owner, known, variants)
    for name in chosen:
        if config(known[name]) == config({}):
            expected = f"options with which the variant {name!r} differs from {owner}"
            fix = "leave the variant out with --variants, or change the options"
            raise ConfigError(expected, f"{dict(known[name])}, which the full one is as well", fix)
    return SweepPlan({FULL: {}, **{name: known[name] for name in chosen}}, tuple(seeds))


def run(
    plan: SweepPlan,
    job: Job,
    out: str | Path,
    *,
    metric: str = "recall@20",
    workers: int = 1,
    level: float = 0.05,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Ablation:
    """The ablation of any job; the first set of the plan is the full model.

    Args:
        plan: the full set of options first, then its variants.
        job: what one run does.
        out: folder of the ablation.
        metric: to report first.
        workers: number of processes.
        level: below which a corrected p-value is significant.
        progress: called with the progress, at the start and after each run.

    Raises:
        ModalignError: as `sweeps.run`.
    """
    found = runner.run(plan, job, out, metric=metric, workers=workers, progress=progress)
    made = Ablation(
        found, rows_of(plan.settings, found.runs), against_first(found, level), level
    )  # fmt: skip
    from modalign.sweeps import figures  # matplotlib is slow to import

    figures.draw_differences(found, made.tests)
    runner.write(replace(found, rows=made.rows), **made.to_dict())
    return made


def against_first(found: Sweep, level: float = 0.05) -> list[MetricDifference]:
    """The first set of a plan against every other one that has finished runs.

    Raises:
        RunError: a run has no per-user metrics.
    """
    results = {
        name: average(name, seeds) for name in found.plan.settings if (seeds := _read(found, name))
    }
    first, *others = found.plan.settings
    if first not in results:
        return []
    tests = [compare([results[first], results[name]], level) for name in others if name in results]
    by_metric: dict[str, list[MetricDifference]] = {}
    for one in tests:
        for pair in one.pairs:
            by_metric.setdefault(pair.metric, []).append(pair)
    return [pair for pairs in by_metric.values() for pair in corrected_together(pairs, level)]


def corrected_together(
    pairs: Sequence[MetricDifference], level: float = 0.05
) -> list[MetricDifference]:
    """Tests of one metric as one family: their p-values corrected anew by Holm's method.

    Use it where each test was the only one of its comparison, which corrects nothing.

    Args:
        pairs: tests of the same metric.
        level: below which a corrected p-value is significant.
    """
    over_users = holm([pair.t_test for pair in pairs])
    over_seeds = holm_of_known([pair.between_seeds for pair in pairs])
    return [
        replace(
            pair, corrected=float(p), significant=bool(p < level), corrected_between_seeds=between
        )
        for pair, p, between in zip(pairs, over_users, over_seeds, strict=True)
    ]


def _read(found: Sweep, name: str) -> list[RunResult]:
    runs = [run for run in found.runs if run.name == name and run.results is not None]
    return [RunResult.read(run.folder, f"{name}, seed {run.seed}") for run in runs]


def _chosen(
    model: str, known: Mapping[str, Mapping[str, Any]], variants: Sequence[str] | None
) -> list[str]:
    if not known:
        fix = "`modalign models NAME` shows a model's variants"
        raise ConfigError("a model that declares variants", f"{model}, which has none", fix)
    for name in variants or ():
        if name not in known:
            raise UnknownName(f"variant of {model}", name, known)
    if variants is not None and (not variants or len(set(variants)) < len(variants)):
        raise ConfigError(
            "different variants, one or more", ", ".join(variants) or "none", "name each once"
        )
    return list(known if variants is None else variants)
