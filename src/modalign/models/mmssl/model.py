"""MMSSL: adversarial and contrastive self-supervision across modalities (Wei et al. 2023).

The equations M1 to M21 and the decisions D1 to D40 that comments cite are listed in
`docs/models/mmssl.md`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import Batch, OptimizerSettings, chosen_modalities
from modalign.core.view import TrainView
from modalign.core.vital_signs import VitalSign
from modalign.graph.one_sided import TwoWayGraph
from modalign.models._registry import register
from modalign.models.mmssl.config import MMSSLConfig
from modalign.models.mmssl.parts import (
    ModalityGraphs,
    PropagatedFeatures,
    SelfSupervisedModel,
    SelfSupervision,
)
from modalign.nn.attention import CrossModalAttention
from modalign.nn.losses.adversarial import TablePair
from modalign.nn.losses.pairwise import l2_penalty
from modalign.nn.rows import unit_rows
from modalign.nn.vital_signs import focus, norm_shares

DECAY = 0.96 ** (1 / 50)
"""Factor of the model's step size from one epoch to the next (D21)."""


@dataclass(frozen=True)
class _Forward:
    """One pass over the model.

    Attributes:
        relations: F_U and F_I of each modality, all rows.
        views: E_U and E_I of each modality, all rows; empty where they are not used.
        users, items: H_U and H_I, of all rows or of the requested ones.
    """

    relations: list[TablePair]
    views: list[TablePair]
    users: Tensor
    items: Tensor


@register(
    "mmssl",
    config=MMSSLConfig,
    toy={
        "embedding_size": 8,
        "n_heads": 2,
        "k": 5,
        "critic_hidden": 16,
        "first_graph": "generated",
        "adjacency": "symmetric",
        "omega": 0.05,
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 15,
    },
    family="multimodal",
    paper="Wei et al., WWW 2023",
    variants={
        "without-asl": {"self_supervision": "none"},
        "without-cl": {"contrast_weight": 0.0},
        "without-gt": {"densify": "observed"},
        "gae": {"self_supervision": "autoencoder"},
        "without-views": {"contrast_weight": 0.0, "eta": 0.0},
        "without-own-items": {"own_items": False},
        "output-matrix": {"output_matrix": True},
        "plain-attention": {"attention_views": "own"},
        "unit-rows": {"unit_rows": True},
        "official": {"preset": "official"},
    },
)
class MMSSL(SelfSupervisedModel):
    """A graph recommender that learns from a critic of its modalities and from contrasts.

    Each modality's features are propagated to users and items over the interactions (F). Their
    cosines are rows of likely interactions; a critic learns to distinguish them from the users'
    own rows, and they learn to be indistinguishable. The best of them are a graph for each
    modality, over which id vectors are averaged (E), mixed by attention between modalities and
    added to layer 0 of the propagation; the final vectors H add F:

        H = mean over l of A^l (E + eta * unit(attention(E^1..E^M))) + omega * sum_m unit(F^m)

    The loss is BPR of `<H_u, H_i>`, the contrast of H_u with each E_u^m, the critic's output for
    the generated rows, and penalties. The critic has a phase of its own.

    Source: Wei et al., "Multi-modal self-supervised learning for recommendation", WWW 2023.

    Limits:
        The critic's first layer has n_items x min(n_items / 4, 1024) weights, read about four
        times in each of its steps, which is most of the cost. Items without interactions are
        scored by their id vectors alone unless `residual_features` is set.

    Raises:
        DataError: the data has no modality.
        UnknownName: a modality of the configuration is not there.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> model = MMSSL(MMSSLConfig(embedding_size=8), toy_dataset().view())
        >>> [tuple(table.shape) for table in model.tables()]
        [(60, 8), (40, 8)]
    """

    vital_signs = (
        VitalSign(
            "attention_focus",
            "1 - entropy of the attention between modalities over its maximum; 0 is a mean",
            0.01,
            "set attention_views=unit",
        ),
        VitalSign(
            "share",
            "share of a source in the length of the items' vectors",
            0.02,
            "set eta, or omega",
            ("views", "features"),
        ),
        VitalSign(
            "gradient",
            "share of a loss part in the gradient of the features' projections",
            0.005,
            "raise contrast_weight, or adversarial_weight",
            ("contrast", "generator"),
        ),
    )
    config: MMSSLConfig
    user_weights: Tensor

    def __init__(self, config: MMSSLConfig, view: TrainView) -> None:
        super().__init__(config, view)
        names = tuple(chosen_modalities(config, view.modalities))
        size = config.embedding_size
        self.users = nn.Parameter(torch.empty(self.n_users, size))
        self.items = nn.Parameter(torch.empty(self.n_items, size))
        for table in (self.users, self.items):
            nn.init.xavier_uniform_(table)
        sizes = self.n_users, self.n_items
        # One-sided for features and views, whatever the propagation of ids uses.
        self.observed = TwoWayGraph(view.users, view.items, *sizes)
        self.graph = self.observed
        if config.adjacency == "symmetric":
            self.graph = TwoWayGraph(view.users, view.items, *sizes, "symmetric")
        self.features = PropagatedFeatures(
            names, view, config.missing, size, config.feature_dropout, config.residual_features
        )
        self.has_views = config.eta > 0 or config.contrast_weight > 0
        self.modality_graphs = ModalityGraphs(config, names, self.observed)
        self.attention: CrossModalAttention | None = None
        if config.eta:
            self.attention = CrossModalAttention(
                size,
                config.n_heads,
                config.head_values,
                config.attention,
                config.output_matrix,
                config.attention_views == "unit",
            )
        self.self_supervision = SelfSupervision(config, self.n_items)
        counts = view.user_counts().float()
        # Weighting a pair by 1 / degree of its user is the same as drawing users uniformly (D32).
        weights = len(view.users) / (counts.clamp(min=1) * (counts > 0).sum().clamp(min=1))
        self.register_buffer("user_weights", weights, persistent=False)
        self._stale: tuple[list[TablePair], TablePair] | None = None
        self._last: tuple[list[TablePair], TablePair] | None = None

    # -------------------------------------------------------------- hooks

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Draw the seed of the first step, and build the modalities' graphs where they are due."""
        self._stale = self._last = None
        super().on_epoch(epoch, rng)

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Draw the seed of the next step; with `graph=batchwise`, collect edges."""
        self._stale, self._last = self._last, None
        super().after_step(step, batch, rng)

    def _optimizer(self) -> OptimizerSettings:
        settings = super()._optimizer()
        decays = self.config.learning_rate_decay
        return dataclasses.replace(settings, decay=DECAY) if decays else settings

    # -------------------------------------------------------------- the forward pass

    def _forward(
        self,
        rng: torch.Generator | None,
        user_rows: Tensor | None = None,
        item_rows: Tensor | None = None,
    ) -> _Forward:
        """M1, M2 and M12 to M18."""
        config = self.config
        relations = self._relations(rng)
        views: list[TablePair] = []
        if self.has_views:
            views = self.modality_graphs.views(self.users, self.items, self.observed)
        users, items = self._start(views)
        users, items = self.graph.propagate(
            users,
            items,
            config.n_layers,
            sequential=config.order == "sequential",
            soften_last=config.soften_last,
            user_rows=user_rows,
            item_rows=item_rows,
        )
        if config.omega:
            for of_users, of_items in relations:
                users = users + config.omega * unit_rows(_at(of_users, user_rows))
                items = items + config.omega * unit_rows(_at(of_items, item_rows))
        return _Forward(relations, views, users, items)

    def _start(self, views: list[TablePair]) -> TablePair:
        """M13 to M15: layer 0."""
        eta, attention = self.config.eta, self.attention
        if attention is None:
            return self.users, self.items
        mixed = [attention.mean(side) for side in zip(*views, strict=True)]
        if self.config.view_norm == "rows":
            users, items = (unit_rows(one) for one in mixed)
        else:
            users, items = (
                one / one.square().sum(1, keepdim=True).clamp(min=1e-6) for one in mixed
            )
        return self.users + eta * users, self.items + eta * items

    # -------------------------------------------------------------- losses

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """Phase main: `bpr`, `contrast`, `generator` (or `autoencoder`), `reg`, `feature_reg`.
        Phase critic: `critic_fake`, `critic_real`, `critic_penalty`.
        """
        users, places = batch.users.unique(return_inverse=True)
        rng = self._rng(phase) if self.training else None
        if phase == "critic":
            return self._critic_loss(users)
        config = self.config
        items = batch.items()
        everyone = config.contrast_negatives == "full" and config.contrast_weight > 0
        if config.stale_critic_inputs or everyone:
            now = self._forward(rng)
            self._remember(now)
            anchor, of_users, of_items = now.users, now.users[batch.users], now.items[items]
            if not everyone:
                anchor = anchor[users]
        else:
            now = self._forward(rng, users, items)
            anchor, of_users, of_items = (
                now.users,
                functional.embedding(places, now.users),
                now.items,
            )
        positive, negative = of_items.view(2, len(batch), -1)
        parts = {"bpr": self._ranking(batch.users, of_users, positive, negative)}
        supervision = self.self_supervision
        parts |= supervision.contrast([view for view, _ in now.views], anchor, users)
        parts |= supervision.generator_loss(now.relations, users, batch, self.observed, rng)
        if config.reg:
            squares = l2_penalty(of_users, positive, negative, batch_size=len(batch))
            parts["reg"] = config.reg * squares
        if config.feature_reg:
            tables = [table for pair in now.relations for table in pair]
            parts["feature_reg"] = config.feature_reg * l2_penalty(*tables, batch_size=self.n_items)
        return parts

    def _ranking(
        self, users: Tensor, of_users: Tensor, positive: Tensor, negative: Tensor
    ) -> Tensor:
        """M20, with the same weight for each user or for each interaction."""
        each = functional.softplus(torch.linalg.vecdot(of_users, negative - positive))
        if self.config.sampling == "users":
            each = each * self.user_weights[users]
        return each.mean()

    def _critic_loss(self, users: Tensor) -> Mapping[str, Tensor]:
        """M8 and M9, from vectors without a gradient."""
        rng = self._rng("critic")
        if self._stale is not None:
            relations, fused = self._stale
        else:
            with torch.no_grad():
                now = self._forward(rng if self.training else None, users)
                relations = now.relations
                fused = now.users.new_zeros(self.n_users, now.users.shape[1]), now.items
                fused[0][users] = now.users
        return self.self_supervision.critic_loss(relations, fused, users, self.observed, rng)

    def _remember(self, now: _Forward) -> None:
        # Only stored: `after_step` makes it the input of the critic's next step.
        if self.config.stale_critic_inputs and torch.is_grad_enabled():
            relations = [(users.detach(), items.detach()) for users, items in now.relations]
            self._last = relations, (now.users.detach(), now.items.detach())

    # -------------------------------------------------------------- scoring and watching

    def tables(self) -> tuple[Tensor, Tensor]:
        """H_U and H_I by the current graphs of the modalities, without dropout."""
        now = self._forward(None)
        return now.users, now.items

    def diagnostics(self) -> Mapping[str, float]:
        """Outputs of the critic, size of the modalities' graphs, entropy of the attention.

        Where `critic_on_real` equals `critic_on_fake` and `critic_gradient` is near zero, the
        critic no longer distinguishes the rows; where `data_to_own_scores` is near zero, real rows
        are the model's own scores. `alive/attention_focus` is 0 where modalities are mixed evenly.
        """
        with torch.no_grad():
            now = self._forward(None)
            found = self.self_supervision.diagnostics(
                now.relations, (now.users, now.items), self.observed
            )
            if self.has_views:
                found |= self.modality_graphs.diagnostics(self.observed)
            attention = self.attention
            if attention is not None and attention.mode == "cross" and len(now.views) > 1:
                beta = attention.weights([view for view, _ in now.views])
                found["alive/attention_focus"] = focus(beta.permute(0, 1, 3, 2))
            found |= self._shares(now)
        return found

    def _shares(self, now: _Forward) -> dict[str, float]:
        """What layer 0 and the features are made of, by the length of the items' vectors."""
        parts: dict[str, Tensor] = {"ids": self.items}
        if self.attention is not None:
            parts["views"] = self._start(now.views)[1] - self.items
        if self.config.omega:
            units = [unit_rows(of_items) for _, of_items in now.relations]
            parts["features"] = self.config.omega * torch.stack(units).sum(0)
        shares = norm_shares(parts) if len(parts) > 1 else {}
        return {f"alive/share/{name}": share for name, share in shares.items()}

    def watched_parameters(self) -> Sequence[nn.Parameter]:
        """The features' projections, which every part of the loss but the critic's reaches."""
        return [layer.get_parameter("weight") for layer in self.features.projections]


def _at(table: Tensor, rows: Tensor | None) -> Tensor:
    return table if rows is None else functional.embedding(rows, table)
