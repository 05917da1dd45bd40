"""Dataset + model + options + seed -> a trained, measured recommender and its run folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from modalign.core import devices, seeds, settings
from modalign.core.files import held
from modalign.core.interfaces import Config, Recommender, Task
from modalign.core.view import TrainView
from modalign.core.vital_signs import at_epoch, warning
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, RunError, TrainingError
from modalign.evaluate.protocol import Evaluator, validation_metric
from modalign.experiments import run_folder, store
from modalign.experiments.fitted import FittedModel
from modalign.experiments.options import RunOptions
from modalign.experiments.run_folder import read_run
from modalign.models import _registry as registry
from modalign.models._registry import ModelSpec
from modalign.train.callbacks import Callback, JsonLines, TensorBoard, shown
from modalign.train.trainer import TrainOptions
from modalign.train.trainer import fit as run_loop

LOG = logging.getLogger(__name__)


def fit(
    dataset: Dataset,
    model: str | Config = "cm3",
    *,
    seed: int = settings.DEFAULT_SEED,
    run: RunOptions | None = None,
    **options: Any,
) -> FittedModel:
    """Train a model, pick its best epoch on validation, and open the test split once.

    Args:
        dataset: what to learn from.
        model: a registered name (see `modalign models`), or a configuration such as
            `CM3Config(embedding_size=32)`, which says the model and its options.
        seed: all randomness derives from it; same seed, data and machine, same bits.
        run: where and how the run is made.
        options: of the model by name (see its configuration class), and fields of `RunOptions`
            such as `out` and `mask`, which win over those of `run`.

    Returns:
        The fitted model with its results; `results["test"]["recall@20"]` and so on.

    Raises:
        UnknownName, ConfigError: the model or an option does not exist or is out of bounds.
        DataError: the data lack what the model needs.
        RunError: `out` holds another run, or another process trains in it.
        TrainingError: a loss became NaN.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> fit(toy_dataset(), "popularity", ks=(5,)).results["test"].keys() >= {"recall@5"}
        True
    """
    run, options = RunOptions.split(run, options)
    spec, config = _configured(model, options)
    chosen = config.model_fields_set
    if not len(dataset.valid) and "epochs" in spec.config.model_fields and "epochs" not in chosen:
        raise ConfigError(
            "a validation part to stop by, or a number of epochs",
            f"data {dataset.name!r} without validation interactions",
            "set epochs, or import the data with a split that has a validation part",
        )
    shows = (*run.callbacks, *shown(run.progress, spec.name))
    return fit_task(dataset, spec, config, seed, replace(run, callbacks=shows))


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

    Raises:
        ConfigError: TensorBoard's files are wanted, and there is no folder for them.
        RunError, TrainingError: as `fit`.
    """
    if (left := _few_left(config, dataset)) is not None:
        LOG.warning("%s: %s", spec.name, _of_few(config, left))
    config = watched(config, dataset)
    description = store.describe(spec, config, seed, dataset, run, described)
    fingerprint = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    folder = run.folder
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
    with nullcontext() if folder is None else held(folder, "training"), how_to_go_on(folder):
        if folder is not None:
            run_folder.open_new(folder, dataset, description, run)
            log.insert(0, JsonLines(folder / run_folder.HISTORY))
        state = run_loop(
            trained,
            view,
            _train_options(config, seed, run),
            None if validator is None else lambda one: validator.run(one).metrics,
            callbacks=log,
            checkpoint_path=None if folder is None else folder / "checkpoints" / "last.pt",
            fingerprint=fingerprint,
            resume=run.resume,
        )
        if bad := run_folder.not_finite(recommender):
            raise TrainingError(
                f"the weights {', '.join(bad[:3])} of {spec.name} are not finite after epoch "
                f"{state.epoch}; try a smaller learning rate"
            )
        results: dict[str, Any] = {
            "model": spec.name,
            "seed": seed,
            "data": dataset.fingerprint,
            "dataset": dataset.name,
            "synthetic": bool(dataset.info.get("synthetic", False)),
            "mask": run.mask,
            "modalities": {
                name: mark
                for name, mark in description["modalities"].items()
                if name in (getattr(config, "modalities", None) or description["modalities"])
            },
            **described,
            "best_epoch": state.best_epoch,
            "epochs": state.epoch,
            "parameters": sum(p.numel() for p in recommender.parameters() if p.requires_grad),
            "seconds": round(state.seconds, 3),
        }
        signs = at_epoch(getattr(trained, "vital_signs", ()), state.history, state.best_epoch)
        idle = warning(signs, spec.name)
        if idle is not None:
            LOG.warning(idle)
        results |= {"chosen": state.chosen} if state.chosen else {}
        results |= {"vital_signs": {one.title: one.value for one in signs}} if signs else {}
        measured = store.measure(recommender, dataset, run)
        if validator is not None and (
            weak := _below_popularity(spec, view, validator, by, state.best_metric)
        ):
            LOG.warning(weak)
        results |= {"valid": measured.valid, "test": measured.test}
        if folder is not None:
            store.write(folder, recommender, results, state.history, measured.per_user)
    return FittedModel(
        recommender, spec, config, dataset, seed, results, folder,
        run=replace(run, callbacks=(), resume=False, overwrite=False),
        described=described, history=state.history, per_user=measured.per_user,
    )  # fmt: skip


def _below_popularity(
    spec: ModelSpec, view: TrainView, validator: Evaluator, by: str, reached: float
) -> str | None:
    """One sentence where counts of interactions are better on validation than the model.

    Args:
        spec: the model.
        view: training data.
        validator: measures on the validation part.
        by: the metric that selects epochs.
        reached: the model's value of it.
    """
    if spec.name == "popularity":
        return None
    counts = registry.get("popularity")
    popularity: Recommender = counts.cls(counts.config(), view)
    popularity.solve(view)
    bar = validator.run(popularity).metrics[by]
    if reached >= bar:
        return None
    fields = spec.config.model_fields
    tries = [
        text
        for name, text in (
            ("epochs", "more epochs or more patience"),
            ("learning_rate", "another learning_rate"),
            ("reg", "a larger reg"),
        )
        if name in fields
    ]
    hint = f"{', '.join(tries)}, " if tries else "other options, "
    return (
        f"{spec.name} is below popularity on validation: {by} {reached:.4f} against {bar:.4f}; "
        f"try {hint}or `modalign sweep`, or compare with ease and itemknn"
    )


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
    stored = {**spec.config.earlier, **config["options"]}
    options = settings.build(spec.config, stored, f"model {spec.name}")
    dataset = store.with_modalities_of(dataset, spec, options, config["modalities"], folder)
    with seeds.torch_seed(config["seed"], "init"):
        recommender: Recommender = spec.cls(options, dataset.view())
    run_folder.read_weights(folder, recommender, spec.name)
    recommender.to(devices.resolve(device)).eval()
    run = RunOptions(
        mask=config["mask"], ks=config["k"], device=config["device"], precision=config["precision"]
    )
    known = {*store.describe(spec, options, 0, dataset, run), *run_folder.PLACE}
    per_user = folder / run_folder.PER_USER
    return FittedModel(
        recommender, spec, options, dataset, config["seed"], results, folder,
        run=run,
        described={key: value for key, value in config.items() if key not in known},
        history=store.read_history(folder),
        per_user=pl.read_parquet(per_user) if per_user.is_file() else None,
    )  # fmt: skip


@contextmanager
def how_to_go_on(folder: Path | None) -> Iterator[None]:
    """Add to Ctrl-C and to errors of the disk what the run folder keeps, and how to continue.

    Args:
        folder: the run folder, or None.
    """
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        if folder is not None and (folder / "config.yaml").is_file():
            error.add_note(f"to go on, repeat the command with --resume (the run is in {folder})")
        raise


def watched(config: Any, dataset: Dataset) -> Any:
    """The configuration with NDCG in place of Recall where Recall tells no epochs apart.

    Lists of K items out of little more hold nearly all relevant items whatever their order, so that
    the first epoch would be the best. A metric that was chosen is kept.

    Args:
        config: options of a model.
        dataset: its items, and the training items of its users with validation items, count.
    """
    if _few_left(config, dataset) is None or "select_by" in config.model_fields_set:
        return config
    return config.model_copy(update={"select_by": config.select_by.replace("recall", "ndcg")})


# ---------------------------------------------------------------------- inner parts

FEW = 5
"""Recall@K selects epochs where at least this many times K items are left to rank."""


def _few_left(config: Any, dataset: Dataset) -> int | None:
    """The number of items left to rank for a typical user, if Recall selects among too few."""
    name, _, k = getattr(config, "select_by", "").partition("@")
    if name != "recall" or not len(dataset.valid):
        return None
    users = np.unique(dataset.valid.users)
    left = dataset.n_items - int(np.median(np.diff(dataset.history.train.indptr)[users]))
    return left if left < FEW * int(k) else None


def _of_few(config: Any, left: int) -> str:
    k = config.select_by.partition("@")[2]
    advice = f"NDCG@{k} selects the best epoch (choose with select_by)"
    if "select_by" in config.model_fields_set:
        advice = f"select_by=ndcg@{k} would tell epochs apart"
    return (
        f"{left} items are left to rank for a typical user, fewer than {FEW} times {k}, so that "
        f"Recall@{k} is high for any order; {advice}"
    )


def _configured(model: str | Config, options: Mapping[str, Any]) -> tuple[ModelSpec, Config]:
    """The registered model and its configuration, from a name and options or from the latter."""
    if isinstance(model, str):
        spec = registry.get(model)
        return spec, settings.build(spec.config, options, f"model {model}")
    if options:
        raise ConfigError(
            "a configuration with all options in it",
            f"{type(model).__name__}(...) and {', '.join(options)} besides",
            "put them into the configuration, or give the model by name",
        )
    return registry.of_config(model), model


def _train_options(config: Any, seed: int, run: RunOptions) -> TrainOptions:
    fields = ("epochs", "patience", "eval_every", "batch_size")
    return TrainOptions(
        seed=seed,
        device=run.device,
        precision=run.precision,
        metric=getattr(config, "select_by", "recall@20"),
        **{name: getattr(config, name) for name in fields if hasattr(config, name)},
    )
