"""CLCRec: content trained to agree with the ids and to stand in for them, for cold items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import Batch
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.models._shared.content import ContentConfig, Projections, prepared
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.models._shared.unit import unit


class CLCRecConfig(ContentConfig):
    """Options of CLCRec; the defaults are those of the authors' release for MovieLens."""

    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 256
    """Width of the hidden layer of the encoder of content."""
    negatives: Annotated[int, Field(ge=1, le=4096)] = 128
    """Negatives of each training pair."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 2.0
    """Temperature of both softmaxes."""
    agreement_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the loss that lets an id find its content, lambda in the paper; the rest lets a user
    find the item."""
    replaced: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Probability that an item's content stands in for its id against a user."""
    reg: Annotated[float, Field(ge=0)] = 0.1
    """Weight of half the mean lengths of users and items of the batch."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Training pairs in a training step."""


@register(
    "clcrec",
    config=CLCRecConfig,
    toy={
        "embedding_size": 8,
        "hidden_size": 16,
        "negatives": 8,
        "temperature": 0.5,
        "reg": 0.01,
        "learning_rate": 0.01,
        "batch_size": 64,
        "epochs": 12,
    },
    family="multimodal",
    paper="Wei et al., MM 2021",
    variants={"without-replacement": {"replaced": 0.0}},
)
class CLCRec(SeededLoss):
    """Content trained to agree with item ids and to stand in for them, so that it ranks cold items.

    With N(x) unit rows, content f_i = LeakyReLU(sum_m N(X_m) W_m + b) W + c, free users P and items
    Q, K negatives of each pair, items i_0 (the positive) to i_K, and v the id Q, or with
    probability `replaced` the content f, drawn for each place in each step,

        agreement = mean of -log softmax over k of N(Q_i0) . N(f_ik) / T at k = 0
        ranking   = mean of -log softmax over k of P_u . v_ik / T at k = 0
        loss = agreement_weight agreement + (1 - agreement_weight) ranking
               + reg / 2 (mean |P_u| + mean |Q_ik|)

    and `score(u, i) = <P_u, Q_i>`, with f_i in place of Q_i for an item without training
    interactions. An item without any modality is left out of the first softmax and never
    replaced; a cold one gets the mean content.

    Limits: nothing but the replacement ties the length of f to that of Q, so cold items may rank
    too high or too low among the others. Negatives may repeat.

    Source: Wei et al., "Contrastive learning for cold-start recommendation", ACM Multimedia 2021.
    """

    needs = ("negatives", "modalities")
    cold: Tensor
    there: Tensor

    def __init__(self, config: CLCRecConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: CLCRecConfig = config
        size = config.embedding_size
        table = nn.init.xavier_normal_(torch.empty(view.n_users + view.n_items, size))
        self.users = nn.Parameter(table[: view.n_users].clone())
        self.items = nn.Parameter(table[view.n_users :].clone())
        # The sum of the modalities' products is the product of their features side by side.
        self.first = Projections(prepared(config, view), config, view, config.hidden_size)
        for layer in list(self.first.layers)[1:]:
            layer.register_parameter("bias", None)
        self.second = nn.Linear(config.hidden_size, size)
        self.register_buffer("cold", view.item_counts() == 0, persistent=False)
        self.register_buffer("there", self.first.present.any(0), persistent=False)

    @property
    def n_negatives(self) -> int:
        """Negatives of each training pair."""
        return self.config.negatives

    def _content(self, index: Tensor | None = None) -> Tensor:
        """F of all items, or of some."""
        hidden = torch.stack(self.first(index)).sum(0)
        content: Tensor = self.second(functional.leaky_relu(hidden))
        return content

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`agreement`, `ranking` and `reg`, each where it has a weight."""
        config, n = self.config, len(batch)
        positives, negatives = cast(Tensor, batch.positives), cast(Tensor, batch.negatives)
        items = torch.cat([positives[:, None], negatives.view(n, -1)], dim=1)  # (B, K + 1)
        known, places = items.unique(return_inverse=True)
        content, ids = self._content(known), self.items[known]
        there, weight = self.there[known], config.agreement_weight
        users = self.users[batch.users]
        parts = {}
        if weight:
            # Products with the different items of the batch, then the wanted ones of each row.
            scores = unit(ids)[places[:, 0]] @ unit(content).T / config.temperature
            chosen = scores.masked_fill(~there, -torch.inf).gather(1, places)
            rows = there[places[:, 0]]
            losses = chosen[rows].logsumexp(1) - chosen[rows, 0]
            parts["agreement"] = weight * losses.sum() / rows.sum().clamp(min=1)
        if weight < 1:
            scores = (users @ ids.T).gather(1, places)
            if config.replaced:
                rng = self._rng(phase)
                draw = torch.rand(places.shape, generator=rng, device=rng.device)
                instead = (draw < config.replaced) & there[places]
                scores = torch.where(instead, (users @ content.T).gather(1, places), scores)
            scores = scores / config.temperature
            losses = scores.logsumexp(1) - scores[:, 0]
            parts["ranking"] = (1 - weight) * losses.mean()
        if config.reg:
            lengths = torch.linalg.vector_norm(ids, dim=1)[places]
            means = torch.linalg.vector_norm(users, dim=1).mean() + lengths.mean()
            parts["reg"] = 0.5 * config.reg * means
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """Users, and items: ids, or contents where there are no interactions."""
        content = self._content()
        known = self.there[:, None]
        mean = (content * known).sum(0) / known.sum().clamp(min=1)
        stand_in = torch.where(known, content, mean)
        return self.users, torch.where(self.cold[:, None], stand_in, self.items)
