"""A run folder: its files, each written whole or not at all, and read with clear errors.

config.yaml         model, every option, seed, data, mask
metrics.jsonl       one line per epoch
results.json        what came out; written last, so a folder with it is complete
per_user.parquet    test metrics of every user
checkpoints/        last.pt (to go on after a kill), best.safetensors
environment.json    versions, processor, threads
evaluations/        what `modalign evaluate` measured later
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from modalign.core import devices
from modalign.core.files import LOCK, write_aside
from modalign.data.dataset import Dataset
from modalign.errors import RunError
from modalign.evaluate.compare import EVALUATIONS
from modalign.experiments.options import RunOptions

WEIGHTS = Path("checkpoints") / "best.safetensors"
HISTORY = "metrics.jsonl"
PER_USER = "per_user.parquet"
PLACE = ("data", "fingerprint", "mask", "k", "device")
"""Keys of `config.yaml` besides what describes the run."""


def open_new(
    folder: Path, dataset: Dataset, description: Mapping[str, Any], run: RunOptions
) -> None:
    """Make or take over the folder and write its `config.yaml`.

    Args:
        folder: the run folder.
        dataset: what is learned from; saved into the folder where it lives in memory only.
        description: what makes the run this one; see `store.describe`.
        run: its mask, cut-offs and device are written; `resume` and `overwrite` decide what
            happens to an earlier run.

    Raises:
        RunError: another run or other files stand there.
    """
    if (folder / "results.json").is_file() and not run.overwrite:
        fix = "choose another folder, or replace it with --overwrite"
        raise RunError("a new run folder", f"{folder}, which holds a finished run", fix)
    if (folder / "config.yaml").is_file() and not (run.resume or run.overwrite):
        fix = "continue it with --resume, or start again with --overwrite"
        raise RunError("a new run folder", f"{folder}, which holds an interrupted run", fix)
    if run.resume and (folder / "config.yaml").is_file():
        check_same(folder, {**description, "fingerprint": dataset.fingerprint})
    others = folder.is_dir() and any(entry.name != LOCK for entry in folder.iterdir())
    if others and not (folder / "config.yaml").is_file():
        raise RunError("a new or empty folder", f"{folder} with other files", "choose another")
    if run.overwrite:
        for name in ("results.json", "checkpoints/last.pt", HISTORY, PER_USER):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / EVALUATIONS, ignore_errors=True)  # of the run that is replaced
    if dataset.folder is None:
        dataset.save(folder / "data")
    home = (dataset.folder or folder / "data").resolve()
    config = {
        **description,
        "data": os.path.relpath(home, folder.resolve()),
        "fingerprint": dataset.fingerprint,
        "mask": run.mask,
        "k": list(run.ks),
        "device": run.device,
    }
    with write_aside(folder / "config.yaml") as aside:
        aside.write_text(yaml.safe_dump(config, sort_keys=False))


def read_weights(folder: Path, model: torch.nn.Module, name: str) -> None:
    """Load the best weights of a run into a model of the same shape.

    Args:
        folder: the run folder.
        model: takes the weights.
        name: of the model, for the message.

    Raises:
        RunError: damaged, or of another model.
    """
    weights = folder / WEIGHTS
    try:
        model.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(
            f"weights of {name} in {weights}", str(error).split("\n")[0], "train it again"
        ) from error
    if bad := not_finite(model):
        raise RunError(
            f"finite weights of {name} in {weights}",
            f"NaN or infinite numbers in {', '.join(bad[:3])}",
            "train it again with a smaller learning rate",
        )


def not_finite(model: torch.nn.Module) -> list[str]:
    """Names of the parameters and saved buffers that hold a number that is not finite.

    Example:
        >>> layer = torch.nn.Linear(1, 1)
        >>> _ = torch.nn.init.constant_(layer.bias, float("inf"))
        >>> not_finite(layer)
        ['bias']
    """
    return [
        name
        for name, one in model.state_dict().items()
        if one.is_floating_point() and not bool(one.isfinite().all())
    ]


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
        got = "a run that was interrupted"
        fix = "repeat its `modalign train` command with --resume"
        raise RunError(f"a finished run with a results.json in {folder}", got, fix)
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        results = json.loads((folder / "results.json").read_text())
        wanted = {"model", "seed", "modalities", "options", "precision", *PLACE}
        missing = wanted - set(config)
        missing |= {"model", "mask", "valid", "test"} - set(results)
        if missing:
            raise ValueError(f"without {', '.join(sorted(missing))}")
    except (ValueError, TypeError, yaml.YAMLError) as error:
        got = " ".join(str(error).split())
        fix = "train again with --overwrite"
        raise RunError(f"readable config.yaml and results.json in {folder}", got, fix) from error
    return config, results


def data_path(folder: Path, config: Mapping[str, Any], data: str | Path | None) -> Path:
    """Where the data of a run are.

    Args:
        folder: the run folder.
        config: its `config.yaml`.
        data: the folder that the user named; None takes the one that the run was trained on.

    Raises:
        RunError: that folder no longer exists.
    """
    if data is not None:
        return Path(data)
    home: Path = (folder / str(config["data"])).resolve()
    if not home.is_dir():
        raise RunError(
            f"the data {folder} was trained on, in {home}", "no such folder", "name it with --data"
        )
    return home


def environment() -> dict[str, Any]:
    """Versions, processor and threads that the numbers were made with."""
    return {
        "modalign": version("modalign"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.system() + " " + platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": devices.gpu_name(),
    }


def processor() -> str:
    """The processor's name, as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def check_same(folder: Path, description: Mapping[str, Any]) -> None:
    """Compare a run's `config.yaml` with what is asked for now.

    Raises:
        RunError: it is of other data, model, options or seed; the first difference is named.
    """
    try:
        old = _flat(yaml.safe_load((folder / "config.yaml").read_text()))
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        got = " ".join(str(error).split())
        fix = "start again with --overwrite"
        raise RunError(f"a readable config.yaml in {folder}", got, fix) from error
    new = _flat({key: value for key, value in description.items() if key != "data"})
    for key in sorted(new):
        if old.get(key) != new[key]:
            got = f"{new[key]!r}, one of another experiment"
            fix = "use another --out, or repeat the options the run was started with"
            raise RunError(f"{key} {old.get(key)!r}, as the run in {folder} has it", got, fix)


def _flat(description: Mapping[str, Any]) -> dict[str, Any]:
    """`{"options": {"reg": 1}}` to `{"option reg": 1}`, and so on for what is inside."""
    found: dict[str, Any] = {}
    for key, value in description.items():
        if isinstance(value, Mapping) and key != "modalities":
            name = key.removesuffix("s")
            found |= {f"{name} {inner}": one for inner, one in _flat(value).items()}
        else:
            found[key] = value
    return found
