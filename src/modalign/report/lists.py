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
    parts = [dataset.train, dataset.valid_history, dataset.test_history]
    part = next((p for p in parts if (p.users == user).any()), dataset.train)
    return _titles(dataset, _ordered(part, user))


def hidden_items(dataset: Dataset, user_id: str | int) -> set[str]:
    """Ids of the user's items in the test part."""
    user = int(dataset.users.rows([user_id])[0])
    return set(dataset.items.ids(dataset.test.items[dataset.test.users == user]))


def _ordered(part: Interactions, user: int) -> np.ndarray:
    mine = part.users == user
    items: np.ndarray = part.items[mine]
    for key in (part.time, part.weight):
        if key is not None:
            items = items[np.argsort(-key[mine], kind="stable")]
            break
    return items


def _titles(dataset: Dataset, items: np.ndarray) -> list[dict[str, Any]]:
    titles = dataset.titles()
    ids = dataset.items.ids(items)
    return [
        {"item_id": one, "title": titles[int(row)], "item": int(row)}
        for one, row in zip(ids, items, strict=True)
    ]
