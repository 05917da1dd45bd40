"""Graphs of similar items: frozen over several modalities, or of one with cosines as weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import scipy.sparse as sp

from modalign.core.modality import Modality
from modalign.core.sparse import row_of_entries
from modalign.core.view import TrainView
from modalign.errors import ConfigError, UnknownName
from modalign.graph.knn import knn_graph
from modalign.graph.normalize import normalise
from modalign.graph.propagate import SparseGraph

TEXT_SHARE = 0.9


def modality_weights(
    given: Mapping[str, float] | None, names: Sequence[str], known: Collection[str]
) -> list[float]:
    """Weights of the modalities in use, summing to one.

    Args:
        given: a weight for each of `names`, on any scale; weights of other known modalities are
            not read. None takes 0.9 for text and 0.1 for the pictures where text and image (or
            visual) are the two in use, else equal weights.
        names: the modalities in use.
        known: all modalities of the data.

    Raises:
        UnknownName: a weight for a modality that the data does not have.
        ConfigError: a modality in use has no weight, or none has a weight above zero.

    Example:
        >>> modality_weights(None, ["image", "text"], {"image", "text"})
        [0.1, 0.9]
        >>> modality_weights({"a": 1, "b": 3}, "ab", "abc")
        [0.25, 0.75]
    """
    if given is None:
        if set(names) in ({"image", "text"}, {"visual", "text"}):
            return [TEXT_SHARE if name == "text" else round(1 - TEXT_SHARE, 1) for name in names]
        return [1 / len(names)] * len(names)
    for name in given:
        if name not in known:
            raise UnknownName("modality in modality_weights", name, known)
    total = sum(given.get(name, 0.0) for name in names)
    if total <= 0 or any(name not in given for name in names):
        raise ConfigError(
            f"a weight for each of {', '.join(names)}, not all zero",
            f"modality_weights={dict(given)}",
            "give every modality in use a weight, or leave modality_weights out",
        )
    return [given[name] / total for name in names]


def item_graph(
    view: TrainView,
    names: Sequence[str],
    weights: Sequence[float],
    k: int,
    include_self: bool = True,
    block: int = 1024,
) -> SparseGraph:
    """The weighted mean over modalities of the graphs of nearest neighbours, rows sum to one.

    With `S_m` the row-normalised graph of the k most similar items by cosine in modality m and
    `a_im = w_m` where item i has modality m, else 0, row i is
    `sum_m a_im S_m[i] / sum_m a_im`. A missing modality therefore has no influence on an item,
    and the item is not a neighbour in it. An item that has no modality has itself as its only
    neighbour.

    Args:
        view: where the features are.
        names: modalities to use.
        weights: one for each, not negative, in the order of `names`.
        k: neighbours of an item in each modality, itself included where `include_self`.
        include_self: count an item as its own nearest neighbour.
        block: items compared at a time; smaller takes less memory, the result is the same.

    Source: Zhang et al. (LATTICE), MM 2021; frozen as in Zhou and Shen (FREEDOM), MM 2023,
    equations 1 to 4.
    """
    share = np.stack([w * view.modalities[m].present for m, w in zip(names, weights, strict=True)])
    total = share.sum(axis=0)
    matrix = sp.csr_array(sp.diags_array((total == 0).astype(np.float64)))
    for name, weight in zip(names, share, strict=True):
        if weight.any():
            one = view.modalities[name]
            nearest = knn_graph(one.features, one.present, k, include_self, block).scipy()
            scale = weight / np.where(total == 0, 1.0, total)
            matrix = sp.csr_array(matrix + sp.diags_array(scale) @ nearest)
    return SparseGraph(matrix)


EDGES = 8192
"""Number of edges whose features are in memory at a time."""


def cosine_graph(modality: Modality, k: int, block: int = 1024) -> sp.csr_array:
    """The graph from each item to its k most similar ones, itself included, weighted by cosines.

    With c_ij the cosine of items i and j where j is among the k nearest of i, and 0 where it is
    negative, `S_ij = c_ij / sqrt(r_i r_j)` with r the sums of the rows of c. S is not symmetric.
    An item without the modality has an empty row and an empty column.

    Args:
        modality: features of the items.
        k: neighbours of an item, itself included.
        block: items compared at a time; smaller takes less memory, the result is the same.

    Source: Zhang et al. (LATTICE), MM 2021, equations 1 to 3.

    Example:
        >>> x = Modality("x", np.float32([[1, 0], [2, 1], [0, 1]]), np.ones(3, bool))
        >>> cosine_graph(x, 2).toarray().round(4).tolist()[2]
        [0.0, 0.2700999975204468, 0.6909999847412109]
    """
    nearest = knn_graph(modality.features, modality.present, k, True, block, "none").scipy()
    rows, columns = row_of_entries(nearest), nearest.indices
    squares = np.einsum("nd,nd->n", modality.features, modality.features, dtype=np.float64)
    lengths = np.sqrt(np.maximum(squares, 1e-24))
    cosines = np.empty(nearest.nnz)
    for start in range(0, nearest.nnz, EDGES):
        at = slice(start, start + EDGES)
        left, right = modality.features[rows[at]], modality.features[columns[at]]
        cosines[at] = np.einsum("nd,nd->n", left, right, dtype=np.float64)
    cosines /= lengths[rows] * lengths[columns]
    cosines *= modality.present[rows]
    graph = sp.csr_array((np.maximum(cosines, 0.0), columns, nearest.indptr), shape=nearest.shape)
    graph.eliminate_zeros()
    return normalise(graph, "symmetric")
