"""MultiVAE: a variational autoencoder with a multinomial likelihood (Liang et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from modalign.core.interfaces import Batch, Queries, TrainedConfig
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.models._shared.variational import Variational
from modalign.nn.bags import Bags, bag_sums
from modalign.nn.losses.vae import annealed, multinomial_loss, normal_kl


class MultiVAEConfig(TrainedConfig):
    """Options of MultiVAE; the defaults are those of the paper."""

    embedding_size: Annotated[int, Field(ge=1, le=4096)] = 200
    """Width of the latent vector."""
    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 600
    """Width of the hidden layers of the encoder and the decoder."""
    batch_size: Annotated[int, Field(ge=1)] = 500
    """Users in a training step."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of a history's items that are dropped in training."""
    variational: bool = True
    """Sample the latent vector and add its divergence from the prior to the loss; off: MultiDAE."""
    anneal_cap: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Maximum weight of the divergence."""
    anneal_steps: Annotated[int, Field(ge=1)] = 20_000
    """Number of updates in which that weight would reach 1; it stops at anneal_cap."""


@register(
    "multivae",
    config=MultiVAEConfig,
    toy={
        "embedding_size": 8,
        "hidden_size": 16,
        "epochs": 40,
        "batch_size": 20,
        "learning_rate": 0.01,
        "anneal_steps": 100,
    },
    family="collaborative",
    paper="Liang et al. 2018",
    variants={
        "multidae": {"variational": False},
        "without-annealing": {"anneal_steps": 1},
        "without-dropout": {"dropout": 0.0},
    },
)
class MultiVAE(Variational):
    """Autoencoder of a user's items: a normal latent vector, a multinomial over all items.

    A history, scaled to length 1 and with dropout, is encoded into a mean and a variance; a draw
    from them is decoded into a score for each item. The loss is the negative multinomial
    log-likelihood of the history plus a weight times the divergence from the standard normal. The
    mean is decoded for scoring; only the history is read, so users that training never saw are
    scored in the same way.

    Source: Liang et al., "Variational autoencoders for collaborative filtering", WWW 2018,
    section 2.

    Limits:
        Two tables of `n_items x hidden_size`, and scores of a batch of users times all items.
        The score of an item without interactions comes from its initial weights.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> model = MultiVAE(MultiVAEConfig(hidden_size=16), toy_dataset().view())
        >>> model.encoder.shape, model.items.shape
        (torch.Size([40, 16]), torch.Size([40, 16]))
    """

    config: MultiVAEConfig

    def __init__(self, config: MultiVAEConfig, view: TrainView) -> None:
        super().__init__(config, view)
        n, hidden, latent = self.n_items, config.hidden_size, config.embedding_size
        self.encoder = nn.Parameter(nn.init.xavier_normal_(torch.empty(n, hidden)))
        self.encoder_bias = nn.Parameter(torch.empty(hidden).normal_(std=0.001))
        self.to_latent = _layer(hidden, latent * (2 if config.variational else 1))
        self.from_latent = _layer(latent, hidden)
        self.items = nn.Parameter(nn.init.xavier_normal_(torch.empty(n, hidden)))
        self.item_bias = nn.Parameter(torch.empty(n).normal_(std=0.001))

    def encode(self, bags: Bags) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of histories, each (B, embedding_size); no variance as MultiDAE."""
        values = bags.unit(bags.weights.unsqueeze(1))
        if self.noise and self.config.dropout:
            values = values * self.noise.kept("dropout", values, self.config.dropout)
        hidden = torch.tanh(bag_sums(bags, values, self.encoder).squeeze(1) + self.encoder_bias)
        mean, log_variance = self.to_latent(hidden).tensor_split([self.config.embedding_size], 1)
        return mean, log_variance

    def decode(self, latent: Tensor) -> Tensor:
        """Unnormalised log-probabilities of all items, (B, n_items)."""
        hidden = torch.tanh(self.from_latent(latent))
        return torch.addmm(self.item_bias, hidden, self.items.t())

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """Reconstruction of the histories and the annealed divergence, means over users."""
        bags = Bags.of(batch.histories())
        mean, log_variance = self.encode(bags)
        if not self.config.variational:
            return {"reconstruction": multinomial_loss(self.decode(mean), bags).mean()}
        latent = mean
        if self.noise:
            latent = mean + self.noise.normal("latent", mean) * (0.5 * log_variance).exp()
        weight = annealed(self.updates, self.config.anneal_steps, self.config.anneal_cap)
        return {
            "reconstruction": multinomial_loss(self.decode(latent), bags).mean(),
            "divergence": weight * normal_kl(mean, log_variance).mean(),
        }

    def score(self, queries: Queries) -> Tensor:
        """Scores of all items from the histories alone, (B, n_items)."""
        return self.decode(self.encode(Bags.of(queries.histories()))[0])

    def history_encoder(self) -> HistoryVector:
        """The decoder's hidden layer of one history, for ONNX."""
        return HistoryVector(self)

    def history_items(self) -> Tensor:
        """Rows of the decoder with their biases, (n_items, hidden_size + 1)."""
        return torch.cat([self.items, self.item_bias[:, None]], dim=1).detach()

    def diagnostics(self) -> Mapping[str, float]:
        """The weight of the divergence."""
        weight = annealed(self.updates, self.config.anneal_steps, self.config.anneal_cap)
        return {"divergence_weight": float(weight)}


class HistoryVector(nn.Module):
    """From one history to a vector whose product with a row of the decoder is the score.

    The input are rows of items, int64, (n,); the output is a vector (hidden_size + 1,).

    Args:
        model: its parameters are used, not copied.
    """

    def __init__(self, model: MultiVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor) -> Tensor:
        """The vector of a history; see the class."""
        m = self.model
        rows = m.encoder[items]
        scale = torch.ones_like(items, dtype=rows.dtype).sum().rsqrt()
        hidden = torch.tanh(rows.sum(0) * scale + m.encoder_bias)
        latent = m.to_latent(hidden)[: m.config.embedding_size]
        out = torch.tanh(m.from_latent(latent))
        return torch.cat([out, torch.ones_like(out[:1])])


def _layer(width_in: int, width_out: int) -> nn.Linear:
    layer = nn.Linear(width_in, width_out)
    nn.init.xavier_normal_(layer.weight)
    nn.init.normal_(layer.bias, std=0.001)
    return layer
