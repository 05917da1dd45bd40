"""Models whose loss draws random numbers."""

from __future__ import annotations

from typing import ClassVar

import torch

from modalign.core import seeds
from modalign.core.interfaces import Batch, Recommender


class SeededLoss(Recommender):
    """A model whose loss draws random numbers from a seed that the hooks set.

    Before an epoch and after every step one number is drawn, a seed; the loss makes its generators
    from it. A loss is therefore a function: computed twice it is the same, and an interrupted run
    goes on with the same random numbers.
    """

    resamples: ClassVar[bool] = True
    _seed: int = 0

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Draw the seed of the epoch's first step."""
        self._redraw(rng)

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Draw the seed of the next step."""
        self._redraw(rng)

    def _redraw(self, rng: torch.Generator) -> None:
        self._seed = int(torch.randint(2**62, (), generator=rng, device=rng.device))

    def _rng(self, phase: str) -> torch.Generator:
        """The generator of this step and phase, where the parameters are."""
        device = next(self.parameters()).device
        return seeds.torch_generator(self._seed, phase, device=device)
