"""VBPR: matrix factorisation with a second vector of users for the features of the items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import (
    Batch,
    MultimodalConfig,
    Recommender,
    chosen_modalities,
)
from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.models._shared.batch_items import distinct
from modalign.nn.losses.pairwise import bpr_loss, l2_penalty
from modalign.nn.modality_input import ModalityInput

FeatureNorm = Literal["none", "centred", "l2", "standard"]


class VBPRConfig(MultimodalConfig):
    """Options of VBPR."""

    content_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Width of the space into which each modality is projected."""
    reg: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of half the squared vectors and biases of a batch's users and items."""
    reg_projection: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared projections and content biases, lambda_E in the paper."""
    item_bias: bool = True
    """Use one bias per item, for its popularity."""
    content_bias: bool = True
    """Use a direction in each modality that all users share, the visual bias of the paper."""
    feature_norm: FeatureNorm = "centred"
    """Subtract the mean row and scale rows to unit length (centred), only scale them (l2), scale
    columns to mean 0 and standard deviation 1 (standard), or keep the features (none)."""


def normalised(modality: Modality, how: FeatureNorm) -> Modality:
    """The modality with its present rows scaled as `VBPRConfig.feature_norm` says.

    Example:
        >>> x = Modality("x", np.float32([[3, 4], [0, 0]]), np.array([True, False]))
        >>> normalised(x, "l2").features.tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    if how == "none" or not modality.present.any():
        return modality
    features, present = modality.features, modality.present[:, None]
    if how == "centred":
        features = (features - features[modality.present].mean(axis=0, dtype=np.float64)).astype(
            np.float32
        )
    if how in ("centred", "l2"):
        norms = np.sqrt(np.einsum("nd,nd->n", features, features))[:, None]
        features = features * (present / np.maximum(norms, 1e-12)).astype(np.float32)
    else:
        rows = features[modality.present]
        features = features - rows.mean(axis=0)
        features /= np.maximum(rows.std(axis=0), 1e-6)
        features *= present
    return Modality(modality.name, features, modality.present, modality.entity, modality.provenance)


@register(
    "vbpr",
    config=VBPRConfig,
    toy={
        "embedding_size": 8,
        "content_size": 8,
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 15,
    },
    family="multimodal",
    paper="He & McAuley, AAAI 2016",
    variants={
        "without-biases": {"item_bias": False, "content_bias": False},
        "raw-features": {"feature_norm": "none"},
        "uncentred": {"feature_norm": "l2"},
    },
)
class VBPR(Recommender):
    """Matrix factorisation whose users also have a vector for each modality.

    `score(u, i) = b_i + <p_u, q_i> + sum over modalities m of <t_u^m, E_m f_i^m> + <c_m, f_i^m>`

    with p, q vectors of users and items, t_u^m the vector of user u in modality m, E_m a learned
    projection of the frozen features f_i^m, b_i the item's bias and c_m a direction that all
    users share. It is trained by BPR with one negative for each interaction. The paper has one
    modality; here each has its own projection and its own user vectors. A bias of the user would
    not change a ranking and is left out.

    Training projects only the items of the batch; scoring projects all items once.

    Source: He and McAuley, "VBPR: Visual Bayesian personalized ranking from implicit
    feedback", AAAI 2016, equations 4 and 5.

    Raises:
        DataError: the data has no modality.
        UnknownName: a modality of the configuration is not there.
    """

    needs = ("negatives", "modalities")

    def __init__(self, config: VBPRConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: VBPRConfig = config
        names = chosen_modalities(config, view.modalities)
        inputs = [normalised(view.modalities[name], config.feature_norm) for name in names]
        self.inputs = cast(
            "Sequence[ModalityInput]",
            nn.ModuleList(ModalityInput(one, config.missing, view) for one in inputs),
        )
        # One table: a user's vector p, then t of each modality.
        width = config.embedding_size + len(names) * config.content_size
        self.users = nn.Parameter(torch.empty(view.n_users, width))
        self.items = nn.Parameter(torch.empty(view.n_items, config.embedding_size))
        self.projections = nn.ParameterList(
            torch.empty(one.dim, config.content_size + config.content_bias) for one in inputs
        )
        self.bias = nn.Parameter(torch.zeros(view.n_items)) if config.item_bias else None
        nn.init.normal_(self.users, std=0.01)
        nn.init.normal_(self.items, std=0.01)
        for projection in self.projections:
            nn.init.xavier_uniform_(projection)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """BPR and, where their weights are not zero, the squared parameters."""
        n, config = len(batch), self.config
        users = functional.embedding(batch.users, self.users)
        index = batch.items()
        rows, places = distinct(index, self.n_items)
        vectors, biases = self._vectors(rows)
        items, bias = functional.embedding(places, vectors), biases[places]
        scores = torch.linalg.vecdot(users, items.view(2, n, -1)) + bias.view(2, n)
        parts = {"bpr": bpr_loss(scores[0], scores[1])}
        if config.reg > 0:
            own = items[:, : config.embedding_size]
            looked_up = [users, own] if self.bias is None else [users, own, self.bias[index]]
            parts["reg"] = config.reg * l2_penalty(*looked_up, batch_size=n)
        if config.reg_projection > 0:
            squares = l2_penalty(*self.projections, batch_size=1)
            parts["reg_projection"] = config.reg_projection * squares
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """Users `[p | t | 1]` and items `[q | E f | bias]`."""
        items, bias = self._vectors(None)
        ones = self.users.new_ones(self.n_users, 1)
        return torch.cat([self.users, ones], dim=1), torch.cat([items, bias[:, None]], dim=1)

    def _vectors(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """`[q | E f]` and the sum of all biases, of all items or of `rows`."""
        parts = [self.items if rows is None else functional.embedding(rows, self.items)]
        bias = parts[0].new_zeros(len(parts[0]))
        if self.bias is not None:
            bias = self.bias if rows is None else self.bias[rows]
        for source, weight in zip(self.inputs, self.projections, strict=True):
            content = source.matmul(weight) if rows is None else source.rows(rows) @ weight
            parts.append(content[:, : self.config.content_size])
            if self.config.content_bias:
                bias = bias + content[:, -1]
        return torch.cat(parts, dim=1), bias
