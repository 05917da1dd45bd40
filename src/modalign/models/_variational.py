"""What models that draw noise inside a loss have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modalign import seeds
from modalign.data.view import TrainView
from modalign.interfaces import Batch, Queries, Recommender


class Variational(Recommender):
    """A model of histories whose loss needs fresh noise and a count of updates.

    The hooks draw one number, a seed; the loss makes its generators from it. So it is a
    function, repeats to the bit, and an interrupted run goes on with the same noise. The count
    of updates is kept with the weights, for what is annealed over it.
    """

    unseen_users = True
    factorised = False
    resamples = True
    updates: Tensor

    def __init__(self, config: Any, view: TrainView) -> None:
        super().__init__(config, view)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._noise = 0

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Draw the seed of the first step's noise."""
        self._redraw(rng)

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Draw the seed of the next step's noise and count the update."""
        self._redraw(rng)
        self.updates.fill_(step + 1)

    def _redraw(self, rng: torch.Generator) -> None:
        self._noise = int(torch.randint(2**62, (), generator=rng, device=rng.device))

    def noise(self, *path: str | int) -> torch.Generator:
        """This step's generator for the consumer named by `path`."""
        return seeds.torch_generator(self._noise, *path, device=self.updates.device)

    def history_of(self, queries: Queries | Batch) -> Tensor:
        """Histories, sparse CSR (B, n_items).

        Raises:
            ValueError: there are none.
        """
        if queries.history is None:
            raise ValueError(f"{type(self).__name__} reads histories; the queries carry none")
        return queries.history
