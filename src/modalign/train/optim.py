"""The optimizer of a phase."""

from __future__ import annotations

import torch

from modalign.core.interfaces import Phase


def build(phase: Phase) -> torch.optim.Optimizer:
    """The optimizer of a phase, in its fused form (about 4 times faster, also on a CPU).

    Its moments are allocated, as zeros, before the first step. torch allocates them in that step,
    where they occupy memory that the first batch's tensors left, so that later batches need more:
    13 MB of a CM3 run with features of 126 MB.
    """
    s = phase.optimizer
    kinds: dict[str, type[torch.optim.Adam]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    kind = kinds[s.kind]
    optimizer = kind(
        list(phase.params),
        lr=s.learning_rate,
        betas=s.betas,
        weight_decay=s.weight_decay,
        fused=True,
    )
    start = {
        number: {
            "step": torch.zeros((), device=one.device),
            "exp_avg": torch.zeros_like(one),
            "exp_avg_sq": torch.zeros_like(one),
        }
        for number, one in enumerate(phase.params)
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": start})
    return optimizer


def decay(optimizer: torch.optim.Optimizer, phase: Phase, epoch: int) -> None:
    """Set the learning rate of an epoch, `learning_rate * decay ** epoch`.

    It depends on the epoch alone, so that a resumed run continues exactly.

    Args:
        optimizer: the phase's optimizer.
        phase: its settings have learning rate and decay.
        epoch: number of the epoch, from 0.
    """
    for group in optimizer.param_groups:
        group["lr"] = phase.optimizer.learning_rate * phase.optimizer.decay**epoch
