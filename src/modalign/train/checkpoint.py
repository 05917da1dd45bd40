"""The state from which a run resumes exactly, in one file that is replaced atomically.

All randomness of an epoch derives from (seed, epoch), so that no generator state is stored. The
file contains tensors and plain values only and is read with `weights_only=True`: no code runs.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalign.core.files import write_aside
from modalign.errors import RunError

UNREADABLE = (
    OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError,
    pickle.UnpicklingError,
)  # fmt: skip


@dataclass
class TrainState:
    """Everything that changes from epoch to epoch.

    Attributes:
        epoch: number of finished epochs.
        step: number of finished optimizer steps.
        best_epoch: epoch of the best validation metric, from 1; 0 before any evaluation.
        best_metric: value of that metric.
        metric: name of that metric.
        best: model weights at that epoch.
        bad: number of evaluations since the best one.
        history: one flat mapping per epoch.
        seconds: duration of training so far.
        chosen: options of a closed-form model that validation decided.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_metric: float = float("-inf")
    metric: str = "recall@20"
    best: dict[str, Tensor] = field(default_factory=dict)
    bad: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    chosen: dict[str, float] = field(default_factory=dict)


def save(
    path: Path,
    state: TrainState,
    model: Mapping[str, Tensor],
    optimizers: list[dict[str, Any]],
    fingerprint: str,
) -> None:
    """Write a checkpoint; after an interruption the file is the old or the new one.

    Args:
        path: the file.
        state: the state of training.
        model: state dict of everything that is trained.
        optimizers: state dicts of the optimizers.
        fingerprint: identifies data, model, configuration and seed.
    """
    payload = {
        "state": {k: v for k, v in asdict(state).items() if k != "best"} | {"best": state.best},
        "model": dict(model),
        "optimizers": optimizers,
        "fingerprint": fingerprint,
    }
    with write_aside(path) as aside:
        torch.save(payload, aside)


def load(
    path: Path, fingerprint: str, device: torch.device
) -> tuple[TrainState, dict[str, Tensor], list[dict[str, Any]]]:
    """Read a checkpoint of the same data, model, configuration and seed.

    Args:
        path: the file.
        fingerprint: identifies data, model, configuration and seed.
        device: device of the tensors.

    Returns:
        The state of training, and the state dicts of the model and of the optimizers.

    Raises:
        RunError: the file is unreadable or belongs to another experiment.
    """
    try:
        payload = torch.load(path, map_location=device, weights_only=True)
        known, state = payload["fingerprint"], TrainState(**payload["state"])
        parts = payload["model"], payload["optimizers"]
    except UNREADABLE as error:
        got = f"{type(error).__name__}: {error}".split("\n")[0]
        raise RunError(
            f"a readable checkpoint {path}", got, "train again with --overwrite"
        ) from error
    if known != fingerprint:
        raise RunError(
            f"a checkpoint of this data, model, configuration and seed in {path}",
            "one of another experiment",
            "use another --out, or the options that the run was started with",
        )
    return state, *parts


def refuse_shape(path: Path, error: Exception) -> RunError:
    """The error for a checkpoint whose tensors do not fit into the model or its optimizers.

    Args:
        path: the checkpoint.
        error: what torch said.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # torch's first line says only that there are errors.
    got = lines[1] if len(lines) > 1 else (lines or [type(error).__name__])[0]
    return RunError(
        f"a checkpoint of this model in {path}",
        f"one of another shape: {got.rstrip('.')}",
        "train again with --overwrite: the file is damaged, or of another version of modalign",
    )
