"""Distillations as runs of a sweep and of an ablation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modalign.core import devices, settings
from modalign.data.dataset import Dataset
from modalign.distillation import run as distilling
from modalign.distillation.plan import VARIANTS, DistillationPlan
from modalign.distillation.source import Source
from modalign.distillation.teachers import check_weights, fingerprint_of, mixed, read_teacher
from modalign.errors import ConfigError, RunError
from modalign.experiments.options import RunOptions
from modalign.sweeps import ablation, runner
from modalign.sweeps.ablation import FULL, Ablation
from modalign.sweeps.job import check_metric, clear, features_of, kept, protocol_of, read_dataset
from modalign.sweeps.plan import SweepPlan, chosen
from modalign.sweeps.table import Progress, Sweep


@dataclass(frozen=True)
class DistillJob:
    """Distils; the student's metrics count.

    Attributes:
        data: prepared folder; a worker process reads it once.
        features: fingerprints of the modalities.
        teachers: run folders, or folders of vectors; a worker process reads them once.
        taught: fingerprints of what they teach.
        weights: of several teachers, the same in all runs.
        options: those of `DistillationPlan.of`, and `variant`, for all runs; those of a set win
            over them, also those that the variant of a set decides.
        run_options: where and how; the sweep chooses the folders and resumes by itself.
    """

    data: Path
    fingerprint: str
    features: Mapping[str, str]
    teachers: tuple[Path, ...]
    taught: tuple[str, ...]
    weights: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    run_options: RunOptions = field(default_factory=RunOptions)

    @classmethod
    def on(
        cls,
        dataset: Dataset,
        teachers: Sequence[str | Path],
        out: str | Path,
        weights: Sequence[float] | None = None,
        options: Mapping[str, Any] | None = None,
        run: RunOptions | None = None,
    ) -> DistillJob:
        """The job on a data set; one that lives in memory only is written to `out/data`.

        Args:
            dataset: the data, the teachers' own.
            teachers: run folders, or folders of vectors.
            out: folder of the sweep.
            weights: of several teachers; None searches them on validation, once for all runs.
            options: of all runs, `variant` among them.
            run: where and how; its `out`, `resume` and `overwrite` do not count.

        Raises:
            UnknownName, ConfigError: no such variant or device, or an option or weights that
                are not right.
            RunError: no teacher there, one of other data, or `out/data` holds other data.
        """
        folders = tuple(Path(one).resolve() for one in teachers)
        plan_of({}, options or {})
        run = run or RunOptions()
        devices.resolve(run.device)
        check_weights(weights, len(folders))
        sources = [read_teacher(one, dataset) for one in folders]
        shares = mixed(sources, dataset, weights)[1]
        home = dataset.folder or kept(dataset, Path(out) / "data")
        return cls(
            home.resolve(),
            dataset.fingerprint,
            features_of(dataset),
            folders,
            tuple(fingerprint_of(one) for one in sources),
            shares,
            dict(options or {}),
            run,
        )

    @property
    def result(self) -> str:
        """The student's `results.json`."""
        return "student/results.json"

    def identity(self) -> dict[str, Any]:
        """Everything but the places of data and teachers, which may move, and the device.

        Defaults are written out: another version may have others.
        """
        return {
            "kind": "distill",
            "data fingerprint": self.fingerprint,
            "modalities": dict(self.features),
            "teachers": list(self.taught),
            "weights": list(self.weights),
            "base options": self.config({}),
            **protocol_of(self.run_options),
        }

    def check(self, options: Mapping[str, Any]) -> None:
        """A distillation takes these options.

        Raises:
            UnknownName, ConfigError: an option or a variant that does not exist, is out of
                bounds, or decided by the variant.
        """
        plan_of(options, self.options)

    def config(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options of a run with a set of options, by stage, defaults included."""
        made = plan_of(options, self.options)
        stages = {stage.name: stage.config.model_dump(mode="json") for stage in made.stages}
        return {"losses": made.config.model_dump(mode="json"), **stages}

    def run(self, options: Mapping[str, Any], seed: int, folder: Path) -> None:
        """Distil, or continue from the last checkpoint of the interrupted stage.

        Args:
            options: of the run's set; they win over the job's own.
            seed: of the distillation.
            folder: of the run.

        Raises:
            RunError: the data or a teacher changed since the sweep began.
            ModalignError: as `distill`.
        """
        merged = _merged(options, self.options)
        for stage in plan_of(options, self.options).stages:
            clear(folder / stage.name)
        distilling.distill(
            _sources(self.teachers, self.taught, self.data, self.fingerprint),
            read_dataset(self.data, self.fingerprint),
            variant=str(merged.pop("variant", FULL)),
            weights=self.weights,
            seed=seed,
            run=replace(self.run_options, out=folder, resume=True, overwrite=False, progress=False),
            **merged,
        )


def sweep_distillation(
    dataset: Dataset,
    teachers: str | Path | Sequence[str | Path],
    out: str | Path,
    plan: SweepPlan | Mapping[str, Sequence[Any]],
    *,
    weights: Sequence[float] | None = None,
    seeds: Sequence[int] = (settings.DEFAULT_SEED,),
    metric: str = "recall@20",
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
    run_options: RunOptions | None = None,
    **options: Any,
) -> Sweep:
    """Distil with every combination of options and every seed; `sweep` for students.

    Args:
        dataset: the data, the teachers' own.
        teachers: a run folder or a folder of vectors, or several of them to be mixed.
        out: folder of the sweep.
        plan: values by option, as `logit_weight`, `embedding_size`, `student.n_layers`,
            `variant`, of which all combinations are tried; or a `SweepPlan`.
        weights: of several teachers; None searches them on validation, once for all runs.
        seeds: of the distillations, where `plan` is a grid.
        metric: of validation, to choose by.
        workers: number of processes.
        progress: called with the progress, at the start and after each run.
        run_options: where and how each distillation is made.
        options: of all runs, `variant` among them, and fields of `RunOptions`.

    Raises:
        ConfigError, UnknownName: an option, a variant, the grid or the metric is not right.
        DataError: there is no validation part to choose by.
        RunError, TrainingError: as `sweeps.run`; a teacher that is not there or does not fit.

    Example:
        >>> import tempfile
        >>> from modalign.experiments.fit import fit
        >>> from modalign.testing.toy import toy_dataset
        >>> data, quick = toy_dataset(), {"epochs": 1, "logit": "sort", "embedding_size": 8}
        >>> grid = {"logit_weight": [0.1, 1.0]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     teacher = fit(data, "ease", out=f"{folder}/ease").folder
        ...     found = sweep_distillation(data, teacher, f"{folder}/sweep", grid, **quick)
        >>> sorted(row.name for row in found.rows)
        ['logit_weight=0.1', 'logit_weight=1.0']
    """
    run_options, options = RunOptions.split(run_options, options)
    check_metric(metric, run_options.ks)
    plan = chosen(dataset, plan, seeds, options)
    job = DistillJob.on(dataset, _list(teachers), out, weights, options, run_options)
    return runner.run(plan, job, out, metric=metric, workers=workers, progress=progress)


def ablate_distillation(
    dataset: Dataset,
    teachers: str | Path | Sequence[str | Path],
    out: str | Path,
    variants: Sequence[str] | None = None,
    *,
    weights: Sequence[float] | None = None,
    seeds: Sequence[int] = (1, 2, 3),
    metric: str = "recall@20",
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
    run_options: RunOptions | None = None,
    **options: Any,
) -> Ablation:
    """The variants of distillation against the full one (TARec's Table 2); `ablate` for students.

    Args:
        dataset: the data, the teachers' own.
        teachers: a run folder or a folder of vectors, or several of them to be mixed.
        out: folder of the ablation.
        variants: names of some; None takes all four.
        weights: of several teachers; None searches them on validation, once for all runs.
        seeds: of the distillations.
        metric: to report first.
        workers: number of processes.
        progress: called with the progress, at the start and after each run.
        run_options: where and how each distillation is made.
        options: of the full distillation, and of a variant where it does not say otherwise; and
            fields of `RunOptions`.

    Raises:
        UnknownName, ConfigError: a variant, an option or the metric is not right, or a variant
            is the same as the full distillation with these options.
        DataError: there is no test part to compare on.
        RunError, TrainingError: as `sweeps.run`; a teacher that is not there or does not fit.
    """
    run_options, options = RunOptions.split(run_options, options)
    ablation.check(dataset, metric, run_options.ks)
    if "variant" in options:
        raise ConfigError("options of the full distillation", "'variant'", "name it in `variants`")
    known = {name: {"variant": name} for name in VARIANTS if name != FULL}
    job = DistillJob.on(dataset, _list(teachers), out, weights, options, run_options)
    plan = ablation.plan_of("distillation", known, variants, job.config, seeds)
    return ablation.run(plan, job, out, metric=metric, workers=workers, progress=progress)


def _list(teachers: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [teachers] if isinstance(teachers, str | Path) else list(teachers)


def _merged(options: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """A set's options over those of all runs; so is what the set's variant decides."""
    decided = VARIANTS.get(str(options.get("variant")), {})
    return {key: value for key, value in base.items() if key not in decided} | dict(options)


def plan_of(
    options: Mapping[str, Any], base: Mapping[str, Any] = MappingProxyType({})
) -> DistillationPlan:
    """The distillation of a set of options, `variant` among them, over those of all runs.

    Raises:
        UnknownName, ConfigError: as `DistillationPlan.of`.
    """
    merged = _merged(options, base)
    return DistillationPlan.of(str(merged.pop("variant", FULL)), merged)


@lru_cache(maxsize=1)
def _sources(
    folders: tuple[Path, ...], taught: tuple[str, ...], data: Path, fingerprint: str
) -> list[Source]:
    """Read once for all runs of a process."""
    dataset = read_dataset(data, fingerprint)
    found = [read_teacher(one, dataset) for one in folders]
    for folder, source, wanted in zip(folders, found, taught, strict=True):
        now = fingerprint_of(source)
        if now != wanted:
            expected = f"the teacher that the sweep started with in {folder} (fingerprint {wanted})"
            got = f"fingerprint {now}"
            raise RunError(expected, got, "restore the teacher, or start another sweep")
    return found
