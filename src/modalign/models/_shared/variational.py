"""What models that draw noise inside a loss have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.core import seeds
from modalign.core.interfaces import Batch, Need, Queries, Recommender
from modalign.core.view import TrainView
from modalign.nn.noise import exponential_numbers


@dataclass(frozen=True)
class Noise:
    """What a training step draws, each thing by its name: asked twice, the same.

    Attributes:
        seed: of the step.
        path: names under which this part draws.
    """

    seed: int
    path: tuple[str, ...] = ()

    def of(self, name: str) -> Noise:
        """The noise of a part."""
        return Noise(self.seed, (*self.path, name))

    def generator(self, name: str, device: torch.device) -> torch.Generator:
        """The generator of one thing."""
        return seeds.torch_generator(self.seed, *self.path, name, device=device)

    def exponential(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Draws E of the exponential distribution; `-log E` is Gumbel noise."""
        drawn = exponential_numbers(shape, self.seed, *self.path, name, device=like.device)
        return drawn.to(like.dtype)

    def kept(self, name: str, like: Tensor, dropout: float) -> Tensor:
        """What dropout multiplies with: 0, or `1 / (1 - dropout)`."""
        rng = self.generator(name, like.device)
        drawn = torch.rand(like.shape, generator=rng, device=like.device)
        return (drawn >= dropout).to(like.dtype) / (1.0 - dropout)

    def normal(self, name: str, like: Tensor) -> Tensor:
        """Draws of the standard normal distribution."""
        rng = self.generator(name, like.device)
        return torch.randn(like.shape, generator=rng, dtype=like.dtype, device=like.device)


class Variational(Recommender):
    """A model of histories whose loss needs fresh noise and a count of updates.

    The hooks draw one number, a seed; the loss makes its generators from it. So it is a
    function, repeats to the bit, and an interrupted run goes on with the same noise. The count
    of updates is kept with the weights, for what is annealed over it.
    """

    needs: ClassVar[tuple[Need, ...]] = ("history",)
    unseen_users = True
    factorised = False
    resamples = True
    updates: Tensor

    def __init__(self, config: Any, view: TrainView) -> None:
        super().__init__(config, view)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._seed = 0

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Draw the seed of the first step's noise."""
        self._redraw(rng)

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Draw the seed of the next step's noise and count the update."""
        self._redraw(rng)
        self.updates.fill_(step + 1)

    def _redraw(self, rng: torch.Generator) -> None:
        self._seed = int(torch.randint(2**62, (), generator=rng, device=rng.device))

    @property
    def noise(self) -> Noise | None:
        """What this step draws; None in evaluation mode."""
        return Noise(self._seed) if self.training else None

    def history_of(self, queries: Queries | Batch) -> Tensor:
        """Histories, sparse CSR (B, n_items).

        Raises:
            ValueError: there are none.
        """
        if queries.history is None:
            raise ValueError(f"{type(self).__name__} reads histories; the queries carry none")
        return queries.history
