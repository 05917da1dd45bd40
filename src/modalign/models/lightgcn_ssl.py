"""LightGCN with the two self-supervised parts of MMSSL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from modalign.core.interfaces import (
    Batch,
    Recommender,
    chosen_modalities,
)
from modalign.core.view import TrainView
from modalign.graph.one_sided import TwoWayGraph
from modalign.models._registry import register
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.models.mmssl.config import SelfSupervisedConfig
from modalign.models.mmssl.parts import (
    ModalityGraphs,
    PropagatedFeatures,
    SelfSupervisedModel,
    SelfSupervision,
)


class SelfSupervised(SelfSupervisedModel):
    """A host model with MMSSL's self-supervision added to its loss; its scores do not change.

    The host is any `Recommender` that factorises, learns from pairs with negatives, and whose
    item and user vectors have one width. Two things are added:

    - features propagated over the interactions, whose similarities a critic judges; the best of
      them are a graph for each modality;
    - the contrast of the host's user vectors with the host's item vectors averaged over these
      graphs.

    The adversarial part changes the graphs, and so affects the host only through the contrast.

    Args:
        config: the options of both parts.
        view: training data.
        host: the model, made from the same data.
    """

    config: SelfSupervisedConfig

    def __init__(self, config: SelfSupervisedConfig, view: TrainView, host: Recommender) -> None:
        super().__init__(config, view)
        names = chosen_modalities(config, view.modalities)
        self.host = host
        self.observed = TwoWayGraph(view.users, view.items, view.n_users, view.n_items)
        self.features = PropagatedFeatures(
            names,
            view,
            config.missing,
            config.embedding_size,
            config.feature_dropout,
            config.residual_features,
        )
        self.modality_graphs = ModalityGraphs(config, names, self.observed)
        self.self_supervision = SelfSupervision(config, self.n_items)
        if not config.adversarial_weight or config.self_supervision == "none":
            self.features.requires_grad_(False)  # no loss reads them

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Call the host's hook, draw the first step's seed, and build the graphs that are due."""
        self.host.on_epoch(epoch, rng)
        super().on_epoch(epoch, rng)

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Call the host's hook, and draw the seed of the next step."""
        self.host.after_step(step, batch, rng)
        super().after_step(step, batch, rng)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """Phase main: the host's parts, `contrast` and `generator` (or `autoencoder`).
        Phase critic: `critic_fake`, `critic_real`, `critic_penalty`.
        """
        users = batch.users.unique()
        rng = self._rng(phase)
        dropout = rng if self.training else None
        supervision = self.self_supervision
        if phase == "critic":
            with torch.no_grad():
                relations, fused = self._relations(dropout), self.host.tables()
            return supervision.critic_loss(relations, fused, users, self.observed, rng)
        parts = dict(self.host.loss(batch))
        if self.config.contrast_weight:
            anchor, items = self.host.tables()
            views = self.modality_graphs.user_views(items, self.observed)
            whole = self.config.contrast_negatives == "full"
            parts |= supervision.contrast(views, anchor if whole else anchor[users], users)
        if supervision.is_generative:
            relations = self._relations(dropout)
            parts |= supervision.generator_loss(relations, users, batch, self.observed, dropout)
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """Tables of the host."""
        return self.host.tables()

    def diagnostics(self) -> Mapping[str, float]:
        """Diagnostics of the host, outputs of the critic, and size of the modalities' graphs."""
        with torch.no_grad():
            found = self.self_supervision.diagnostics(
                self._relations(None), self.host.tables(), self.observed
            )
        return {
            **self.host.diagnostics(),
            **found,
            **self.modality_graphs.diagnostics(self.observed),
        }


class LightGCNSSLConfig(SelfSupervisedConfig):
    """Options of LightGCN with the self-supervised parts of MMSSL."""

    n_layers: Annotated[int, Field(ge=0, le=16)] = 2
    """Number of propagation steps of LightGCN."""
    reg: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of the squared layer-0 vectors of the batch."""


@register(
    "lightgcn-ssl",
    config=LightGCNSSLConfig,
    toy={
        "embedding_size": 8,
        "k": 5,
        "critic_hidden": 16,
        "first_graph": "generated",
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 20,
    },
    family="multimodal",
    paper="Wei et al., WWW 2023; He et al., SIGIR 2020",
    variants={
        "without-asl": {"self_supervision": "none"},
        "backbone": {"self_supervision": "none", "contrast_weight": 0.0},
    },
)
class LightGCNSSL(SelfSupervised):
    """LightGCN with the adversarial and the contrastive part of MMSSL added to its loss.

    Scores are those of LightGCN; features, critic and graphs are used in training only.
    `SelfSupervised` describes what is added, and adds it to another host in the same way.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> model = LightGCNSSL(LightGCNSSLConfig(embedding_size=8), toy_dataset().view())
        >>> [tuple(table.shape) for table in model.tables()]
        [(60, 8), (40, 8)]
    """

    cold_items = False

    def __init__(self, config: LightGCNSSLConfig, view: TrainView) -> None:
        own = LightGCNConfig(
            embedding_size=config.embedding_size, n_layers=config.n_layers, reg=config.reg
        )
        super().__init__(config, view, LightGCN(own, view))
