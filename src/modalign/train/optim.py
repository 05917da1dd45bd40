"""One optimizer per phase."""

from __future__ import annotations

import torch

from modalign.core.interfaces import Phase


def build(phase: Phase) -> torch.optim.Optimizer:
    """The optimizer a phase asks for, in its fused form (about 4 times faster on a CPU too).

    Its moments are there, zero, before the first step. Made at that step, as torch makes them,
    they settle for good in the holes which the first batch's tensors leave, and no later batch
    fits there again: 13 MB of a CM3 run beside features of 126 MB.
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
    """Set the learning rate of an epoch, `learning_rate * decay ** epoch`: a pure function of
    the epoch, so that an interrupted run goes on exactly.
    """
    for group in optimizer.param_groups:
        group["lr"] = phase.optimizer.learning_rate * phase.optimizer.decay**epoch
