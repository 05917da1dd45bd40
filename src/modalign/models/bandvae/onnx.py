"""BANDVAE for one history as dense arithmetic, in a form that ONNX can hold.

The same equations as the model's own forward pass (B1 to B8, B12, B16 to B18 and the decoder), for
one user, without noise, sparse tensors or loops that depend on the data. It is made from the
model's parts and does not know the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from modalign.models.bandvae.config import BANDVAEConfig
from modalign.models.bandvae.content import ItemBags
from modalign.models.bandvae.factors import FactorEncoder
from modalign.models.bandvae.transport import Gate, plan_cost

EXTRA_SWEEPS = 2
"""Sinkhorn iterations for each that the model may take: the model's own solver ends with Newton
steps, this one has none."""


@dataclass(frozen=True)
class ContentSide:
    """What belongs to one content modality.

    Attributes:
        name: the modality.
        bags: bags of the items.
        encoder: content factors of a bag.
        gate: how much of a mapped factor is added; None where there are no gates.
    """

    name: str
    bags: ItemBags
    encoder: FactorEncoder
    gate: Gate | None


class HistoryScores(nn.Module):
    """From one history to the scores of all items and the share of each interest factor in them.

    The input are rows of items, int64, (n,). The outputs are the log-scores of all items,
    (n_items,), and the terms of the K interest factors, (n_items, K), whose sum over factors is
    `exp(score - 1 / temperature)`.

    Args:
        config: options of the model.
        items: the encoder of the items; its parameters are used, not copied.
        sides: the modalities that are mapped onto the ratings.
    """

    def __init__(
        self, config: BANDVAEConfig, items: FactorEncoder, sides: Sequence[ContentSide]
    ) -> None:
        super().__init__()
        self.config, self.items, self.sides = config, items, tuple(sides)
        self.encoders = nn.ModuleList(side.encoder for side in sides)
        self.gates = nn.ModuleList(side.gate for side in sides if side.gate is not None)
        self._keep("unit_items", normalize(items.table, dim=1).detach())
        for number, side in enumerate(sides):
            self._keep(f"unit_{number}", normalize(side.encoder.table, dim=1).detach())
            columns, weights = _padded(side.bags.matrix())
            self._keep(f"columns_{number}", columns)
            self._keep(f"weights_{number}", weights)
            self._keep(f"present_{number}", side.bags.present)

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def forward(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and the terms of each factor; see the class."""
        unit = self.get_buffer("unit_items")
        side = self.items
        ones = torch.ones_like(items, dtype=unit.dtype)
        ratings, prototypes = _factors(
            side, ones, unit[items], side.first[items], side.table[items]
        )
        fused = normalize(self._fused(ratings, items), dim=1)
        near = prototypes if prototypes is not None else normalize(side.prototypes, dim=1)
        shares = torch.softmax(unit @ near.t() / side.options.temperature, dim=1)  # (n_items, K)
        temperature = self.config.decoding_temperature
        cells = shares * ((unit @ fused.t() - 1.0) / temperature).exp()
        return cells.sum(1).log() + 1.0 / temperature, cells

    def _fused(self, ratings: Tensor, items: Tensor) -> Tensor:
        """Rating factors with what content adds to them, (K, d)."""
        mapped, fused = [], ratings
        for number, side in enumerate(self.sides):
            encoder, bag = side.encoder, self._bag(number, items)
            unit = self.get_buffer(f"unit_{number}")
            theirs, _ = _factors(encoder, bag, unit, encoder.first, encoder.table)
            to_content, to_ratings = self._mapped(ratings, theirs)
            if side.gate is not None:
                fused = fused + side.gate(ratings[None], to_content[None])[0] * to_content
            else:
                share = 0.5 if self.config.fusion == "mean" else 1.0
                mapped.append(share * (to_content + to_ratings))
        return torch.stack(mapped).mean(0) if mapped else fused

    def _bag(self, number: int, items: Tensor) -> Tensor:
        """Mean bag of the items that have the modality (B1), dense (n_words,)."""
        columns = self.get_buffer(f"columns_{number}")[items].flatten()
        weights = self.get_buffer(f"weights_{number}")[items].flatten()
        width = len(self.get_buffer(f"unit_{number}"))
        total = weights.new_zeros(width).scatter_add(0, columns, weights)
        return total / self.get_buffer(f"present_{number}")[items].sum().clamp_min(1.0)

    def _mapped(self, ratings: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Barycentric maps of either side (B16), (K, d) and (J, d)."""
        config = self.config
        cost = plan_cost(ratings, content, config.plan_on)
        rows, columns = len(ratings), len(content)
        if config.plan == "diag":
            plan = torch.eye(rows, dtype=cost.dtype) / rows
        elif config.plan == "uniform":
            plan = torch.full_like(cost, 1 / (rows * columns))
        else:
            if config.cost_scale == "user_std" and rows * columns > 1:
                cost = cost / cost.flatten().std().clamp_min(1e-12)
            kernel = -cost / config.transport_reg
            if config.plan == "norm":
                plan = torch.softmax(kernel.flatten(), dim=0).view(rows, columns)
            else:
                plan = _sinkhorn(kernel, EXTRA_SWEEPS * config.plan_iterations)
        down = plan / plan.sum(1, keepdim=True)
        up = plan.t() / plan.sum(0)[:, None]
        return down @ content, up @ ratings


def _padded(bags: Tensor) -> tuple[Tensor, Tensor]:
    """Columns int64 and weights of a sparse matrix's rows, (n, longest row), 0 where shorter."""
    counts = bags.crow_indices().diff()
    longest = max(1, int(counts.max()))
    place = torch.arange(longest) < counts[:, None]
    columns = torch.zeros(len(counts), longest, dtype=torch.int64)
    weights = torch.zeros(len(counts), longest)
    columns[place], weights[place] = bags.col_indices().long(), bags.values()
    return columns, weights


def _factors(
    side: FactorEncoder, weights: Tensor, unit: Tensor, first: Tensor, table: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Factors (K, d) of one bag, and the bag's own prototypes where they are moved.

    Args:
        side: the encoder.
        weights: of the entries, (m,).
        unit: rows of the table of length 1 at the entries, (m, d).
        first: rows of the first layer at the entries, (m, hidden).
        table: rows of the table at the entries, (m, d).
    """
    options, moved = side.options, normalize(side.prototypes, dim=1)
    source = table if options.raw_updates else unit
    for _ in range(options.rounds - 1):
        moved = normalize(_parts(unit, moved, weights, options.temperature).t() @ source, dim=1)
    parts = _parts(unit, moved, weights, options.temperature)
    hidden = torch.tanh(parts.t() @ first + side.first_bias)
    direction = side.second(hidden).chunk(2, dim=1)[0]
    return normalize(direction, dim=1), moved if options.rounds > 1 else None


def _parts(unit: Tensor, prototypes: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Entries by factor, each factor's of length 1, (m, K)."""
    parts = torch.softmax(unit @ prototypes.t() / temperature, dim=1) * weights[:, None]
    return parts / parts.square().sum(0).clamp_min(1e-24).sqrt()


def _sinkhorn(kernel: Tensor, sweeps: int) -> Tensor:
    """Plan of mass 1 with uniform marginals, from `-cost / reg`.

    In float64 and as products, four operations an iteration: the graph holds every iteration.
    A cell that underflows (a cost of 700 reg above the smallest of its row) carries no mass.
    """
    rows, columns = kernel.shape
    gibbs = (kernel - kernel.amax(1, keepdim=True)).double().exp().clamp_min(1e-300)
    v = torch.ones(columns, dtype=torch.float64)
    for _ in range(sweeps):
        u = (1.0 / rows) / (gibbs @ v)
        v = (1.0 / columns) / (u @ gibbs)
    return (u[:, None] * gibbs * v).to(kernel.dtype)
