"""Dataset + model + options + seed -> a trained, measured recommender and its run folder.

config.yaml         model, every option, seed, data, mask
metrics.jsonl       one line per epoch
results.json        what came out; written last, so a folder with it is complete
per_user.parquet    test metrics of every user
checkpoints/        last.pt (to go on after a kill), best.safetensors
environment.json    versions, processor, threads
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from modalign import devices, registry, seeds, settings
from modalign.data.dataset import Dataset
from modalign.data.files import write_aside
from modalign.errors import ConfigError, RunError
from modalign.evaluate.protocol import Evaluation, Evaluator
from modalign.fitted import FittedModel
from modalign.interfaces import Recommender
from modalign.registry import ModelSpec
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
        RunError: `out` holds another run.
        TrainingError: a loss became NaN.
    """
    spec = registry.get(model)
    config = settings.build(spec.config, options, f"model {model}")
    _check_validation(dataset, spec, options)
    description = {
        "model": model,
        "seed": seed,
        "data": dataset.fingerprint,
        "modalities": {k: m.fingerprint for k, m in sorted(dataset.modalities.items())},
        "options": config.model_dump(mode="json"),
        "precision": precision,
    }
    fingerprint = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    folder = None if out is None else Path(out)
    log: list[Callback] = list(callbacks)
    if tensorboard:
        if folder is None:
            raise ConfigError("a run folder for TensorBoard's files", "none", "give `out` as well")
        log.append(TensorBoard(folder / "tensorboard"))
    devices.resolve(device)
    view = dataset.view()
    with seeds.torch_seed(seed, "init"):
        recommender: Recommender = spec.cls(config, view)
    validator = (
        Evaluator(dataset, split="valid", mask="train", ks=(20,), metrics=("recall", "ndcg"))
        if len(dataset.valid)
        else None
    )
    # Last of all checks: a mistake above leaves an earlier run as it is, --overwrite or not.
    if folder is not None:
        _open_folder(folder, dataset, description, mask, ks, device, resume, overwrite)
        log.insert(0, JsonLines(folder / "metrics.jsonl"))
    state = run_loop(
        recommender,
        view,
        _train_options(spec, config, seed, device, precision),
        None if validator is None else lambda one: validator.run(one).metrics,
        callbacks=log,
        checkpoint_path=None if folder is None else folder / "checkpoints" / "last.pt",
        fingerprint=fingerprint,
        resume=resume,
    )
    results: dict[str, Any] = {
        "model": model,
        "seed": seed,
        "data": dataset.fingerprint,
        "dataset": dataset.name,
        "synthetic": bool(dataset.info.get("synthetic", False)),
        "mask": mask,
        "best_epoch": state.best_epoch,
        "epochs": state.epoch,
        "parameters": sum(p.numel() for p in recommender.parameters() if p.requires_grad),
        "seconds": round(state.seconds, 3),
    }
    fitted = FittedModel(recommender, spec, config, dataset, seed, results, folder)
    test = measure(fitted, mask=mask, ks=ks)
    if folder is not None:
        write_run(fitted, test, folder)
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


def write_run(fitted: FittedModel, test: Evaluation | None, folder: Path) -> None:
    """Weights, per-user metrics and, last of all, `results.json`."""
    weights = folder / "checkpoints" / "best.safetensors"
    state = {k: v.detach().cpu().contiguous() for k, v in fitted.model.state_dict().items()}
    with write_aside(weights) as aside:
        save_file(state, aside)
    if test is not None:
        with write_aside(folder / "per_user.parquet") as aside:
            test.per_user.write_parquet(aside)
    with write_aside(folder / "environment.json") as aside:
        aside.write_text(json.dumps(environment(), indent=2) + "\n")
    with write_aside(folder / "results.json") as aside:
        aside.write_text(json.dumps(fitted.results, indent=2) + "\n")
    fitted.folder = folder


def save(fitted: FittedModel, folder: str | Path) -> Path:
    """Write a fitted model as a run folder; data that live in memory only go with it.

    Raises:
        RunError: the folder is not empty.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise RunError("an empty or new folder", f"{folder}, which is not empty", "choose another")
    ks = sorted({int(name.split("@")[1]) for name in fitted.results["test"] if "@" in name} or KS)
    _open_folder(folder, fitted.dataset, _describe(fitted), fitted.results["mask"], ks, "auto")
    test = measure(fitted, mask=fitted.results["mask"], ks=ks)
    write_run(fitted, test, folder)
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
    dataset = data if isinstance(data, Dataset) else Dataset.load(_data_path(folder, config, data))
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
    weights = folder / "checkpoints" / "best.safetensors"
    try:
        recommender.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(
            f"weights of {spec.name} in {weights}", str(error).split("\n")[0], "train it again"
        ) from error
    recommender.to(devices.resolve(device)).eval()
    return FittedModel(recommender, spec, options, dataset, config["seed"], results, folder)


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`config.yaml` and `results.json` of a finished run.

    Raises:
        RunError: not a run folder, or an interrupted run.
    """
    if not (folder / "config.yaml").is_file():
        raise RunError(
            "a run folder with a config.yaml",
            f"{folder} without one"
            if folder.is_dir()
            else f"{folder}, which {'is a file' if folder.is_file() else 'does not exist'}",
            f"train one: modalign train --data DATA --model MODEL --out {folder}",
        )
    if not (folder / "results.json").is_file():
        raise RunError(
            f"a finished run with a results.json in {folder}",
            "a run that was interrupted",
            "repeat its `modalign train` command with --resume",
        )
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        results = json.loads((folder / "results.json").read_text())
        missing = {"model", "seed", "data", "fingerprint", "modalities", "options"} - set(config)
        missing |= {"model", "mask", "valid", "test"} - set(results)
        if missing:
            raise ValueError(f"without {', '.join(sorted(missing))}")
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise RunError(
            f"readable config.yaml and results.json in {folder}",
            " ".join(str(error).split()),
            "train again with --overwrite",
        ) from error
    return config, results


def environment() -> dict[str, Any]:
    """What the numbers were made on."""
    return {
        "modalign": version("modalign"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.system() + " " + platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor() -> str:
    """The processor's name, as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


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
    }


def _open_folder(
    folder: Path,
    dataset: Dataset,
    description: Mapping[str, Any],
    mask: str,
    ks: Sequence[int],
    device: str,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    if (folder / "results.json").is_file() and not overwrite:
        raise RunError(
            "a new run folder", f"{folder}, which holds a finished run", "--overwrite replaces it"
        )
    if (folder / "config.yaml").is_file() and not (resume or overwrite):
        raise RunError(
            "a new run folder",
            f"{folder}, which holds an interrupted run",
            "--resume goes on with it, --overwrite starts again",
        )
    if resume and (folder / "config.yaml").is_file():
        _check_same(folder, {**description, "fingerprint": dataset.fingerprint})
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.yaml").is_file():
        raise RunError("a new or empty folder", f"{folder} with other files", "choose another")
    if folder.is_file():
        raise RunError("a folder", f"the file {folder}", "choose another name")
    if overwrite:
        for name in ("results.json", "checkpoints/last.pt", "metrics.jsonl", "per_user.parquet"):
            (folder / name).unlink(missing_ok=True)
    if dataset.folder is None:
        dataset.save(folder / "data")
    home = (dataset.folder or folder / "data").resolve()
    config = {
        **description,
        "data": os.path.relpath(home, folder.resolve()),
        "fingerprint": dataset.fingerprint,
        "mask": mask,
        "k": list(ks),
        "device": device,
    }
    with write_aside(folder / "config.yaml") as aside:
        aside.write_text(yaml.safe_dump(config, sort_keys=False))


def _check_same(folder: Path, description: Mapping[str, Any]) -> None:
    """Refuse to go on with a run of other data, model, options or seed."""
    try:
        found = yaml.safe_load((folder / "config.yaml").read_text())
        old = {**found, **{f"option {k}": v for k, v in found["options"].items()}}
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise RunError(
            f"a readable config.yaml in {folder}",
            " ".join(str(error).split()),
            "start again with --overwrite",
        ) from error
    new = {**description, **{f"option {k}": v for k, v in description["options"].items()}}
    for key in sorted(set(new) - {"data", "options"}):
        if old.get(key) != new[key]:
            raise RunError(
                f"{key} {old.get(key)!r}, as the interrupted run in {folder} has it",
                f"{new[key]!r}, one of another experiment",
                "use another --out, or repeat the options the run was started with",
            )


def _data_path(folder: Path, config: Mapping[str, Any], data: str | Path | None) -> Path:
    if data is not None:
        return Path(data)
    home: Path = (folder / str(config["data"])).resolve()
    if not home.is_dir():
        raise RunError(
            f"the data {folder} was trained on, in {home}", "no such folder", "give --data"
        )
    return home
