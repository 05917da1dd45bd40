"""Noise of a training step, and the base of variational autoencoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.core import seeds
from modalign.core.interfaces import Batch, Need
from modalign.core.view import TrainView
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.nn.noise import exponential_numbers


@dataclass(frozen=True)
class Noise:
    """The random numbers of a training step, by name: the same name gives the same numbers.

    Attributes:
        seed: of the step.
        path: names of the part of the model that draws.
    """

    seed: int
    path: tuple[str, ...] = ()

    def of(self, name: str) -> Noise:
        """The noise of a part of the model."""
        return Noise(self.seed, (*self.path, name))

    def generator(self, name: str, device: torch.device) -> torch.Generator:
        """The generator of the numbers called `name`."""
        return seeds.torch_generator(self.seed, *self.path, name, device=device)

    def exponential(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Draws E of the exponential distribution; `-log E` is Gumbel noise.

        Args:
            name: of the numbers.
            like: gives device and type.
            *shape: of the result.
        """
        drawn = exponential_numbers(shape, self.seed, *self.path, name, device=like.device)
        return drawn.to(like.dtype)

    def kept(self, name: str, like: Tensor, dropout: float) -> Tensor:
        """Factors of dropout, 0 or `1 / (1 - dropout)`.

        Args:
            name: of the numbers.
            like: gives shape, device and type.
            dropout: probability of 0, in [0, 1).
        """
        rng = self.generator(name, like.device)
        drawn = torch.rand(like.shape, generator=rng, device=like.device)
        return (drawn >= dropout).to(like.dtype) / (1.0 - dropout)

    def normal(self, name: str, like: Tensor) -> Tensor:
        """Draws of the standard normal distribution, of the shape of `like`."""
        rng = self.generator(name, like.device)
        return torch.randn(like.shape, generator=rng, dtype=like.dtype, device=like.device)


class Variational(SeededLoss):
    """A model of histories whose loss needs new noise and a count of updates.

    The noise derives from the seed of the step. The count of updates is saved with the weights,
    for what is annealed over it.

    Args:
        config: options of the model.
        view: training data.
    """

    needs: ClassVar[tuple[Need, ...]] = ("history",)
    unseen_users = True
    factorised = False
    updates: Tensor

    def __init__(self, config: Any, view: TrainView) -> None:
        super().__init__(config, view)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Draw the seed of the next step's noise and count the update."""
        super().after_step(step, batch, rng)
        self.updates.fill_(step + 1)

    @property
    def noise(self) -> Noise | None:
        """The draws of this step; None in evaluation mode."""
        return Noise(self._seed) if self.training else None
