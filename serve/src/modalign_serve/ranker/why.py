"""Why an item is in a list: similar items that the user liked, and the parts of its score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modalign_serve.artifact.artifact import Artifact


@dataclass(frozen=True)
class Why:
    """Reasons for one item.

    Attributes:
        score: of the item for this user; None if the model has no vectors.
        nearest: by modality, ids of the most similar liked items and their cosines, best first;
            empty if the item has no features of that modality.
        parts: what each named segment of the vectors adds to the score, if the model has segments;
            they sum to the score.
    """

    item_id: str
    score: float | None
    nearest: Mapping[str, list[tuple[str, float]]]
    parts: Mapping[str, float]


def nearest_liked(item: np.ndarray, liked: np.ndarray, n: int) -> list[tuple[int, float]]:
    """Places of the n liked items with the largest cosine, and the cosines, best first.

    Args:
        item: unit features (d,); zeros for an item without any.
        liked: unit features (h, d); rows of zeros are items without any and are not returned.
        n: maximum number of items.

    Example:
        >>> nearest_liked(np.array([1.0, 0.0]), np.array([[0.0, 0.0], [0.6, 0.8], [1.0, 0.0]]), 5)
        [(2, 1.0), (1, 0.6)]
    """
    if not item.any():
        return []
    cosines = liked @ item
    order = np.argsort(-cosines, kind="stable")
    order = order[np.asarray(liked.any(axis=1))[order]][:n]
    return [(int(place), float(cosines[place])) for place in order]


def parts_of(artifact: Artifact, person: np.ndarray, item: np.ndarray) -> dict[str, float]:
    """What each segment adds to the inner product of two vectors.

    Args:
        artifact: whose manifest names the segments.
        person: a user's vector, (width,).
        item: an item's vector, (width,).
    """
    segments = artifact.manifest.segments
    return {name: float(person[a:b] @ item[a:b]) for name, a, b in segments}
