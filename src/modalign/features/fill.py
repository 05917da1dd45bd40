"""Missing rows of features: the one place that replaces them, by one of four policies.

| policy | the replacement of a missing row |
| --- | --- |
| `zero` | zeros |
| `mean` | the mean of the present rows (`present_mean`) |
| `neighbours` | the mean of the rows of the nearest items that are present |
| `learned` | zeros; `modalign.nn.modality_input` adds a trained vector, which starts at the mean |

A model reads features through `modalign.nn.modality_input.ModalityInput` or calls `fill` itself.
What reads no features for missing items does not fill: a graph of nearest neighbours gives an item
no edges in a modality that it lacks, and a mean over modalities or items leaves it out.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import scipy.sparse as sp
import torch

from modalign.core.interfaces import MissingPolicy
from modalign.core.modality import Modality
from modalign.core.topk import MASKED, top
from modalign.core.view import TrainView
from modalign.errors import ConfigError, UnknownName

ROWS = 4096
"""Number of rows copied at a time to sum them."""
SCORES = 4_000_000
"""Number of similarities (missing rows x all rows) held at a time."""


def present_mean(modality: Modality) -> np.ndarray:
    """Mean of the present rows, float32, shape (d,); zeros if no row is present."""
    total = np.zeros(modality.dim)
    for start in range(0, len(modality), ROWS):
        rows = slice(start, start + ROWS)
        total += modality.features[rows][modality.present[rows]].sum(axis=0, dtype=np.float64)
    return (total / max(1, int(modality.present.sum()))).astype(np.float32)


def fill(
    modality: Modality, policy: MissingPolicy, view: TrainView | None = None, k: int = 10
) -> np.ndarray:
    """Features with every missing row replaced by a policy; present rows are never changed.

    `neighbours` writes the mean of the `k` nearest items that have the modality. Nearness is
    the mean cosine over the other modalities that both items have; for an item without any
    other modality, the number of common users in training. An item without both gets the mean
    of the present rows. Ties are resolved by the smaller row.

    Args:
        modality: features of shape (n, d).
        policy: see the table of this module.
        view: the other modalities of the items, and the training interactions, for
            `neighbours`; without it, `neighbours` is `mean`.
        k: number of neighbours, at least 1.

    Returns:
        float32, shape (n, d). If nothing is missing, the modality's own array, not a copy: do
        not write to it.

    Raises:
        UnknownName: there is no such policy.
        ConfigError: `k` is not positive, or `modality` is not one of the view's items.

    Limits:
        `neighbours` costs (missing rows) x n x (width of the others) multiplications; at most
        `SCORES` similarities are held at a time.

    Example:
        >>> import numpy as np
        >>> x = Modality("text", np.float32([[1, 3], [3, 5], [0, 0]]), np.array([1, 1, 0], bool))
        >>> fill(x, "mean")[2].tolist()
        [2.0, 4.0]
    """
    if policy not in get_args(MissingPolicy):
        raise UnknownName("policy for missing rows", policy, get_args(MissingPolicy))
    if k < 1:
        raise ConfigError("k of 1 or more neighbours", f"k={k}", "give a positive k")
    if modality.present.all():
        return modality.features.astype(np.float32, copy=False)
    out = np.array(modality.features, dtype=np.float32)
    missing = np.flatnonzero(~modality.present)
    out[missing] = present_mean(modality) if policy in ("mean", "neighbours") else 0.0
    if policy == "neighbours" and view is not None and modality.present.any():
        if modality.entity != "item" or len(modality) != view.n_items:
            got = f"{modality.name!r} of {len(modality)} {modality.entity}s"
            fix = "give a modality and a view of one data set"
            raise ConfigError(f"a modality of the {view.n_items} items of the view", got, fix)
        todo = _fill_by_features(out, modality, missing, view, k)
        if len(todo):
            _fill_by_users(out, modality, todo, view, k)
    return out


def _fill_by_features(
    out: np.ndarray, modality: Modality, missing: np.ndarray, view: TrainView, k: int
) -> np.ndarray:
    """Fill the rows that share another modality with present ones; return the others."""
    others = [one for name, one in view.modalities.items() if name != modality.name]
    inverse_norms = [_inverse_norms(other.features) for other in others]
    left = []
    for block in _blocks(missing, len(modality)):
        total = np.zeros((len(block), len(modality)), np.float32)
        count = np.zeros((len(block), len(modality)), np.float32)
        for other, inverse in zip(others, inverse_norms, strict=True):
            both = other.present[block, None] & other.present[None, :]
            cosine = other.features[block] @ other.features.T
            cosine *= inverse[block, None] * inverse[None, :]
            total += np.where(both, cosine, np.float32(0))
            count += both
        count[:, ~modality.present] = 0
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = np.where(count > 0, total / count, -np.inf)
        left.append(block[~_write_means(out, modality, block, scores, k)])
    return np.concatenate(left)


def _fill_by_users(
    out: np.ndarray, modality: Modality, missing: np.ndarray, view: TrainView, k: int
) -> None:
    """Fill rows by the items with most common users."""
    users, items = view.users.cpu().numpy(), view.items.cpu().numpy()
    ones = np.ones(len(users), np.float32)
    matrix = sp.csr_array((ones, (items, users)), shape=(view.n_items, view.n_users))
    matrix.data[:] = 1.0  # a pair that is given twice counts once
    for block in _blocks(missing, len(modality)):
        common = (matrix[block] @ matrix.T).toarray()
        common[:, ~modality.present] = 0
        _write_means(out, modality, block, np.where(common > 0, common, -np.inf), k)


def _write_means(
    out: np.ndarray, modality: Modality, block: np.ndarray, scores: np.ndarray, k: int
) -> np.ndarray:
    """Write the mean of the k items with the highest scores; return which rows had any."""
    values, best = (part.numpy() for part in top(torch.from_numpy(scores), k))
    rows, places = np.nonzero(values > MASKED)
    columns = best[rows, places]
    counts: np.ndarray = np.bincount(rows, minlength=len(block))
    weights = (1.0 / np.maximum(1, counts)).astype(np.float32)[rows]
    mixing = sp.csr_array((weights, (rows, columns)), shape=scores.shape)
    found: np.ndarray = counts > 0
    means: np.ndarray = mixing @ modality.features
    out[block[found]] = means[found]
    return found


def _inverse_norms(features: np.ndarray) -> np.ndarray:
    """One over the Euclidean norm of each row, 0 for a row of zeros."""
    norms = np.sqrt(np.einsum("nd,nd->n", features, features))
    inverse: np.ndarray = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return inverse


def _blocks(rows: np.ndarray, n: int) -> list[np.ndarray]:
    size = max(1, SCORES // max(1, n))
    return [rows[start : start + size] for start in range(0, len(rows), size)]
