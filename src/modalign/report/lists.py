"""What a user had, as small lists for tables and galleries."""

from __future__ import annotations

from typing import Any

import numpy as np

from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions


def liked(dataset: Dataset, user_id: str | int) -> list[dict[str, Any]]:
    """What the user had in training (or, held out, is known to have had): newest first where
    times are known, else strongest first, else in row order.
    """
    user = int(dataset.users.rows([user_id])[0])
    return _titles(dataset, _ordered(dataset.history.of(user)))


def hidden_items(dataset: Dataset, user_id: str | int) -> set[str]:
    """Ids of the user's items in the test part."""
    user = int(dataset.users.rows([user_id])[0])
    return set(dataset.items.ids(dataset.test.items[dataset.test.users == user]))


def _ordered(part: Interactions) -> np.ndarray:
    items: np.ndarray = part.items
    for key in (part.time, part.weight):
        if key is not None:
            items = items[np.argsort(-key, kind="stable")]
            break
    first = np.unique(items, return_index=True)[1]
    return items[np.sort(first)]


def _titles(dataset: Dataset, items: np.ndarray) -> list[dict[str, Any]]:
    titles = dataset.titles()
    ids = dataset.items.ids(items)
    return [
        {"item_id": one, "title": titles[int(row)], "item": int(row)}
        for one, row in zip(ids, items, strict=True)
    ]
