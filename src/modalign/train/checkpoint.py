"""What a run needs to go on exactly where it was: one file, written aside and renamed.

All randomness of an epoch derives from (seed, epoch), so no generator state is kept. Tensors
and plain numbers only: the file is read with `weights_only=True`, nothing is executed.
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
        epoch: finished epochs.
        step: finished optimizer steps.
        best_epoch: epoch of the best validation metric, 1-based; 0 before any evaluation.
        best_metric: its value.
        metric: its name.
        best: model weights at that epoch.
        bad: evaluations in a row without a better one.
        history: one flat mapping per epoch.
        seconds: time spent in training so far.
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
    """Write a checkpoint; a kill at any moment leaves the old file or the new one."""
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

    Raises:
        RunError: unreadable, or of another experiment.
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
            "use another --out, or repeat the options the run was started with",
        )
    return TrainState(**payload["state"]), payload["model"], payload["optimizers"]
