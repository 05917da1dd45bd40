"""Features of items as several models read them: centred, scaled, projected where needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import MultimodalConfig, chosen_modalities
from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.features.fill import present_mean
from modalign.models._shared.batch_items import distinct
from modalign.models._shared.feature_rank import FeatureRank, fewer_columns
from modalign.nn.modality_input import ModalityInput

FeatureScale = Literal["unit", "width", "raw"]


class ContentConfig(MultimodalConfig):
    """Options of the models whose features are prepared here."""

    feature_scale: FeatureScale = "unit"
    """Subtract the mean row, then scale rows to length 1 (unit) or all rows by one number to a mean
    square of 1 per column (width); or keep the features (raw)."""
    feature_rank: FeatureRank = "auto"
    """Columns of the features: exact rotates them to their rank, auto does so where there are
    more columns than items, a number truncates, null keeps them."""


def scaled(modality: Modality, how: FeatureScale) -> Modality:
    """The modality centred and scaled, as `ContentConfig.feature_scale` says; missing rows stay 0.

    A shift of all features and a common factor change nothing afterwards, and a rotation of the
    features only rotates the result.

    Example:
        >>> x = Modality("x", np.float32([[3, 4], [9, 12], [0, 0]]), np.array([1, 1, 0], bool))
        >>> (5 * scaled(x, "unit").features).round(3).tolist()
        [[-3.0, -4.0], [3.0, 4.0], [0.0, 0.0]]
    """
    if how == "raw":
        return modality
    present = modality.present[:, None]
    features = np.where(present, modality.features - present_mean(modality), 0).astype(np.float32)
    squares = np.einsum("nd,nd->n", features, features, dtype=np.float64)
    if how == "unit":
        lengths = np.sqrt(squares)[:, None]
    else:
        lengths = np.sqrt(squares.sum() / max(1, modality.dim * int(modality.present.sum())))
    # What rounding leaves of rows that equal the mean has no direction.
    smallest = 1e-6 * max(float(np.sqrt(squares.max(initial=0))), 1e-6)
    features = np.where(lengths > smallest, features / np.maximum(lengths, smallest), 0)
    made = features.astype(np.float32)
    return Modality(modality.name, made, modality.present, modality.entity, modality.provenance)


def prepared(config: ContentConfig, view: TrainView) -> dict[str, Modality]:
    """The modalities in use, by name, scaled and with the columns that the configuration asks for.

    Raises:
        DataError: the data has no modality.
        UnknownName: a modality of the configuration is not there.
    """
    names = chosen_modalities(config, view.modalities)
    return {
        name: fewer_columns(
            scaled(view.modalities[name], config.feature_scale), config.feature_rank
        )
        for name in names
    }


class Projections(nn.Module):
    """`X_m W_m + b_m` of each modality m, of all items or of some.

    Missing rows are replaced by the policy `missing` of the configuration before the projection.

    Args:
        modalities: as `prepared` returns them.
        config: options of the model.
        view: training data, for the policy.
        size: width of the results.
        bias: whether there are b_m.
    """

    present: Tensor

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        config: MultimodalConfig,
        view: TrainView,
        size: int,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.n_items = view.n_items
        sources = [ModalityInput(one, config.missing, view) for one in modalities.values()]
        self.inputs = cast("Sequence[ModalityInput]", nn.ModuleList(sources))
        layers = [nn.Linear(source.dim, size, bias=bias) for source in sources]
        self.layers = cast("Sequence[nn.Linear]", nn.ModuleList(layers))
        there = torch.from_numpy(np.stack([one.present for one in modalities.values()]))
        self.register_buffer("present", there, persistent=False)  # (M, n_items)

    def __len__(self) -> int:
        return len(self.layers)

    def forward(self, index: Tensor | None = None) -> list[Tensor]:
        """One tensor for each modality, (n_items, size), or (len(index), size) at these items."""
        if index is None:
            pairs = zip(self.inputs, self.layers, strict=True)
            return [source.linear(layer) for source, layer in pairs]
        rows, places = distinct(index, self.n_items)
        if rows is None:
            return [functional.embedding(places, content) for content in self(None)]
        return [
            functional.embedding(places, layer(source.rows(rows)))
            for source, layer in zip(self.inputs, self.layers, strict=True)
        ]
