"""The mixture decoder of BANDVAE: likelihood and scores without users x items x factors.

An item's log-score is `log sum_k A_ik exp(<z_k, H_i> / t)`, for unit vectors. A is a
user's own, a softmax over factors of `<q_k, H_i> / t` plus Gumbel noise, or one for all users.
Blocks of users are computed one after the other; the loss computes its gradients in the same
pass, so that the memory of a block is free afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modalign.models._shared.variational import Noise
from modalign.nn.bags import Bags

CELLS = 2**22
"""Maximum size of a temporary tensor, users x items x factors of a block."""

ALIGNED = 16
"""Numbers in 64 bytes of single precision."""


@dataclass(frozen=True)
class Assignment:
    """How much each item belongs to each factor, a distribution over factors.

    Attributes:
        shared: the same for all users, (n_items, K); or None.
        prototypes: of each user, unit vectors, (B, K, d); None where shared.
        temperature: of the softmax over their cosines.
        bags: entries at which the encoder has already drawn noise.
        drawn: the numbers drawn there, (nnz, K).
        noise: draws the numbers of all other items; None: no noise.
    """

    shared: Tensor | None
    prototypes: Tensor | None
    temperature: float
    bags: Bags | None = None
    drawn: Tensor | None = None
    noise: Noise | None = None

    def cells(self, users: slice, table: Tensor) -> Tensor:
        """A of a block of users, (b, K, n_items), or (1, K, n_items) where shared."""
        if self.prototypes is None:
            assert self.shared is not None
            return self.shared.t().unsqueeze(0)
        weights = _tilted(self.prototypes[users], table, self.temperature)
        if self.noise is not None and self.bags is not None and self.drawn is not None:
            drawn = self.noise.exponential(f"block-{users.start}", weights, *weights.shape)
            entries = slice(*self.bags.starts[[users.start, users.stop]].tolist())
            part = self.bags.part(users.start, users.stop)
            drawn[part.rows, :, part.columns] = self.drawn[entries]
            weights.div_(drawn)
        return weights.mul_(weights.sum(1, keepdim=True).reciprocal_())


def blocks(n_users: int, n_items: int, n_factors: int) -> list[slice]:
    """Slices of users that are decoded at a time.

    Args:
        n_users: number of users B.
        n_items: number of items (or words).
        n_factors: number of factors K.
    """
    size = max(1, CELLS // max(1, n_items * n_factors))
    return [slice(a, min(a + size, n_users)) for a in range(0, n_users, size)]


def mixture_scores(factors: Tensor, assignment: Assignment, table: Tensor, t: float) -> Tensor:
    """Log-scores `log sum_k A_ik exp(<z_k, H_i> / t)` of all items, (B, n_items), no gradient.

    Args:
        factors: unit vectors z, (B, K, d).
        assignment: A.
        table: unit rows H, (n_items, d).
        t: temperature.
    """
    out = factors.new_empty(len(factors), len(table))
    for users in blocks(len(factors), len(table), factors.shape[1]):
        cells = _tilted(factors[users], table, t)
        out[users] = (cells * assignment.cells(users, table)).sum(1).log()
    return out


def mixture_tops(
    factors: Tensor, assignment: Assignment, table: Tensor, t: float, n: int
) -> tuple[Tensor, Tensor]:
    """The `n` items with the largest `log A_ik + <z_k, H_i> / t` of each factor.

    Args:
        factors: unit vectors z, (B, K, d).
        assignment: A.
        table: unit rows H, (n_items, d).
        t: temperature.
        n: number of items to return, cut to n_items.

    Returns:
        Items and their scores, each (B, K, n), best first.
    """
    best = []
    for users in blocks(len(factors), len(table), factors.shape[1]):
        cells = factors[users] @ table.t() / t
        best.append((cells + assignment.cells(users, table).log()).topk(min(n, len(table)), dim=2))
    return torch.cat([b.indices for b in best]), torch.cat([b.values for b in best])


def mixture_loss(
    factors: Tensor, assignment: Assignment, table: Tensor, t: float, targets: Bags
) -> Tensor:
    """`-sum_u sum_i y_ui log softmax(scores_u)_i`, a scalar; scores are `mixture_scores`.

    Args:
        factors: unit vectors z, (B, K, d).
        assignment: A; its parts receive gradients.
        table: unit rows H, (n_items, d).
        t: temperature.
        targets: y.
    """
    held = (assignment.shared, assignment.prototypes)
    graded = torch.is_grad_enabled()
    total: Tensor = _MixtureLoss.apply(  # type: ignore[no-untyped-call]
        factors, *held, table, assignment, t, targets, graded
    )
    return total


class _MixtureLoss(torch.autograd.Function):
    """With `P_i = sum_k A_ik v_ik`, `v = exp(s / t)`, `S = sum P` and `n = sum y`, the loss
    of a user is `n log S - sum y log P`, and with `G = n / S - y / P`

        d/ds_ik = A_ik v_ik G_i / t
        d/dA_ik = v_ik G_i                                  (shared A)
        d/dc_ik = A_ik (v_ik G_i - P_i G_i) / temperature   (A the softmax of cosines c)
    """

    @staticmethod
    def forward(
        ctx: Any,
        factors: Tensor,
        shared: Tensor | None,
        prototypes: Tensor | None,
        table: Tensor,
        assignment: Assignment,
        t: float,
        targets: Bags,
        graded: bool,
    ) -> Tensor:
        wanted = [
            x if x is not None and x.requires_grad and graded else None
            for x in (factors, shared, prototypes, table)
        ]
        zeros = [None if x is None else torch.zeros_like(x) for x in wanted]
        if zeros[3] is not None:  # column-major: its products are faster that way
            zeros[3] = table.new_zeros(table.shape[::-1]).t()
        slopes = _Slopes(*zeros)
        total = factors.new_zeros(())
        for users in blocks(len(factors), len(table), factors.shape[1]):
            total = total + _block_loss(factors, assignment, table, t, targets, users, slopes)
        ctx.slopes = slopes
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        slopes: _Slopes = ctx.slopes
        kinds = (slopes.factors, slopes.shared, slopes.prototypes, slopes.table)
        scaled = [None if slope is None else slope * gradients[0] for slope in kinds]
        return (*scaled, None, None, None, None)


@dataclass(frozen=True)
class _Slopes:
    """Gradients that are being summed; None where none is needed."""

    factors: Tensor | None
    shared: Tensor | None
    prototypes: Tensor | None
    table: Tensor | None

    @property
    def asked(self) -> bool:
        return any(x is not None for x in vars(self).values())


def _block_loss(
    factors: Tensor,
    assignment: Assignment,
    table: Tensor,
    t: float,
    targets: Bags,
    users: slice,
    slopes: _Slopes,
) -> Tensor:
    """The loss of a block of users; its gradients are added to `slopes`."""
    part = targets.part(users.start, users.stop)
    share = assignment.cells(users, table)  # (b or 1, K, n)
    tilt = _tilted(factors[users], table, t)  # (b, K, n)
    # Passes over all cells take as long as the products: in place, and scalars on small tensors.
    joint = tilt * share if slopes.shared is not None else tilt.mul_(share)
    mixed = joint.sum(1)  # (b, n)
    mass, wanted = mixed.sum(1), part.total(part.weights)
    at = mixed[part.rows, part.columns]
    loss = (wanted * mass.log()).sum() - (part.weights * at.log()).sum()
    if not slopes.asked:
        return loss
    pull = (wanted / mass).unsqueeze(1).expand_as(mixed).contiguous()  # G
    pull[part.rows, part.columns] -= part.weights / at
    if slopes.shared is not None:
        slopes.shared.add_(tilt.mul_(pull.unsqueeze(1)).sum(0).t())
    joint.mul_(pull.unsqueeze(1))
    if assignment.prototypes is not None:
        # In place of A: what reaches the cosines of the assignment.
        inner = torch.addcmul(joint, share, mixed.mul_(pull).unsqueeze(1), value=-1.0, out=share)
        scale = 1.0 / assignment.temperature
        _spread(
            inner, scale, assignment.prototypes, table, users, slopes.prototypes, slopes.table
        )  # fmt: skip
    _spread(joint, 1.0 / t, factors, table, users, slopes.factors, slopes.table)
    return loss


def _spread(
    slope: Tensor,
    scale: float,
    vectors: Tensor,
    table: Tensor,
    users: slice,
    of_vectors: Tensor | None,
    of_table: Tensor | None,
) -> None:
    """Add `scale` times the gradients of products `<vectors, table>` to both factors."""
    flat = slope.flatten(0, 1)  # (b K, n)
    if of_vectors is not None:
        of_vectors[users] = (flat @ table).mul_(scale).unflatten(0, slope.shape[:2])
    if of_table is not None:
        of_table.t().addmm_(vectors[users].flatten(0, 1).t(), flat, alpha=scale)


@torch.no_grad()
def _tilted(vectors: Tensor, table: Tensor, t: float) -> Tensor:
    """`exp(<v_k, H_i> / t)`, (b, K, n), no gradient.

    Not shifted by the largest: for unit vectors and t of 0.025 or more these are numbers from
    exp(-40) to exp(40), which single precision holds, with their sums and reciprocals. Rows start
    at multiples of 64 bytes, which makes the product faster where n is not a multiple of 16.
    """
    scaled = vectors.flatten(0, 1) * (1.0 / t)
    n_items = len(table)
    padded = scaled.new_empty(len(scaled), -(-n_items // ALIGNED) * ALIGNED)
    cells = torch.mm(scaled, table.t(), out=padded[:, :n_items]).exp_()
    return cells.view(*vectors.shape[:2], n_items)
