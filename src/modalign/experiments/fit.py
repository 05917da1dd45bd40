"""Dataset + model + options + seed -> a trained, measured recommender and its run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import polars as pl

from modalign.core import devices, seeds, settings
from modalign.core.interfaces import Recommender, Task
from modalign.core.view import TrainView
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, RunError
from modalign.evaluate.protocol import Evaluation, Evaluator, validation_metric
from modalign.experiments import run_folder
from modalign.experiments.fitted import FittedModel
from modalign.experiments.run_folder import read_run
from modalign.models import _registry as registry
from modalign.models._registry import ModelSpec
from modalign.train.callbacks import Callback, JsonLines, TensorBoard
from modalign.train.trainer import TrainOptions
from modalign.train.trainer import fit as run_loop

Mask = Literal["strict", "train"]
KS = (5, 10, 20, 50)


def fit(
    dataset: Dataset,
    model: str = "cm3",
    *,
    seed: int = 1,
    out: str | Path | None = None,
    mask: Mask = "strict",
    ks: Sequence[int] = KS,
    device: str = "auto",
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    callbacks: Sequence[Callback] = (),
    tensorboard: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> FittedModel:
    """Train a model, pick its best epoch on validation, and open the test split once.

    Args:
        dataset: what to learn from.
        model: a registered name; see `modalign models`.
        seed: all randomness derives from it; same seed, data and machine, same bits.
        out: run folder to write; None writes nothing.
        mask: "strict" hides training and validation items in the test ranking, "train" only
            training items, as published numbers do.
        ks: cut-offs of the metrics.
        device: "auto", "cpu", "cuda", "cuda:N".
        precision: "32-true" or "bf16-mixed".
        callbacks: told of every epoch.
        tensorboard: also log for TensorBoard, into `out/tensorboard`.
        resume: go on with an interrupted run in `out`.
        overwrite: replace a finished or interrupted run in `out`.
        options: of the model, by name; see its `Config`.

    Returns:
        The fitted model with its results; `results["test"]["recall@20"]` and so on.

    Raises:
        UnknownName, ConfigError: the model or an option does not exist or is out of bounds.
        DataError: the data lack what the model needs.
        RunError: `out` holds another run, or another process trains in it.
        TrainingError: a loss became NaN.
    """
    spec = registry.get(model)
    config = settings.build(spec.config, options, f"model {model}")
    _check_validation(dataset, spec, options)
    run = RunOptions(out, mask, ks, device, precision, callbacks, tensorboard, resume, overwrite)
    return fit_task(dataset, spec, config, seed, run)


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run is done; the arguments of `fit` of the same names."""

    out: str | Path | None = None
    mask: Mask = "strict"
    ks: Sequence[int] = KS
    device: str = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    callbacks: Sequence[Callback] = ()
    tensorboard: bool = False
    resume: bool = False
    overwrite: bool = False


def fit_task(
    dataset: Dataset,
    spec: ModelSpec,
    config: Any,
    seed: int,
    run: RunOptions,
    task: Callable[[Recommender, TrainView], Task] | None = None,
    described: Mapping[str, Any] = MappingProxyType({}),
) -> FittedModel:
    """`fit` of a registered model whose loss may come from elsewhere, as in distillation.

    Args:
        dataset: what to learn from.
        spec: the model.
        config: its options.
        seed: all randomness derives from it.
        run: where and how.
        task: makes what is trained from the new model and the training data; None trains the
            model by its own loss.
        described: what the task depends on besides; part of the run's identity, written to
            `config.yaml` and `results.json` as well.
    """
    description = {
        "model": spec.name,
        "seed": seed,
        "data": dataset.fingerprint,
        "modalities": {k: m.fingerprint for k, m in sorted(dataset.modalities.items())},
        "options": config.model_dump(mode="json"),
        "precision": run.precision,
        **described,
    }
    fingerprint = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    folder = None if run.out is None else Path(run.out)
    log: list[Callback] = list(run.callbacks)
    if run.tensorboard:
        if folder is None:
            raise ConfigError("a run folder for TensorBoard's files", "none", "give `out` as well")
        log.append(TensorBoard(folder / "tensorboard"))
    devices.resolve(run.device)
    view = dataset.view()
    with seeds.torch_seed(seed, "init"):
        recommender: Recommender = spec.cls(config, view)
        trained: Task = recommender if task is None else task(recommender, view)
    by = getattr(config, "select_by", "recall@20")
    validator = validation_metric(dataset, by) if len(dataset.valid) else None
    # Last of all checks: a mistake above leaves an earlier run as it is, --overwrite or not.
    with run_folder.held(folder):
        if folder is not None:
            run_folder.open_new(
                folder,
                dataset,
                description,
                run.mask,
                run.ks,
                run.device,
                run.resume,
                run.overwrite,
            )
            log.insert(0, JsonLines(folder / "metrics.jsonl"))
        state = run_loop(
            trained,
            view,
            _train_options(spec, config, seed, run.device, run.precision),
            None if validator is None else lambda one: validator.run(one).metrics,
            callbacks=log,
            checkpoint_path=None if folder is None else folder / "checkpoints" / "last.pt",
            fingerprint=fingerprint,
            resume=run.resume,
        )
        results: dict[str, Any] = {
            "model": spec.name,
            "seed": seed,
            "data": dataset.fingerprint,
            "dataset": dataset.name,
            "synthetic": bool(dataset.info.get("synthetic", False)),
            "mask": run.mask,
            **described,
            "best_epoch": state.best_epoch,
            "epochs": state.epoch,
            "parameters": sum(p.numel() for p in recommender.parameters() if p.requires_grad),
            "seconds": round(state.seconds, 3),
        }
        fitted = FittedModel(recommender, spec, config, dataset, seed, results, folder)
        test = measure(fitted, mask=run.mask, ks=run.ks)
        if folder is not None:
            run_folder.write(folder, recommender.state_dict(), results, _per_user(test))
        return fitted


def measure(fitted: FittedModel, *, mask: Mask, ks: Sequence[int]) -> Evaluation | None:
    """Fill `results["valid"]` and `results["test"]`; the only place that opens the test split
    after training. Returns the test evaluation, None where the data have no test part.
    """
    dataset, found = fitted.dataset, None
    for split in ("valid", "test"):
        fitted.results[split] = {}
        if len(dataset.part(split)):
            found = Evaluator(dataset, split=split, mask=mask, ks=ks).run(fitted.model)
            fitted.results[split] = found.metrics
    return found if len(dataset.test) else None


def save(fitted: FittedModel, folder: str | Path) -> Path:
    """Write a fitted model as a run folder; data that live in memory only go with it.

    Raises:
        RunError: the folder is not empty.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        what = "is a file" if folder.is_file() else "is not empty"
        raise RunError("an empty or new folder", f"{folder}, which {what}", "choose another")
    ks = sorted({int(name.split("@")[1]) for name in fitted.results["test"] if "@" in name} or KS)
    run_folder.open_new(
        folder, fitted.dataset, _describe(fitted), fitted.results["mask"], ks, "auto"
    )
    test = measure(fitted, mask=fitted.results["mask"], ks=ks)
    run_folder.write(folder, fitted.model.state_dict(), fitted.results, _per_user(test))
    fitted.folder = folder
    return folder


def load_model(
    folder: str | Path, data: str | Path | Dataset | None = None, device: str = "cpu"
) -> FittedModel:
    """The fitted model of a run folder.

    Args:
        folder: written by `modalign train` or `FittedModel.save`.
        data: the prepared data, where they are no longer where the run found them.
        device: where to put the weights.

    Raises:
        RunError: no finished run there, damaged weights, or other data than it was trained on.
    """
    folder = Path(folder)
    config, results = read_run(folder)
    dataset = (
        data
        if isinstance(data, Dataset)
        else Dataset.load(run_folder.data_path(folder, config, data))
    )
    spec = registry.get(config["model"])
    if dataset.fingerprint != config["fingerprint"]:
        raise RunError(
            f"the data {folder} was trained on (fingerprint {config['fingerprint']})",
            f"{dataset.name} with fingerprint {dataset.fingerprint}",
            "point --data at the data folder of that run",
        )
    for name, expected in config["modalities"].items():
        found = dataset.modalities.get(name)
        if found is None or found.fingerprint != expected:
            raise RunError(
                f"modality {name!r} as {folder} was trained with ({expected})",
                "none" if found is None else f"other features ({found.fingerprint})",
                "encode it again as it was, or train again",
            )
    options = settings.build(spec.config, config["options"], f"model {spec.name}")
    with seeds.torch_seed(config["seed"], "init"):
        recommender: Recommender = spec.cls(options, dataset.view())
    run_folder.read_weights(folder, recommender, spec.name)
    recommender.to(devices.resolve(device)).eval()
    return FittedModel(recommender, spec, options, dataset, config["seed"], results, folder)


# ---------------------------------------------------------------------- inner parts


def _check_validation(dataset: Dataset, spec: ModelSpec, options: Mapping[str, Any]) -> None:
    if not len(dataset.valid) and "epochs" in spec.config.model_fields and "epochs" not in options:
        raise ConfigError(
            "a validation part to stop by, or a number of epochs",
            f"data {dataset.name!r} without validation interactions",
            "set epochs, or import the data with a split that has a validation part",
        )


def _train_options(
    spec: ModelSpec,
    config: Any,
    seed: int,
    device: str,
    precision: Literal["32-true", "bf16-mixed"],
) -> TrainOptions:
    fields = ("epochs", "patience", "eval_every", "batch_size")
    return TrainOptions(
        seed=seed,
        device=device,
        precision=precision,
        batches=spec.batches,
        negatives="negatives" in spec.needs,
        metric=getattr(config, "select_by", "recall@20"),
        **{name: getattr(config, name) for name in fields if hasattr(config, name)},
    )


def _describe(fitted: FittedModel) -> dict[str, Any]:
    modalities = fitted.dataset.modalities
    return {
        "model": fitted.spec.name,
        "seed": fitted.seed,
        "modalities": {k: m.fingerprint for k, m in sorted(modalities.items())},
        "options": fitted.config.model_dump(mode="json"),
        "precision": "32-true",
        **{key: fitted.results[key] for key in ("distillation",) if key in fitted.results},
    }


def _per_user(test: Evaluation | None) -> pl.DataFrame | None:
    return None if test is None else test.per_user
