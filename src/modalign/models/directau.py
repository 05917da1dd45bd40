"""DirectAU: alignment of observed pairs and uniformity of users and of items, no negatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

from pydantic import Field
from torch import Tensor, nn

from modalign.core.interfaces import Batch, TrainedConfig
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.models._shared.propagated import PropagatedVectors
from modalign.nn.losses.uniformity import alignment, uniformity


class DirectAUConfig(TrainedConfig):
    """Options of DirectAU; the defaults are those of the authors' release."""

    n_layers: Annotated[int, Field(ge=0, le=16)] = 0
    """Number of propagation steps; 0 is matrix factorisation, the paper's main encoder."""
    uniformity_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the uniformity, gamma in the paper, which tries 0.2 to 10: small for dense data;
    it depends on batch_size."""
    batch_size: Annotated[int, Field(ge=1)] = 1024
    """Training pairs in a training step; uniformity is computed within it."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6
    """Weight decay of the optimizer, on all rows in each step."""
    patience: Annotated[int, Field(ge=1)] = 10
    """Stop after this number of evaluations in a row without a better validation metric."""
    epochs: Annotated[int, Field(ge=0)] = 300
    """Maximum number of epochs."""


@register(
    "directau",
    config=DirectAUConfig,
    toy={
        "embedding_size": 16,
        "learning_rate": 0.02,
        "epochs": 15,
        "batch_size": 128,
        "uniformity_weight": 0.5,
    },
    family="collaborative",
    paper="Wang et al., KDD 2022",
    variants={
        "dense": {"uniformity_weight": 0.2},
        "lightgcn": {"n_layers": 3},
        "without-uniformity": {"uniformity_weight": 0.0},
    },
)
class DirectAU(PropagatedVectors):
    """Vectors whose observed pairs are close and whose users and items are spread on a sphere.

    With Z the free vectors (`n_layers = 0`), or the mean of them after 0 to L steps of
    propagation as in LightGCN, z' = z / |z|, and a batch of B observed pairs (u, i),

        align = mean |z'_u - z'_i|^2                                            (paper: 3)
        unif(Y) = log mean_{a < b} exp(-2 |y_a - y_b|^2)                        (paper: 4)
        loss = align + gamma (unif(users of the batch) + unif(its items)) / 2   (paper: 6)

    A user or an item that is twice in a batch counts twice. `score(u, i) = <z_u, z_i>` without the
    division by the lengths, which hold how popular an item is. Tables start Xavier-normal.

    Limits: the vector of an item without training interactions stays random. The best gamma
    differs by a factor of 50 between data sets: search it on validation. A step takes B^2 d
    operations more than one of BPR-MF. A last batch of a single pair has alignment only.

    Source: Wang et al., "Towards representation alignment and uniformity in collaborative
    filtering", KDD 2022, sections 3.2 and 4.

    Example:
        >>> import torch
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1]), items=torch.tensor([0, 1]))
        >>> model = DirectAU(DirectAUConfig(embedding_size=4), view)
        >>> batch = Batch(torch.tensor([0, 1]), positives=torch.tensor([0, 1]))
        >>> list(model.loss(batch))
        ['alignment', 'uniformity']
    """

    def __init__(self, config: DirectAUConfig, view: TrainView) -> None:
        super().__init__(config, view, config.n_layers, nn.init.xavier_normal_)
        self.config: DirectAUConfig = config

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`{"alignment": ..., "uniformity": ...}`, the second only where it has a weight."""
        users, items, _ = self.at(batch.users, cast(Tensor, batch.positives))
        parts = {"alignment": alignment(users, items)}
        if self.config.uniformity_weight:
            spread = uniformity(users) + uniformity(items)
            parts["uniformity"] = 0.5 * self.config.uniformity_weight * spread
        return parts
