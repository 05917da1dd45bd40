"""RecVAE: a variational autoencoder whose prior holds its own earlier posterior."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from modalign.core.interfaces import Batch, OptimizerSettings, Phase, Queries, TrainedConfig
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.models._shared.variational import Noise, Variational
from modalign.nn.bags import Bags, bag_sums
from modalign.nn.losses.vae import composite_divergence, multinomial_loss

Share = Annotated[float, Field(ge=0, le=1)]


class RecVAEConfig(TrainedConfig):
    """Options of RecVAE; the defaults are those of the authors' release."""

    embedding_size: Annotated[int, Field(ge=1, le=4096)] = 200
    """Width of the latent vector."""
    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 600
    """Width of the encoder's five hidden layers."""
    batch_size: Annotated[int, Field(ge=1)] = 500
    """Users in a training step."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-4
    """Learning rate of both optimizers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of a history's items that are dropped while the encoder is trained."""
    divergence_weight: Annotated[float, Field(ge=0)] = 0.005
    """Weight of the divergence for each item of the history, gamma in the paper."""
    prior_weights: tuple[Share, Share, Share] = (0.15, 0.75, 0.1)
    """Shares of the standard normal, the earlier posterior and the wide normal in the prior."""
    encoder_steps: Annotated[int, Field(ge=1)] = 3
    """Updates of the encoder for one of the decoder, and epochs between two copies of the encoder
    into the prior."""


@register(
    "recvae",
    config=RecVAEConfig,
    toy={
        "embedding_size": 8,
        "hidden_size": 16,
        "epochs": 20,
        "batch_size": 20,
        "learning_rate": 0.01,
    },
    family="collaborative",
    paper="Shenbin et al., WSDM 2020",
    variants={
        "standard-prior": {"prior_weights": (1.0, 0.0, 0.0)},
        "without-divergence": {"divergence_weight": 0.0},
        "one-to-one": {"encoder_steps": 1},
    },
)
class RecVAE(Variational):
    """MultiVAE with a deep encoder, a prior that remembers, and separate updates of both halves.

    A history x, scaled to length 1 and with dropout, is encoded into mean m and variance s^2 of a
    latent vector by five layers that each read the sum of all earlier ones; one linear layer
    decodes a draw z into scores. With n the items of the history, N(.; m_old, s_old^2) the
    posterior of an earlier copy of the encoder, and w the shares,

        p(z_j) = w_1 N(z_j; 0, 1) + w_2 N(z_j; m_old_j, s_old_j^2) + w_3 N(z_j; 0, e^10)
        loss of the encoder = -sum_i x_i log softmax(scores)_i
                              + gamma n sum_j (log q(z_j) - log p(z_j))
        loss of the decoder = -sum_i x_i log softmax(scores)_i,   without dropout

    as means over users. Each third step also updates the decoder; every third epoch starts with a
    copy of the encoder into the prior. Scores are decoded from the mean; only the history is read,
    so users that training never saw are scored in the same way.

    Limits: two tables of `n_items x hidden_size` and one of `n_items x embedding_size`; a step
    scores all items. The score of an item without interactions comes from its initial weights.

    Source: Shenbin et al., "RecVAE: a new variational autoencoder for top-N recommendations with
    implicit feedback", WSDM 2020, sections 3.1 to 3.5, with the prior of the authors' code.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> model = RecVAE(RecVAEConfig(hidden_size=16), toy_dataset().view())
        >>> [(phase.name, phase.every) for phase in model.phases()]
        [('encoder', 1), ('decoder', 3)]
    """

    config: RecVAEConfig

    def __init__(self, config: RecVAEConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.encoder = DenseEncoder(view.n_items, config.hidden_size, config.embedding_size)
        self.old = copy.deepcopy(self.encoder).requires_grad_(False)
        self.decoder = nn.Linear(config.embedding_size, view.n_items)

    def phases(self) -> Sequence[Phase]:
        """The encoder in every step, the decoder in each `encoder_steps`-th."""
        settings = OptimizerSettings.of(self.config)
        return [
            Phase("encoder", list(self.encoder.parameters()), settings),
            Phase("decoder", list(self.decoder.parameters()), settings, self.config.encoder_steps),
        ]

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Draw the seed of the first step; every third time, the prior becomes the encoder."""
        super().on_epoch(epoch, rng)
        if epoch % self.config.encoder_steps == 0:
            self.old.load_state_dict(self.encoder.state_dict())

    def loss(self, batch: Batch, phase: str = "encoder") -> Mapping[str, Tensor]:
        """`decoded` of the decoder; `reconstruction` and `divergence` of the encoder."""
        bags = Bags.of(batch.histories())
        noise = self.noise and self.noise.of(phase)
        if phase == "decoder":
            with torch.no_grad():
                latent, _, _ = self._drawn(bags, noise, 0.0)
            return {"decoded": multinomial_loss(self.decoder(latent), bags).mean()}
        latent, mean, log_variance = self._drawn(bags, noise, self.config.dropout)
        parts = {"reconstruction": multinomial_loss(self.decoder(latent), bags).mean()}
        if self.config.divergence_weight:
            with torch.no_grad():
                before = self.old(bags)
            divergence = composite_divergence(
                latent, (mean, log_variance), before, self.config.prior_weights
            )
            weights = self.config.divergence_weight * bags.total(bags.weights)
            parts["divergence"] = (weights * divergence).mean()
        return parts

    def _drawn(
        self, bags: Bags, noise: Noise | None, dropout: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latent vectors, their means and log-variances; without noise the means twice."""
        values = None
        if noise and dropout:
            values = noise.kept("dropout", bags.weights, dropout)
        mean, log_variance = self.encoder(bags, values)
        if noise is None:
            return mean, mean, log_variance
        drawn = mean + noise.normal("latent", mean) * (0.5 * log_variance).exp()
        return drawn, mean, log_variance

    def score(self, queries: Queries) -> Tensor:
        """Scores of all items from the histories alone, (B, n_items)."""
        scores: Tensor = self.decoder(self.encoder(Bags.of(queries.histories()))[0])
        return scores

    def history_encoder(self) -> LatentMean:
        """The latent mean of one history, for ONNX."""
        return LatentMean(self)

    def history_items(self) -> Tensor:
        """Rows of the decoder with their biases, (n_items, embedding_size + 1)."""
        return torch.cat([self.decoder.weight, self.decoder.bias[:, None]], dim=1).detach()


class DenseEncoder(nn.Module):
    """Mean and log-variance of a history by five densely connected layers.

        h_1 = LN(swish(W_1 x + b_1)),   h_k = LN(swish(W_k h_{k-1} + b_k + h_1 + ... + h_{k-1}))

    Args:
        n_items: number of items.
        hidden: width of the layers.
        latent: width of mean and log-variance.
    """

    def __init__(self, n_items: int, hidden: int, latent: int) -> None:
        super().__init__()
        bound = n_items**-0.5
        self.table = nn.Parameter(torch.empty(n_items, hidden).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(hidden).uniform_(-bound, bound))
        layers = [nn.Linear(hidden, hidden) for _ in range(4)]
        norms = [nn.LayerNorm(hidden, eps=0.1) for _ in range(5)]
        self.layers = cast("Sequence[nn.Linear]", nn.ModuleList(layers))
        self.norms = cast("Sequence[nn.LayerNorm]", nn.ModuleList(norms))
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)

    def forward(self, bags: Bags, factors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of histories, each (B, latent).

        Args:
            bags: the histories.
            factors: of dropout, (nnz,).
        """
        values = bags.unit(bags.weights.unsqueeze(1))
        if factors is not None:
            values = values * factors.unsqueeze(1)
        return self.deeper(bag_sums(bags, values, self.table).squeeze(1))

    def deeper(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance from `W_1 x`, (B, hidden)."""
        hidden = self.norms[0](nn.functional.silu(start + self.bias))
        total = hidden
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            hidden = norm(nn.functional.silu(layer(hidden) + total))
            total = total + hidden
        return self.mean(hidden), self.log_variance(hidden)


class LatentMean(nn.Module):
    """From rows of items, int64, (n,), to the latent mean and a one, (embedding_size + 1,).

    Args:
        model: its parameters are used, not copied.
    """

    def __init__(self, model: RecVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor) -> Tensor:
        """The vector of a history; see the class."""
        rows = self.model.encoder.table[items]
        scale = torch.ones_like(items, dtype=rows.dtype).sum().rsqrt()
        mean = self.model.encoder.deeper((rows.sum(0) * scale)[None])[0][0]
        return torch.cat([mean, torch.ones_like(mean[:1])])
