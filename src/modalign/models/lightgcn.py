"""LightGCN: vectors of users and items, smoothed over the graph of their interactions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from modalign.core.interfaces import Batch, TrainedConfig
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.models._shared.propagated import PropagatedVectors
from modalign.nn.losses.pairwise import bpr_loss, l2_penalty


class LightGCNConfig(TrainedConfig):
    """Options of LightGCN."""

    n_layers: Annotated[int, Field(ge=0, le=16)] = 2
    """Number of propagation steps; 0 is BPR-MF."""
    reg: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of the squared layer-0 vectors of the batch."""


@register(
    "lightgcn",
    config=LightGCNConfig,
    toy={"embedding_size": 16, "learning_rate": 0.02, "epochs": 60, "batch_size": 128},
    family="collaborative",
    paper="He et al., SIGIR 2020",
)
class LightGCN(PropagatedVectors):
    """Users and items as the mean of their vectors after 0 to L steps of propagation.

    With A the symmetric normalised graph of training interactions over users and items and E
    the only parameters, one vector for each node,

        Z = (E + A E + ... + A^L E) / (L + 1),   score(u, i) = <z_u, z_i>

    trained by BPR on B triples (user, chosen item, unseen item) plus
    `reg / (2 B) sum |e|^2` over the layer-0 vectors of the batch. A step computes layer L at the
    nodes of the batch only.

    Limits: a node without interactions has the vector `e / (L + 1)`, which stays random.

    Source: He et al., "LightGCN: simplifying and powering graph convolution network for
    recommendation", SIGIR 2020, equations 3 to 8 and 15.

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1]), items=torch.tensor([0, 1]))
        >>> model = LightGCN(LightGCNConfig(embedding_size=4, n_layers=1), view)
        >>> [tuple(table.shape) for table in model.tables()]
        [(2, 4), (3, 4)]
    """

    needs = ("negatives",)

    def __init__(self, config: LightGCNConfig, view: TrainView) -> None:
        super().__init__(config, view, config.n_layers)
        self.config: LightGCNConfig = config

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`{"bpr": ..., "reg": ...}`, the second only where it has a weight."""
        size = len(batch)
        user, items, first = self.at(batch.users, batch.items())
        positive, negative = items.view(2, size, -1)
        scores = torch.linalg.vecdot(user, positive), torch.linalg.vecdot(user, negative)
        parts = {"bpr": bpr_loss(*scores)}
        if self.config.reg:
            parts["reg"] = self.config.reg * l2_penalty(first, batch_size=size)
        return parts
