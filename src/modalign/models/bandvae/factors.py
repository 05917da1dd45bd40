"""Interest factors of one side of BANDVAE: clustering of a user's bag, and an encoder of each part.

The equations B2 to B9 that comments cite are listed in `docs/models/bandvae.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from modalign.models._shared.variational import Noise
from modalign.models.bandvae.decoder import Assignment
from modalign.nn.bags import Bags, bag_dots, bag_sums
from modalign.nn.losses.vae import scale_kl

Through = Literal["stop", "straight_through", "full"]


@dataclass(frozen=True)
class SideOptions:
    """How one side (the items, or the words of a modality) is clustered and encoded.

    Attributes:
        n_factors: K.
        rounds: L, assignments of the entries to the prototypes; all but the last move them.
        temperature: of the assignment.
        prior_std: sigma of the prior.
        hidden_size: D.
        dropout: share of the entries of a factor that are dropped in training.
        dropout_in_rounds: apply dropout also while prototypes are moved.
        per_user_noise: draw the noise of the first round for each user, not once per batch.
        unit_samples: scale drawn factors to length 1.
        shared_noise: add noise to a first round that is alike for all users.
        prototype_gradient: the gradient of the first prototypes where they are moved.
        raw_updates: move prototypes by rows of the table as they are, not by unit rows.
    """

    n_factors: int
    rounds: int
    temperature: float
    prior_std: float
    hidden_size: int
    dropout: float
    dropout_in_rounds: bool
    per_user_noise: bool
    unit_samples: bool
    prototype_gradient: Through
    raw_updates: bool
    shared_noise: bool = True


@dataclass(frozen=True)
class Encoded:
    """Factors of a block of users.

    Attributes:
        factors: z, (B, K, d); the means where there is no noise.
        log_precision: o of (B7), (B, K, d).
        assignment: A.
    """

    factors: Tensor
    log_precision: Tensor
    assignment: Assignment

    @property
    def divergence(self) -> Tensor:
        """Divergence from the prior (B9) of each user without its constant, (B,)."""
        return scale_kl(self.log_precision).sum(1)


class FactorEncoder(nn.Module):
    """Table, prototypes and network of one side.

    Args:
        width: number of entries of a bag: items, or words.
        size: width d of a factor.
        options: see `SideOptions`.

    Shapes:
        table (width, d), prototypes (K, d).
    """

    prototypes: Tensor

    def __init__(self, width: int, size: int, options: SideOptions) -> None:
        super().__init__()
        self.options = options
        self.table = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, size)))
        prototypes = nn.init.xavier_normal_(torch.empty(options.n_factors, size))
        if options.rounds > 1 and options.prototype_gradient == "stop":
            # No gradient reaches them: they seed the clustering and do not change.
            self.register_buffer("prototypes", prototypes)
        else:
            self.prototypes = nn.Parameter(prototypes)
        self.first = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, options.hidden_size)))
        self.first_bias = nn.Parameter(torch.empty(options.hidden_size).normal_(std=0.01))
        self.second = nn.Linear(options.hidden_size, 2 * size)
        nn.init.xavier_normal_(self.second.weight)
        nn.init.normal_(self.second.bias, std=0.01)

    def forward(self, bags: Bags, unit_table: Tensor, noise: Noise | None) -> Encoded:
        """Factors of bags (B2 to B8).

        Args:
            bags: of items or words.
            unit_table: rows of the table scaled to length 1, shared with the decoder.
            noise: the draws of a training step; None gives means, plain softmax and no dropout.
        """
        shares, assignment = self._cluster(bags, unit_table, noise)
        hidden = torch.tanh(
            bag_sums(bags, self._parts(bags, shares, noise, "encoder"), self.first)
            + self.first_bias
        )
        direction, log_precision = self.second(hidden).chunk(2, dim=2)
        factors = normalize(direction, dim=2)
        if noise is not None:
            spread = self.options.prior_std * (-0.5 * log_precision).exp()
            factors = factors + spread * noise.normal("factors", factors)
            if self.options.unit_samples:
                factors = normalize(factors, dim=2)
        return Encoded(factors, log_precision, assignment)

    def _parts(self, bags: Bags, shares: Tensor, noise: Noise | None, name: str) -> Tensor:
        """Entries x of (B4) and (B6), (nnz, K)."""
        parts = bags.unit(shares * bags.weights.unsqueeze(1))
        dropout = self.options.dropout
        here = name == "encoder" or self.options.dropout_in_rounds
        if noise is None or not dropout or not here:
            return parts
        return parts * noise.kept(f"dropout-{name}", parts, dropout)

    def _cluster(
        self, bags: Bags, unit_table: Tensor, noise: Noise | None
    ) -> tuple[Tensor, Assignment]:
        """A of the last round at the entries (nnz, K), and as the decoder needs it."""
        options = self.options
        start = normalize(self.prototypes, dim=1)  # (K, d)
        alone = options.per_user_noise and noise is not None
        if options.rounds == 1 and not alone:
            shared = self._shared(start, unit_table, noise)
            return shared[bags.columns], Assignment(shared, None, options.temperature)
        if options.rounds == 1:
            moved = start.expand(len(bags), -1, -1)
        else:
            with torch.set_grad_enabled(
                torch.is_grad_enabled() and options.prototype_gradient == "full"
            ):
                moved = self._moved(bags, start, unit_table, noise)
            if options.prototype_gradient == "straight_through":
                moved = moved + start - start.detach()
        logits = bag_dots(bags, moved, unit_table) / options.temperature
        drawn = None
        if noise is not None:
            drawn = noise.exponential(f"round-{options.rounds}", logits, *logits.shape)
            logits = logits - drawn.log()
            noise = noise.of("assignment")
        assignment = Assignment(None, moved, options.temperature, bags, drawn, noise)
        return torch.softmax(logits, dim=1), assignment

    def _shared(self, start: Tensor, unit_table: Tensor, noise: Noise | None) -> Tensor:
        """A of the first round, alike for all users, (width, K)."""
        logits = unit_table @ start.t() / self.options.temperature
        if noise is not None and self.options.shared_noise:
            logits = logits - noise.exponential("round-1", logits, *logits.shape).log()
        return torch.softmax(logits, dim=1)

    def _moved(self, bags: Bags, start: Tensor, unit_table: Tensor, noise: Noise | None) -> Tensor:
        """Prototypes after all updates (B4), unit vectors (B, K, d)."""
        options = self.options
        source = self.table if options.raw_updates else unit_table
        moved = start
        for number in range(1, options.rounds):
            name = f"round-{number}"
            if number > 1 or (options.per_user_noise and noise is not None):
                vectors = moved if number > 1 else start.expand(len(bags), -1, -1)
                logits = bag_dots(bags, vectors, unit_table) / options.temperature
                if noise is not None:
                    logits = logits - noise.exponential(name, logits, *logits.shape).log()
                shares = torch.softmax(logits, dim=1)
            else:
                shares = self._shared(start, unit_table, noise)[bags.columns]
            moved = normalize(bag_sums(bags, self._parts(bags, shares, noise, name), source), dim=2)
        return moved
