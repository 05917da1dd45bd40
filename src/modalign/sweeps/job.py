"""What one run does: the protocol, and the job that trains a model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from modalign.core import devices, settings
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, RunError
from modalign.experiments.fit import fit
from modalign.experiments.options import RunOptions
from modalign.models import _registry as registry


class Job(Protocol):
    """One run out of many: a picklable frozen dataclass. The runner uses nothing else of it."""

    @property
    def result(self) -> str:
        """The file in a run's folder that is written last, as `results.json` or
        `student/results.json`: a run with it is finished, and the folder it stands in is the
        run folder whose `valid`, `test` and `per_user.parquet` count.
        """

    def identity(self) -> Mapping[str, Any]:
        """What makes it this experiment and no other, as JSON takes it: data fingerprint, the
        options that all runs share, and so on.
        """

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise an `InputError` where a run with these options could not start."""

    def run(self, options: Mapping[str, Any], seed: int, folder: Path) -> None:
        """Make one run, or continue one that was interrupted.

        Args:
            options: of the run's set; they win over the job's own.
            seed: of the run.
            folder: of the run.
        """


@dataclass(frozen=True)
class FitJob:
    """Trains a registered model with `experiments.fit`.

    Attributes:
        data: prepared folder; a worker process reads it once.
        features: fingerprints of the modalities.
        options: of the model, for all runs; those of a set win over them.
        run_options: where and how; the sweep chooses the folders and resumes by itself.
    """

    data: Path
    fingerprint: str
    features: Mapping[str, str]
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    run_options: RunOptions = field(default_factory=RunOptions)

    @classmethod
    def on(
        cls,
        dataset: Dataset,
        model: str,
        out: str | Path,
        options: Mapping[str, Any] | None = None,
        run: RunOptions | None = None,
    ) -> FitJob:
        """The job on a data set; one that lives in memory only is written to `out/data`.

        Args:
            dataset: what to learn from.
            model: a registered name.
            out: folder of the sweep.
            options: of the model, for all runs.
            run: where and how; its `out`, `resume` and `overwrite` do not count.

        Raises:
            UnknownName, ConfigError: no such model or device, or an option that is not right.
            RunError: `out/data` holds other data.
        """
        run = run or RunOptions()
        settings.build(registry.get(model).config, options or {}, f"model {model}")
        devices.resolve(run.device)
        home = dataset.folder or kept(dataset, Path(out) / "data")
        return cls(
            home.resolve(), dataset.fingerprint, features_of(dataset), model, options or {}, run
        )  # fmt: skip

    @property
    def result(self) -> str:
        """A run's own `results.json`."""
        return "results.json"

    def identity(self) -> dict[str, Any]:
        """Everything but the place of the data, which may move, and the device.

        Defaults are written out: another version may have others.
        """
        return {
            "kind": "fit",
            "model": self.model,
            "data fingerprint": self.fingerprint,
            "modalities": dict(self.features),
            "base options": self.config({}),
            **protocol_of(self.run_options),
        }

    def check(self, options: Mapping[str, Any]) -> None:
        """The model takes these options.

        Raises:
            ConfigError: an option is unknown or out of its bounds.
        """
        self.config(options)

    def config(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options of a run with a set of options, defaults included."""
        merged = {**self.options, **options}
        built = settings.build(registry.get(self.model).config, merged, f"model {self.model}")
        return dict(built.model_dump(mode="json"))

    def run(self, options: Mapping[str, Any], seed: int, folder: Path) -> None:
        """Train, or continue from the last checkpoint.

        Args:
            options: of the run's set; they win over the job's own.
            seed: of the training.
            folder: the run folder.

        Raises:
            RunError: the data changed since the sweep began.
            ModalignError: as `experiments.fit`.
        """
        clear(folder)
        fit(
            read_dataset(self.data, self.fingerprint),
            self.model,
            seed=seed,
            run=replace(self.run_options, out=folder, resume=True, overwrite=False, progress=False),
            **{**self.options, **options},
        )


def protocol_of(run: RunOptions) -> dict[str, Any]:
    """What of the run's options decides the numbers, as `sweep.yaml` states it."""
    return {"mask": run.mask, "cut-offs": list(run.ks), "precision": run.precision}


def clear(folder: Path) -> None:
    """Remove the files that a killed run left half written; its checkpoint stays."""
    if folder.is_dir() and not (folder / "config.yaml").is_file():
        shutil.rmtree(folder)
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def check_metric(metric: str, ks: Sequence[int]) -> None:
    """Check that a metric is one of accuracy (higher is better), at a measured cut-off.

    Raises:
        ConfigError: it is not.
    """
    from modalign.evaluate.metrics import METRICS

    kinds = [name for name, one in METRICS.items() if one.accuracy]
    name, _, k = metric.partition("@")
    if name not in kinds or k not in map(str, ks):
        raise ConfigError(
            f"a metric of accuracy, one of {', '.join(kinds)}, at one of the cut-offs "
            f"{', '.join(map(str, ks))}",
            repr(metric),
            "write it as recall@20, or add its cut-off to --k",
        )


def features_of(dataset: Dataset) -> dict[str, str]:
    """Fingerprints of the modalities."""
    return {name: m.fingerprint for name, m in sorted(dataset.modalities.items())}


def kept(dataset: Dataset, folder: Path) -> Path:
    """Write data that live in memory; what an earlier call wrote stays.

    Raises:
        RunError: the folder holds other data.
    """
    if not folder.exists():
        dataset.save(folder)
        return folder
    old = Dataset.load(folder)
    if (old.fingerprint, features_of(old)) != (dataset.fingerprint, features_of(dataset)):
        got = f"{dataset.name}, other data or features (fingerprint {dataset.fingerprint})"
        fix = "choose another folder"
        raise RunError(f"the data in {folder} (fingerprint {old.fingerprint})", got, fix)
    return folder


@lru_cache(maxsize=1)
def read_dataset(folder: Path, fingerprint: str) -> Dataset:
    """Read once for all runs of a process.

    Raises:
        RunError: the data are no longer those of the sweep.
    """
    dataset = Dataset.load(folder)
    if dataset.fingerprint != fingerprint:
        expected = f"the data that the sweep started with in {folder} (fingerprint {fingerprint})"
        got = f"fingerprint {dataset.fingerprint}"
        raise RunError(expected, got, "restore the data, or start another sweep")
    return dataset
