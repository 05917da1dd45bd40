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
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise RunError(
            f"a readable checkpoint {path}", str(error).split("\n")[0], "train again from the start"
        ) from error
    if payload["fingerprint"] != fingerprint:
        raise RunError(
            f"a checkpoint of this data, model, configuration and seed in {path}",
            "one of another experiment",
            "use another --out, or the options that the run was started with",
        )
    return TrainState(**payload["state"]), payload["model"], payload["optimizers"]
