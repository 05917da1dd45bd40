"""The learning rate of models whose release lowers it by a factor in 50 epochs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import nn

from modalign.core.interfaces import OptimizerSettings, Phase, TrainedConfig

EPOCHS = 50


def decaying(model: nn.Module, config: TrainedConfig, factor: float) -> Sequence[Phase]:
    """One phase of all parameters; the learning rate is `factor^(epoch / 50)` times the given one.

    Args:
        model: whose parameters are trained.
        config: optimizer, learning rate and weight decay.
        factor: of 50 epochs.

    Example:
        >>> phase = decaying(nn.Linear(2, 2), TrainedConfig(), 0.96)[0]
        >>> round(phase.optimizer.decay**50, 6)
        0.96
    """
    settings = dataclasses.replace(OptimizerSettings.of(config), decay=factor ** (1 / EPOCHS))
    return [Phase("main", list(model.parameters()), settings)]
