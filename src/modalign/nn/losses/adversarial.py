"""A critic of users' whole rows of scores, trained against a generator (WGAN-GP, MMSSL).

A row holds a user's scores of all items. *Generated* rows are similarities in one modality,
*real* rows are the user's observed items, densified by Gumbel noise and a softmax, plus the
model's own scores. Rows that are products of thin matrices are never computed in full
(`modalign.nn.rows`), and the gradient penalty needs only the Gram matrix of the first layer:

    x = a real + (1 - a) fake, z = x W + b  =>  z = a z_real + (1 - a) z_fake,
    |grad_x D|^2 = v^T (W^T W) v   with  v = grad_z D.

Both are exact. A step takes `(B + I) d h` operations for each modality's generated rows, and
`I h (B + h)` for the real ones and the penalty, forward and again backward; plain WGAN-GP takes
about ten products of `M B I h`.

Sources: Wei et al., "Multi-modal self-supervised learning for recommendation", WWW 2023,
equations 3 to 7; Gulrajani et al., "Improved training of Wasserstein GANs", NIPS 2017; Jang et
al., "Categorical reparameterization with Gumbel-softmax", ICLR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from modalign.graph.propagate import CSR
from modalign.nn.dropout import kept
from modalign.nn.noise import gumbel_numbers
from modalign.nn.rows import SMALLEST, Rows, unit_rows

Norm = Literal["batch", "layer", "none"]
Output = Literal["sigmoid", "linear"]
TablePair = tuple[Tensor, Tensor]
"""Vectors of the batch's users (B, d) and of all items (n_items, d)."""


@dataclass(frozen=True)
class AdversarialSettings:
    """The critic's architecture and the rows that it judges.

    Attributes:
        hidden: widths of the two hidden layers; None for a quarter of the number of items but at
            most 1,024, and half of that.
        dropout: dropout rates after the two hidden layers.
        slope: negative slope of the leaky ReLU.
        norm: "batch", "layer" or "none" after each activation.
        output: "sigmoid", or "linear" as in textbook WGAN.
        scale: factor of the output.
        penalty_weight: weight of the gradient penalty.
        densify: "gumbel" for a softmax of noisy observations, "observed" for the observed row.
        gumbel_temperature: temperature of that softmax.
        gumbel_noise: factor of the noise inside it.
        aux_weight: weight of the model's own scores in a real row.
        scores: "cosine" or "dot" of user and item vectors.
        mask_observed: set scores of observed items to zero, in generated rows and in the model's
            own.
        unit_aux: scale the model's own scores to unit length before `aux_weight`.
    """

    hidden: tuple[int, int] | None = None
    dropout: tuple[float, float] = (0.31, 0.5)
    slope: float = 0.2
    norm: Norm = "batch"
    output: Output = "sigmoid"
    scale: float = 1.0
    penalty_weight: float = 1.0
    densify: Literal["gumbel", "observed"] = "gumbel"
    gumbel_temperature: float = 0.1
    gumbel_noise: float = 0.1
    aux_weight: float = 100.0
    scores: Literal["cosine", "dot"] = "cosine"
    mask_observed: bool = False
    unit_aux: bool = False


# ------------------------------------------------------------------ rows


def score_rows(users: Tensor, items: Tensor, settings: AdversarialSettings, seen: CSR) -> Rows:
    """Scores of the batch's users over all items, (B, n_items), in thin form.

    Args:
        users: (B, d).
        items: (n_items, d).
        settings: its `scores` and `mask_observed` apply.
        seen: the observed items of each of the B users.
    """
    if settings.scores == "cosine":
        users, items = unit_rows(users), unit_rows(items)
    rows = Rows(users, items)
    if settings.mask_observed:
        there = Rows(users, items, sparse=seen)
        values = -there.at(there.owner, seen.indices.long())
        rows = Rows(users, items, sparse=seen._replace(values=values))
    return rows


def dense_observations(
    seen: CSR, temperature: float, noise: float, rng: torch.Generator | None
) -> Tensor:
    """`softmax over items of ((R + noise * g) / temperature)`, (B, n_items), g Gumbel noise.

    Args:
        seen: the observed items of each of B users.
        temperature: positive.
        noise: factor of g; with 0 no generator is used.
        rng: a generator on the device of `seen`; None only without noise.

    Raises:
        ValueError: noise without a generator.

    Example:
        >>> ones = CSR(torch.tensor([0, 2]).int(), torch.tensor([0, 1]).int(), torch.ones(2), 4)
        >>> [round(x, 6) for x in dense_observations(ones, 0.5, 0.0, None)[0].tolist()]
        [0.440399, 0.440399, 0.059601, 0.059601]
    """
    shape = (seen.n_rows, seen.n_columns)
    if noise:
        if rng is None:
            raise ValueError("noise needs a generator")
        logits = gumbel_numbers(shape, rng).mul_(noise / temperature).to(seen.values.dtype)
    else:
        logits = seen.values.new_zeros(shape)
    owner = seen.owner
    logits.index_put_(
        (owner, seen.indices.long()),
        logits.new_full((len(owner),), 1 / temperature),
        accumulate=True,
    )
    return logits.softmax(dim=1)


def observation_rows(seen: CSR, settings: AdversarialSettings, rng: torch.Generator | None) -> Rows:
    """Observed items of the batch's users, densified or not, (B, n_items); thin without noise.

    Args:
        seen: the observed items of each of the B users.
        settings: its `densify`, `gumbel_temperature` and `gumbel_noise` apply.
        rng: draws the noise.
    """
    ones = torch.ones_like(seen.values)
    nothing = ones.new_zeros(seen.n_rows, 1), ones.new_zeros(seen.n_columns, 1)
    if settings.densify == "observed":
        return Rows(*nothing, sparse=seen._replace(values=ones))
    temperature = settings.gumbel_temperature
    if settings.gumbel_noise:
        dense = dense_observations(seen, temperature, settings.gumbel_noise, rng)
        return Rows(*nothing, dense=dense)
    # Without noise a row has two values, that of observed and that of other items.
    counts = seen.counts.to(ones.dtype)
    low = math.exp(-1 / temperature)
    total = counts + (seen.n_columns - counts) * low
    total = torch.where(counts > 0, total, seen.n_columns * low)
    other = low / total
    entries = seen._replace(values=((1 - low) / total)[seen.owner])
    return Rows(other[:, None], torch.ones_like(nothing[1]), sparse=entries)


def real_rows(
    fused: TablePair, seen: CSR, settings: AdversarialSettings, rng: torch.Generator | None
) -> tuple[Rows, Tensor]:
    """Observations plus the model's own scores, of unit length, without a gradient.

    Args:
        fused: the model's final vectors of the batch's users and of all items.
        seen: the observed items of those users.
        settings: see `AdversarialSettings`.
        rng: draws the noise.

    Returns:
        The rows, and the mean length of the observations over that of the model's own scores, a
        scalar (infinite if `aux_weight` is zero).
    """
    observed = observation_rows(seen, settings, rng)
    own = score_rows(fused[0].detach(), fused[1].detach(), settings, seen)
    if settings.unit_aux:
        own = own.unit()
    own = own.scaled(own.left.new_full((len(own),), settings.aux_weight))
    lengths = [part.squared_lengths().sqrt().mean() for part in (observed, own)]
    return (observed + own).unit(), lengths[0] / lengths[1]


# ------------------------------------------------------------------ the critic


class Critic(nn.Module):
    """Judges rows: two hidden layers of linear, leaky ReLU, norm, dropout, then one number.

    The critic is only used in training and always gets a batch: its batch norm uses the statistics
    of the current rows and stores none, so that judging changes no state.

    Args:
        n_items: length of a row.
        settings: see `AdversarialSettings`.

    Source: Wei et al. 2023, equation 4; the order inside a layer is that of the equation.
    """

    def __init__(self, n_items: int, settings: AdversarialSettings) -> None:
        super().__init__()
        self.settings = settings
        quarter = max(2, min(n_items // 4, 1024))
        h1, h2 = settings.hidden or (quarter, max(1, quarter // 2))
        self.first = nn.Parameter(torch.empty(n_items, h1))
        self.second = nn.Parameter(torch.empty(h1, h2))
        self.third = nn.Parameter(torch.empty(h2, 1))
        for weight in (self.first, self.second, self.third):
            nn.init.normal_(weight, std=math.sqrt(2 / len(weight)))
        self.biases = nn.ParameterList(torch.zeros(width) for width in (h1, h2, 1))
        norms = range(0 if settings.norm == "none" else 2)
        self.gains = nn.ParameterList(torch.ones((h1, h2)[at]) for at in norms)
        self.shifts = nn.ParameterList(torch.zeros((h1, h2)[at]) for at in norms)

    def enter(self, rows: Rows, frozen: bool = False) -> Tensor:
        """First linear layer, (B, h1). `frozen` sends no gradient to the critic."""
        weight, bias = self.first, self.biases[0]
        return rows.times(weight.detach() if frozen else weight) + _held(bias, frozen)

    def judge(self, z: Tensor, rng: torch.Generator | None, frozen: bool = False) -> Tensor:
        """From the first linear layer's result (B, h1) to B numbers.

        Args:
            z: the result of `enter`, (B, h1).
            rng: draws the dropout; None for no dropout.
            frozen: send no gradient to the critic's parameters.
        """
        x = self._after(z, 0, rng, frozen)
        x = x @ _held(self.second, frozen) + _held(self.biases[1], frozen)
        x = self._after(x, 1, rng, frozen)
        out = (x @ _held(self.third, frozen)).squeeze(1) + _held(self.biases[2], frozen)
        return self.settings.scale * (out.sigmoid() if self.settings.output == "sigmoid" else out)

    def forward(self, rows: Rows, rng: torch.Generator | None = None) -> Tensor:
        """The critic's verdicts on rows, (B,)."""
        return self.judge(self.enter(rows), rng)

    def _after(self, x: Tensor, layer: int, rng: torch.Generator | None, frozen: bool) -> Tensor:
        settings = self.settings
        x = functional.leaky_relu(x, settings.slope)
        if settings.norm != "none":
            gain, shift = _held(self.gains[layer], frozen), _held(self.shifts[layer], frozen)
            if settings.norm == "layer":
                x = functional.layer_norm(x, x.shape[1:], gain, shift)
            elif len(x) > 1:
                x = functional.batch_norm(x, None, None, gain, shift, training=True)
            else:
                x = shift.expand_as(x)  # one row is its own mean
        return dropped(x, settings.dropout[layer], rng)


def dropped(x: Tensor, rate: float, rng: torch.Generator | None) -> Tensor:
    """Dropout by a given generator; `x` itself without one.

    Args:
        x: any shape.
        rate: in [0, 1).
        rng: on the device of x, or None.
    """
    if rng is None or rate == 0:
        return x
    return x * kept(x.shape, rate, rng)


def _held(parameter: Tensor, frozen: bool) -> Tensor:
    return parameter.detach() if frozen else parameter


def gradient_lengths(judge: Callable[[Tensor], Tensor], z: Tensor, gram: Tensor) -> Tensor:
    """`|grad_x D|` at rows x with `z = x W + b`, (n,); differentiable.

    Args:
        judge: maps z to D, (n, h) to (n,).
        z: results of the first linear layer, (n, h).
        gram: `W^T W`, (h, h).

    Example:
        >>> w = torch.tensor([[3.0], [4.0]], requires_grad=True)  # D(x) = x w
        >>> z = torch.ones(2, 2) @ w
        >>> gradient_lengths(lambda z: z.squeeze(1), z, w.T @ w).tolist()
        [5.0, 5.0]
    """
    with torch.enable_grad():
        z = z if z.requires_grad else z.detach().requires_grad_()
        (v,) = torch.autograd.grad(judge(z).sum(), z, create_graph=True)
    squares: Tensor = torch.linalg.vecdot(v @ gram, v)
    return squares.clamp(min=SMALLEST).sqrt()


# ------------------------------------------------------------------ the two sides


class AdversarialTask(nn.Module):
    """The adversarial part of MMSSL: a critic, and the losses of both sides.

    It needs only vectors of its model: those of users and items for each modality, whose
    similarities are the generated rows, and the final ones. Its parameters are trained in a
    separate phase (`critic_loss`); `generator_loss` is part of the model's loss.

    Args:
        n_items: length of a row.
        settings: see `AdversarialSettings`.

    Example:
        >>> from modalign.graph.one_sided import TwoWayGraph
        >>> seen = TwoWayGraph(torch.tensor([0, 1]), torch.tensor([1, 2]), 2, 4).seen
        >>> task = AdversarialTask(4, AdversarialSettings())
        >>> pair, rng = (torch.ones(2, 3), torch.rand(4, 3)), torch.Generator().manual_seed(1)
        >>> sorted(task.critic_loss([pair], pair, seen, rng))
        ['critic_fake', 'critic_penalty', 'critic_real']
    """

    def __init__(self, n_items: int, settings: AdversarialSettings) -> None:
        super().__init__()
        self.settings = settings
        self.critic = Critic(n_items, settings)

    def critic_loss(
        self, relations: Sequence[TablePair], fused: TablePair, seen: CSR, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """`mean D(fake) - mean D(real) + penalty_weight * mean (|grad D(x)| - 1)^2`, as parts.

        Args:
            relations: for each of M modalities the batch's users (B, d) and all items.
            fused: the model's final vectors of the same users and items.
            seen: the observed items of the B users.
            rng: draws noise, dropout and positions between real and fake rows; on their device.
        """
        z_real, z_fake, _ = self._enter(relations, fused, seen, rng)
        parts = {
            "critic_fake": self.critic.judge(z_fake, rng).mean(),
            "critic_real": -self.critic.judge(z_real, rng).mean(),
        }
        if self.settings.penalty_weight:
            penalty = (self._gradient_lengths(z_real, z_fake, rng) - 1).square().mean()
            parts["critic_penalty"] = self.settings.penalty_weight * penalty
        return parts

    def generator_loss(
        self, relations: Sequence[TablePair], seen: CSR, rng: torch.Generator | None
    ) -> Tensor:
        """`- mean D(fake)`, with a gradient for the vectors and none for the critic.

        Args:
            relations: for each of M modalities the batch's users (B, d) and all items.
            seen: the observed items of the B users.
            rng: draws the dropout.
        """
        z = torch.cat(
            [
                self.critic.enter(score_rows(*pair, self.settings, seen).unit(), frozen=True)
                for pair in relations
            ]
        )
        return -self.critic.judge(z, rng, frozen=True).mean()

    def diagnostics(
        self, relations: Sequence[TablePair], fused: TablePair, seen: CSR, rng: torch.Generator
    ) -> dict[str, float]:
        """Mean verdicts, mean length of the critic's gradient, ratio of data to own scores.

        Args:
            relations: for each of M modalities the batch's users (B, d) and all items.
            fused: the model's final vectors of the same users and items.
            seen: the observed items of the B users.
            rng: draws noise, dropout and positions between real and fake rows.
        """
        with torch.no_grad():
            z_real, z_fake, share = self._enter(relations, fused, seen, rng)
            return {
                "critic_on_real": self.critic.judge(z_real, rng).mean().item(),
                "critic_on_fake": self.critic.judge(z_fake, rng).mean().item(),
                "critic_gradient": self._gradient_lengths(z_real, z_fake, rng).mean().item(),
                "data_to_own_scores": share.item(),
            }

    def _enter(
        self, relations: Sequence[TablePair], fused: TablePair, seen: CSR, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The first layer's results for real (B, h1) and generated rows (M B, h1), and the ratio of
        data to own scores.
        """
        critic, settings = self.critic, self.settings
        rows, share = real_rows(fused, seen, settings, rng)
        generated = [score_rows(*pair, settings, seen).unit().detach() for pair in relations]
        return critic.enter(rows), torch.cat([critic.enter(one) for one in generated]), share

    def _gradient_lengths(self, z_real: Tensor, z_fake: Tensor, rng: torch.Generator) -> Tensor:
        """Lengths of the critic's gradient between each generated row and its user's real row."""
        position = torch.rand(len(z_fake), 1, generator=rng, device=rng.device)
        both = z_real.repeat(len(z_fake) // len(z_real), 1)
        between = position * both + (1 - position) * z_fake
        # The gradient of the lengths for the Gram matrix is a sum of v v^T, which is symmetric: of
        # its two equal halves for W only one is computed.
        half = self.critic.first.detach().T @ self.critic.first
        gram = 2 * half - half.detach()
        return gradient_lengths(lambda z: self.critic.judge(z, rng), between, gram)
