"""The one writer of run folders, and the one function that opens the test split after training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
from safetensors.torch import save_file

from modalign.core.files import write_aside
from modalign.core.interfaces import Recommender
from modalign.data.dataset import Dataset
from modalign.errors import RunError
from modalign.evaluate.protocol import Evaluation, Evaluator
from modalign.experiments import run_folder
from modalign.experiments.options import RunOptions
from modalign.models._registry import ModelSpec


@dataclass(frozen=True)
class Measured:
    """Metrics of a trained model.

    Attributes:
        valid: on the validation split; empty where there is none.
        test: on the test split; empty where there is none.
        per_user: test metrics of every user, or None.
    """

    valid: Mapping[str, float]
    test: Mapping[str, float]
    per_user: pl.DataFrame | None


def measure(model: Recommender, dataset: Dataset, run: RunOptions) -> Measured:
    """Measure on validation and test; no other function opens the test split after training.

    Args:
        model: at its best epoch.
        dataset: with the splits.
        run: its mask and cut-offs count.
    """
    found: dict[str, Evaluation] = {}
    for split in ("valid", "test"):
        if len(dataset.part(split)):
            found[split] = Evaluator(dataset, split=split, mask=run.mask, ks=run.ks).run(model)
    metrics = {split: one.metrics for split, one in found.items()}
    per_user = found["test"].per_user if "test" in found else None
    return Measured(metrics.get("valid", {}), metrics.get("test", {}), per_user)


def describe(
    spec: ModelSpec,
    config: Any,
    seed: int,
    dataset: Dataset,
    run: RunOptions,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """What makes a run this one and no other, as `config.yaml` states it.

    Args:
        spec: the model.
        config: its options.
        seed: of the training.
        dataset: what it learns from.
        run: of its fields the precision counts.
        more: what its task depends on besides, such as its teachers.
    """
    return {
        "model": spec.name,
        "seed": seed,
        "data": dataset.fingerprint,
        "modalities": read_modalities(spec, dataset),
        "options": config.model_dump(mode="json"),
        "precision": run.precision,
        **more,
    }


def read_modalities(spec: ModelSpec, dataset: Dataset) -> dict[str, str]:
    """Names and fingerprints of the modalities that a model is given; none where it reads none."""
    if "modalities" not in spec.needs:
        return {}
    return {name: m.fingerprint for name, m in sorted(dataset.modalities.items())}


def with_modalities_of(
    dataset: Dataset, spec: ModelSpec, config: Any, recorded: Mapping[str, str], folder: Path
) -> Dataset:
    """The data as a run saw them: with its modalities, without those encoded since.

    Args:
        dataset: the data as they are now.
        spec: the model of the run.
        config: its options.
        recorded: fingerprints of the run's modalities by name.
        folder: of the run, for messages.

    Raises:
        RunError: a modality that the model read is missing or has other features now.
    """
    if "modalities" not in spec.needs:
        return dataset
    kept = {}
    for name, expected in recorded.items():
        found = dataset.modalities.get(name)
        if found is not None and found.fingerprint == expected:
            kept[name] = found
        elif _may_be_read(config, name):
            got = "none" if found is None else f"other features ({found.fingerprint})"
            how = f"modalign encode DATA --modality {name}"
            fix = f"encode it again as it was then ({how}), or train again with --overwrite"
            raise RunError(f"modality {name!r} as {folder} was trained with ({expected})", got, fix)
    return replace(dataset, modalities=kept)


def _may_be_read(config: Any, name: str) -> bool:
    """Whether a model can read a modality that its data have: not if it names others."""
    chosen = getattr(config, "modalities", None)
    borrows = getattr(config, "missing", None) == "neighbours"  # from items alike in all modalities
    return chosen is None or name in chosen or borrows or not getattr(config, "content", True)


def write(
    folder: Path,
    model: Recommender,
    results: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    per_user: pl.DataFrame | None,
) -> None:
    """All of a finished run but its `config.yaml`; last of all `results.json`.

    Args:
        folder: opened by `run_folder.open_new`.
        model: at its best epoch.
        results: what came out.
        history: one record an epoch.
        per_user: test metrics of every user, or None.
    """
    with write_aside(folder / run_folder.HISTORY) as aside:
        aside.write_text("".join(json.dumps(dict(record)) + "\n" for record in history))
    tensors = {name: v.detach().cpu().contiguous() for name, v in model.state_dict().items()}
    with write_aside(folder / run_folder.WEIGHTS) as aside:
        save_file(tensors, aside)
    if per_user is not None:
        with write_aside(folder / run_folder.PER_USER) as aside:
            per_user.write_parquet(aside)
    with write_aside(folder / "environment.json") as aside:
        aside.write_text(json.dumps(run_folder.environment(), indent=2) + "\n")
    with write_aside(folder / "results.json") as aside:
        aside.write_text(json.dumps(results, indent=2) + "\n")


def read_history(folder: Path) -> list[dict[str, float]]:
    """The records of a run's epochs.

    Raises:
        RunError: the log is damaged.
    """
    path = folder / run_folder.HISTORY
    lines = path.read_text().splitlines() if path.is_file() else []
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise RunError(
            f"one JSON object on each line of {path}", str(error), "train the run again"
        ) from error
