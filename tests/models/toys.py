"""Two users, three items and two modalities, small enough to compute by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from modalign.core.interfaces import Batch, Recommender
from modalign.core.modality import Modality
from modalign.core.view import TrainView

USERS = [[0.1, 0.2], [0.3, -0.1]]
ITEMS = [[0.2, 0.1], [-0.1, 0.3], [0.4, 0.2]]
V = [[1, 0, 1], [0, 1, 1], [1, 2, 0]]
T = [[1, 2], [2, 1], [0, 1]]
W_V = [[0.5, 0], [0, 0.5], [0.2, -0.2]]
W_T = [[0.3, 0.1], [-0.1, 0.2]]
BATCH = Batch(torch.tensor([0, 1]), torch.tensor([0, 2]), torch.tensor([2, 0]))


def toy_view(*features: Sequence[Sequence[float]], missing: tuple[int, int] | None = None):
    """Users with items {0, 1} and {1, 2}; modalities `v` and `t` (the first only, if one is given).

    Args:
        features: rows of each modality.
        missing: the modality and the item that is missing in it.
    """
    modalities = {}
    for at, (name, rows) in enumerate(zip(("v", "t"), features, strict=False)):
        present = np.ones(3, bool)
        if missing is not None and missing[0] == at:
            present[missing[1]] = False
        modalities[name] = Modality(name, np.float32(rows) * present[:, None], present)
    users, items = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2])
    return TrainView(2, 3, users, items, modalities)


def put(model: Recommender, **values: object) -> Recommender:
    """Write numbers into parameters by name, with `__` for a dot; the rest stays as it is."""
    named = dict(model.named_parameters())
    for name, value in values.items():
        parameter = named[name.replace("__", ".")]
        parameter.data = torch.as_tensor(value, dtype=parameter.dtype).reshape(parameter.shape)
    return model


def linear(weight: Sequence[Sequence[float]]) -> list[list[float]]:
    """A matrix for `x W` as the weight of a linear layer, its transpose."""
    return np.asarray(weight, float).T.tolist()


OPTIONS = {
    "embedding_size": 2,
    "modalities": ("v", "t"),
    "feature_scale": "raw",
    "feature_rank": None,
}
"""Options with which the numbers of these data are read as they are."""
