"""MacridVAE: a variational autoencoder with one latent vector for each concept of items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from modalign.core.explain import Explanation, Tops
from modalign.core.interfaces import Batch, Queries, TrainedConfig
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.models._shared.variational import Variational
from modalign.models.bandvae.decoder import mixture_loss, mixture_scores, mixture_tops
from modalign.models.bandvae.factors import FactorEncoder, SideOptions
from modalign.nn.bags import Bags
from modalign.nn.losses.vae import annealed


class MacridVAEConfig(TrainedConfig):
    """Options of MacridVAE; the defaults are those of the authors' code."""

    embedding_size: Annotated[int, Field(ge=1, le=4096)] = 100
    """Width of an item, a prototype and a latent vector."""
    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 100
    """Width of the encoder's hidden layer."""
    n_factors: Annotated[int, Field(ge=1, le=256)] = 7
    """Number of concepts, K in the paper."""
    temperature: Annotated[float, Field(ge=0.025, le=10)] = 0.1
    """Temperature of the cosines of items with prototypes and with latent vectors, tau."""
    prior_std: Annotated[float, Field(gt=0)] = 0.075
    """Standard deviation of the prior, sigma_0 in the paper."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of a history's entries that are dropped in training, in each concept on its own."""
    anneal_cap: Annotated[float, Field(ge=0)] = 0.2
    """Maximum weight of the divergence, beta in the paper."""
    anneal_epochs: Annotated[int, Field(ge=1)] = 5
    """Epochs in which that weight would reach 1; it stops at anneal_cap."""
    gumbel: bool = True
    """Add Gumbel noise to the items' shares of the concepts in training."""
    batch_size: Annotated[int, Field(ge=1)] = 500
    """Users in a training step."""


@register(
    "macridvae",
    config=MacridVAEConfig,
    toy={
        "embedding_size": 8,
        "hidden_size": 16,
        "n_factors": 2,
        "temperature": 0.2,
        "epochs": 25,
        "batch_size": 20,
        "learning_rate": 0.01,
    },
    family="collaborative",
    paper="Ma et al., NeurIPS 2019",
    variants={
        "one-concept": {"n_factors": 1},
        "without-gumbel": {"gumbel": False},
        "without-divergence": {"anneal_cap": 0.0},
    },
)
class MacridVAE(Variational):
    """Concepts split the items; each has its own latent vector, all from one encoder.

    With h the items, m_k the K prototypes, z' = z / |z|, and t the temperature,

        c_i = softmax over k of <h'_i, m'_k> / t, plus Gumbel noise in training
        mean_k, o_k = W_2 tanh(W_1 dropout((x c_k)'))    the mean scaled to length 1
        z_k = mean_k + sigma_0 exp(-o_k / 2) noise       in training; the mean otherwise
        score_i = log sum_k c_ik exp(<z'_k, h'_i> / t)
        loss = -sum_i x_i log softmax(score)_i + a/2 sum_kj (o_kj + exp(-o_kj) - 1)

    as means over users; a grows to `anneal_cap`. Only the history is read, so users that training
    never saw are scored in the same way.

    Limits: a step scores all items for each concept, `B n_items K d` products; blocks of users
    bound the memory. The Gumbel noise is alike for all users of a batch.

    Source: Ma et al., "Learning disentangled representations for recommendation", NeurIPS 2019,
    sections 2 and 3.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> config = MacridVAEConfig(embedding_size=8, n_factors=3)
        >>> MacridVAE(config, toy_dataset().view()).concepts.prototypes.shape
        torch.Size([3, 8])
    """

    config: MacridVAEConfig

    def __init__(self, config: MacridVAEConfig, view: TrainView) -> None:
        super().__init__(config, view)
        options = SideOptions(
            n_factors=config.n_factors,
            rounds=1,
            temperature=config.temperature,
            prior_std=config.prior_std,
            hidden_size=config.hidden_size,
            dropout=config.dropout,
            dropout_in_rounds=False,
            per_user_noise=False,
            unit_samples=True,
            prototype_gradient="full",
            raw_updates=False,
            shared_noise=config.gumbel,
        )
        self.concepts = FactorEncoder(view.n_items, config.embedding_size, options)
        users = int((view.user_counts() > 0).sum())
        self.anneal_steps = config.anneal_epochs * -(-users // config.batch_size)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """Reconstruction of the histories and the annealed divergence, means over users."""
        history = batch.histories()
        # Sparse products have no half precision, and cosines over a small temperature need digits.
        with torch.autocast(history.device.type, enabled=False):
            bags, table = Bags.of(history), normalize(self.concepts.table, dim=1)
            found = self.concepts(bags, table, self.noise)
            unit = normalize(found.factors, dim=2)
            total = mixture_loss(unit, found.assignment, table, self.config.temperature, bags)
            return {
                "reconstruction": total / len(bags),
                "divergence": self._anneal() * found.divergence.mean(),
            }

    def _anneal(self) -> Tensor:
        return annealed(self.updates, self.anneal_steps, self.config.anneal_cap)

    def score(self, queries: Queries) -> Tensor:
        """Log-scores of all items from the histories alone, (B, n_items)."""
        table = normalize(self.concepts.table, dim=1)
        found = self.concepts(Bags.of(queries.histories()), table, None)
        return mixture_scores(found.factors, found.assignment, table, self.config.temperature)

    def explain(self, history: Tensor, n_items: int = 10, n_words: int = 10) -> Explanation:
        """The best items of each concept.

        Args:
            history: sparse CSR (B, n_items).
            n_items: number of best items of a concept.
            n_words: not used: there is no content.
        """
        with torch.no_grad():
            table = normalize(self.concepts.table, dim=1)
            found = self.concepts(Bags.of(history), table, None)
            tops = mixture_tops(
                found.factors, found.assignment, table, self.config.temperature, n_items
            )
        return Explanation(Tops(*tops), ())

    def history_encoder(self) -> HistoryConcepts:
        """Scores of one history, for ONNX."""
        return HistoryConcepts(self)

    def history_items(self) -> None:
        """None: scores are not products with item vectors."""

    def diagnostics(self) -> Mapping[str, float]:
        """How evenly items fill the concepts, and how clearly each belongs to one, in [0, 1]."""
        with torch.no_grad():
            shares = _shares(self)
            if shares.shape[1] == 1:
                return {}
            full = torch.tensor(float(shares.shape[1])).log()
            even = torch.special.entr(shares.mean(0)).sum() / full
            vague = torch.special.entr(shares).sum(1).mean() / full
        return {"concepts_even": float(even), "concepts_clear": float(1 - vague)}


class HistoryConcepts(nn.Module):
    """From rows of items, int64, (n,), to the scores of all items and the terms of the concepts.

    Args:
        model: its parameters are used, not copied.
    """

    def __init__(self, model: MacridVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scores (n_items,), and terms (n_items, K) whose sum is `exp(score - 1 / t)`."""
        side, t = self.model.concepts, self.model.config.temperature
        table, shares = normalize(side.table, dim=1), _shares(self.model)
        parts = shares[items]
        parts = parts / parts.square().sum(0).clamp_min(1e-24).sqrt()
        hidden = torch.tanh(parts.t() @ side.first[items] + side.first_bias)
        factors = normalize(side.second(hidden).chunk(2, dim=1)[0], dim=1)
        cells = shares * ((table @ factors.t() - 1.0) / t).exp()
        return cells.sum(1).log() + 1.0 / t, cells


def _shares(model: MacridVAE) -> Tensor:
    """How much each item belongs to each concept, without noise, (n_items, K)."""
    side = model.concepts
    near = normalize(side.table, dim=1) @ normalize(side.prototypes, dim=1).t()
    return torch.softmax(near / model.config.temperature, dim=1)
