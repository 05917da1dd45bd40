"""BM3: ids and content drawn to dropped-out copies of themselves, without negatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import Batch
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.models._registry import register
from modalign.models._shared.content import ContentConfig, FeatureScale, Projections, prepared
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.nn.dropout import kept


class BM3Config(ContentConfig):
    """Options of BM3; the defaults are those of the authors' release."""

    n_layers: Annotated[int, Field(ge=0, le=8)] = 1
    """Number of propagation steps between users and items."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the numbers of a target that are set to zero."""
    content_weight: Annotated[float, Field(ge=0)] = 2.0
    """Weight of the losses of the modalities."""
    reg: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the lengths of the propagated tables, divided by the number of items."""
    feature_scale: FeatureScale = "width"
    """Subtract the mean row, then scale rows to length 1 (unit) or all rows by one number to a mean
    square of 1 per column (width); or keep the features (raw)."""


@register(
    "bm3",
    config=BM3Config,
    toy={
        "embedding_size": 16,
        "dropout": 0.3,
        "reg": 0.01,
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 15,
    },
    family="multimodal",
    paper="Zhou et al., WWW 2023",
    variants={"without-content": {"content_weight": 0.0}, "without-dropout": {"dropout": 0.0}},
)
class BM3(SeededLoss):
    """Ids and content that predict dropped-out copies of themselves, without negatives.

    With [H; G] the mean of A^l [P; Q] over l = 0..n_layers, H_i = G + Q, h_m = X_m W_m + b_m, one
    predictor f(x) = x W_p + b_p, and targets z' = dropout(z) without a gradient,

        rec = (1 - mean cos(f(H_u), H_i')) + (1 - mean cos(f(H_i), H_u'))
        L_m = (1 - mean cos(f(h_m), H_i')) + (1 - mean cos(f(h_m), h_m'))
        loss = rec + content_weight sum_m L_m + reg (|H_u| + |H_i|) / n_items
        score(u, i) = <f(H_u), f(H_i)>

    over the pairs of the batch; the norms are those of whole tables and not squared. The mask of a
    target belongs to the node: a node that is twice in the batch has one mask. L_m is a mean over
    the rows of the batch whose item has m.

    Limits: the targets of L_m are constants, so content reaches the ranking through the shared
    predictor alone. An item without interactions is ranked by a random vector.

    Source: Zhou et al., "Bootstrap latent representations for multi-modal recommendation", WWW
    2023, with the constants of the authors' release.
    """

    needs = ("modalities",)
    cold_items = False

    def __init__(self, config: BM3Config, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: BM3Config = config
        size = config.embedding_size
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_users, size)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_items, size)))
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        self.predictor = nn.Linear(size, size)
        nn.init.xavier_normal_(self.predictor.weight)
        self.content: Projections | None = None
        if config.content_weight:
            self.content = Projections(prepared(config, view), config, view, size)
            for layer in self.content.layers:
                nn.init.xavier_normal_(layer.weight)

    def _propagated(self) -> tuple[Tensor, Tensor]:
        free = torch.cat([self.users, self.items])
        users, items = self.graph.propagate(free, self.config.n_layers).split(
            [self.n_users, self.n_items]
        )
        return users, items + self.items

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`rec`, `content` and `reg`, the last two where they have a weight."""
        config, rng = self.config, self._rng(phase)
        users, user_at = batch.users.unique(return_inverse=True)
        items, item_at = cast(Tensor, batch.positives).unique(return_inverse=True)
        user_table, item_table = self._propagated()
        of_users, of_items = user_table[users], item_table[items]
        user_target = self._target(of_users, rng)[user_at]
        item_target = self._target(of_items, rng)[item_at]
        predicted = self.predictor(of_users)[user_at], self.predictor(of_items)[item_at]
        parts = {"rec": _apart(predicted[0], item_target) + _apart(predicted[1], user_target)}
        if self.content is not None:
            losses = []
            for content, present in zip(self.content(items), self.content.present, strict=True):
                online, there = self.predictor(content)[item_at], present[items][item_at]
                own = self._target(content, rng)[item_at]
                losses.append(_apart(online, item_target, there) + _apart(online, own, there))
            parts["content"] = config.content_weight * torch.stack(losses).sum()
        if config.reg:
            lengths = torch.linalg.vector_norm(user_table) + torch.linalg.vector_norm(item_table)
            parts["reg"] = config.reg * lengths / self.n_items
        return parts

    def _target(self, x: Tensor, rng: torch.Generator) -> Tensor:
        x = x.detach()
        rate = self.config.dropout
        return x * kept(x.shape, rate, rng).to(x.dtype) if rate else x

    def tables(self) -> tuple[Tensor, Tensor]:
        """Predicted vectors of all users and items."""
        users, items = self._propagated()
        return self.predictor(users), self.predictor(items)


def _apart(online: Tensor, target: Tensor, there: Tensor | None = None) -> Tensor:
    """One minus the mean cosine of the rows, of those that are there; 0 without any."""
    apart: Tensor = 1 - functional.cosine_similarity(online, target, dim=1)
    if there is None:
        return apart.mean()
    return (apart * there).sum() / there.sum().clamp(min=1)
