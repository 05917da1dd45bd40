"""Preferences of users as the mean of the features of their training items."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from modalign.core.modality import Modality

ROWS = 4096
"""Number of rows held in float64 at a time."""


def history_mean(
    modality: Modality, users: np.ndarray, items: np.ndarray, n_users: int
) -> Modality:
    """For each user, the direction of the weighted sum of their items' centred features.

    With x_i the item's features divided by their length, c the mean of all x_i, U users and
    deg_i users of item i,

        p_u = unit( sum over u's items of log(1 + U / (1 + deg_i)) (x_i - c) )

    Embeddings of sentences share a large common part; without removing it, all users look
    similar. The weight gives items with few users more influence. Only the given interactions
    are used, so pass training interactions.

    Args:
        modality: features of the items. Items without features are ignored, in the centre too.
        users: rows of users of the interactions, (n,).
        items: rows of their items, (n,); a repeated pair counts once.
        n_users: number of users.

    Returns:
        A modality of users, float32, (n_users, d), with the name of `modality`. A user without
        an item that has features, or whose items cancel out, is not present and has a row of
        zeros.

    Source: equation R2 of `docs/models/recgoat.md`.

    Example:
        >>> text = Modality("text", np.float32([[2, 0], [0, 3]]), np.ones(2, bool))
        >>> found = history_mean(text, np.array([0]), np.array([1]), 2)
        >>> found.features.astype(float).round(4).tolist()
        [[-0.7071, 0.7071], [0.0, 0.0]]
    """
    n_items = len(modality)
    unit = _unit_rows(modality)  # (n_items, d)
    there = modality.present & unit.any(axis=1)
    centre = unit[there].mean(axis=0, dtype=np.float64) if there.any() else np.zeros(modality.dim)
    chosen = sp.csr_array((np.ones(len(users)), (users, items)), shape=(n_users, n_items))
    chosen.data[:] = 1.0  # repeated pairs were summed
    degrees: np.ndarray = np.asarray(chosen.sum(axis=0)).ravel()
    weight = np.where(there, np.log1p(n_users / (1 + degrees)), 0.0)
    weighted = sp.csr_array(chosen @ sp.diags_array(weight))
    total = weighted @ unit - np.outer(np.asarray(weighted.sum(axis=1)).ravel(), centre)
    lengths = np.linalg.norm(total, axis=1)
    # Rounding leaves about 1e-7 of sums that cancel.
    present = lengths > 1e-6 * np.maximum(np.asarray(weighted.sum(axis=1)).ravel(), 1e-30)
    rows = np.divide(total, lengths[:, None], out=np.zeros_like(total), where=present[:, None])
    provenance = {"kind": "history-mean", "of": modality.fingerprint}
    return Modality(modality.name, rows.astype(np.float32), present, "user", provenance)


def _unit_rows(modality: Modality) -> np.ndarray:
    """Rows of length one in float32; a row of zeros is unchanged."""
    unit = np.zeros(modality.features.shape, np.float32)
    for start in range(0, len(modality), ROWS):
        rows = slice(start, start + ROWS)
        block = modality.features[rows].astype(np.float64)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        unit[rows] = block / np.where(lengths > 0, lengths, 1.0)
    return unit
