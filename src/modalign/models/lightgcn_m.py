"""LightGCN-M: LightGCN whose item vectors are projections of the items' content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from modalign.core.interfaces import (
    Batch,
    MissingPolicy,
    MultimodalConfig,
    Recommender,
    chosen_modalities,
)
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.models._registry import register
from modalign.models._shared.content import FeatureScale, scaled
from modalign.nn.losses.pairwise import bpr_loss, l2_penalty
from modalign.nn.modality_input import ModalityInput
from modalign.nn.rows import unit_rows


class LightGCNMConfig(MultimodalConfig):
    """Options of LightGCN-M."""

    n_layers: Annotated[int, Field(ge=0, le=16)] = 2
    """Number of propagation steps."""
    fusion: Literal["mean", "sum"] = "mean"
    """Mean or sum of an item's modalities."""
    use_id: bool = False
    """Add a free vector of each item."""
    reg: Annotated[float, Field(ge=0)] = 1e-5
    """Weight of the squared final vectors of the batch."""
    missing: MissingPolicy = "zero"
    """Replacement of a missing feature row: the mean row, the mean of the nearest neighbours, or a
    learned row; zero leaves the modality out of the item's mean."""
    batch_size: Annotated[int, Field(ge=1)] = 1024
    """Training pairs in a training step."""
    feature_scale: FeatureScale = "unit"
    """Subtract the mean row, then scale rows to length 1 (unit) or all rows by one number to a mean
    square of 1 per column (width); or keep the features (raw)."""

    earlier: ClassVar[Mapping[str, Any]] = {"feature_scale": "raw"}


@register(
    "lightgcn-m",
    config=LightGCNMConfig,
    toy={"embedding_size": 8, "learning_rate": 0.02, "epochs": 20, "batch_size": 128},
    family="multimodal",
    paper="He et al., SIGIR 2020; as in Wei et al., WWW 2023",
    variants={"with-ids": {"use_id": True}, "sum": {"fusion": "sum"}},
)
class LightGCNM(Recommender):
    """LightGCN without free item vectors: an item starts from its content.

    With x_m the frozen features of an item in modality m, centred and scaled, M_i the modalities
    that item i has, A the normalised graph of training interactions, and E_u free vectors of users,

        c_i = 1 / |M_i| sum over M_i of n(P_m x_im + b_m),   n(x) = x / |x|
        Z = mean of A^l [E_u; c], l = 0..L,                  score(u, i) = <z_u, z_i>

    trained by BPR plus `reg / (2 B) sum |z|^2` over the final vectors of the batch. As
    propagation is linear, one LightGCN for each modality, averaged, would be the same.

    Limits: an item without training interactions has the vector `c / (L + 1)`, shorter than
    those of others: rank such items among themselves. An item without any modality has zeros.

    Source: the row "LightGCN-M" of Wei et al., "Multi-modal self-supervised learning for
    recommendation", WWW 2023, which gives no equations; these are those on which two public
    implementations agree.

    Raises:
        DataError: the data has no modality.
        UnknownName: a modality of the configuration is not there.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> model = LightGCNM(LightGCNMConfig(embedding_size=8), toy_dataset().view())
        >>> [tuple(table.shape) for table in model.tables()]
        [(60, 8), (40, 8)]
    """

    needs = ("negatives", "modalities")

    def __init__(self, config: LightGCNMConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: LightGCNMConfig = config
        names, size = chosen_modalities(config, view.modalities), config.embedding_size
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        self.users = nn.Parameter(torch.empty(view.n_users, size))
        nn.init.xavier_uniform_(self.users)
        read = [scaled(view.modalities[name], config.feature_scale) for name in names]
        sources = [ModalityInput(one, config.missing, view) for one in read]
        layers = [nn.Linear(source.dim, size) for source in sources]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
        self.inputs = cast("Sequence[ModalityInput]", nn.ModuleList(sources))
        self.projections = cast("Sequence[nn.Linear]", nn.ModuleList(layers))
        self.items: nn.Parameter | None = None
        if config.use_id:
            self.items = nn.Parameter(torch.empty(view.n_items, size))
            nn.init.xavier_uniform_(self.items)

    def content(self) -> Tensor:
        """Vectors c of all items, (n_items, d)."""
        total: Tensor | None = None
        counts = self.users.new_zeros(self.n_items, 1)
        for source, projection in zip(self.inputs, self.projections, strict=True):
            unit = unit_rows(source.linear(projection))
            if source.policy == "zero":
                there = source.present[:, None].to(unit.dtype)
                unit, counts = unit * there, counts + there
            else:
                counts = counts + 1.0
            total = unit if total is None else total + unit
        assert total is not None
        if self.config.fusion == "mean":
            total = total / counts.clamp(min=1.0)
        return total if self.items is None else total + self.items

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`{"bpr": ..., "reg": ...}`, the second only where it has a weight."""
        size = len(batch)
        start = torch.cat([self.users, self.content()])
        rows = torch.cat([batch.users, batch.items() + self.n_users])
        final = self.graph.propagate(start, self.config.n_layers, rows=rows).view(3, size, -1)
        user, positive, negative = final
        scores = torch.linalg.vecdot(user, positive), torch.linalg.vecdot(user, negative)
        parts = {"bpr": bpr_loss(*scores)}
        if self.config.reg:
            parts["reg"] = self.config.reg * l2_penalty(final, batch_size=size)
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """Propagated vectors of all users and items."""
        start = torch.cat([self.users, self.content()])
        users, items = self.graph.propagate(start, self.config.n_layers).split(
            [self.n_users, self.n_items]
        )
        return users, items
