"""The frozen graph of items that look, read or sound alike, over several modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp

from modalign.core.view import TrainView
from modalign.errors import ConfigError, UnknownName
from modalign.graph.knn import knn_graph
from modalign.graph.propagate import SparseGraph

TEXT_SHARE = 0.9


def modality_weights(given: Mapping[str, float] | None, names: Sequence[str]) -> list[float]:
    """Weights of the modalities in use, summing to one.

    Args:
        given: a weight for each of `names`, on any scale; None takes 0.9 for text and 0.1 for
            the pictures where text and image (or visual) are the two, else equal weights.
        names: the modalities in use.

    Raises:
        UnknownName: a weight for a modality that is not in use.
        ConfigError: a modality without a weight, or no weight above zero.

    Example:
        >>> modality_weights(None, ["image", "text"]), modality_weights({"a": 1, "b": 3}, "ab")
        ([0.1, 0.9], [0.25, 0.75])
    """
    if given is None:
        if set(names) in ({"image", "text"}, {"visual", "text"}):
            return [TEXT_SHARE if name == "text" else round(1 - TEXT_SHARE, 1) for name in names]
        return [1 / len(names)] * len(names)
    for name in given:
        if name not in names:
            raise UnknownName("modality in modality_weights", name, names)
    weights = [given.get(name) for name in names]
    total = sum(weight for weight in weights if weight is not None)
    if None in weights or total <= 0:
        raise ConfigError(
            f"a weight for each of {', '.join(names)}, not all zero",
            f"modality_weights={dict(given)}",
            "give every modality in use a weight, or leave modality_weights out",
        )
    return [weight / total for weight in weights if weight is not None]


def item_graph(
    view: TrainView, names: Sequence[str], weights: Sequence[float], k: int
) -> SparseGraph:
    """The weighted mean over modalities of the graphs of nearest neighbours, rows sum to one.

    An item's row is the mean over the modalities that it has, by their weights: a missing
    modality has no say. An item that has none is its own only neighbour.

    Args:
        view: where the features are.
        names: modalities to use.
        weights: one for each, not negative.
        k: neighbours of an item in each modality, itself among them.
    """
    share = np.stack([w * view.modalities[m].present for m, w in zip(names, weights, strict=True)])
    total = share.sum(axis=0)
    matrix = sp.csr_array(sp.diags_array((total == 0).astype(np.float64)))
    for name, weight in zip(names, share, strict=True):
        if weight.any():
            modality = view.modalities[name]
            nearest = knn_graph(modality.features, modality.present, k).scipy()
            scale = weight / np.where(total == 0, 1.0, total)
            matrix = sp.csr_array(matrix + sp.diags_array(scale) @ nearest)
    return SparseGraph(matrix)
