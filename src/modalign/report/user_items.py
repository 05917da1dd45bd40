"""A user's items as short lists with titles, for tables and galleries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions


def liked(dataset: Dataset, user_id: str | int) -> list[dict[str, Any]]:
    """The user's training items, or the known part of a user without any: newest first if times
    are known, otherwise by decreasing weight, otherwise in row order.
    """
    user = int(dataset.users.rows([user_id])[0])
    return named(dataset, _ordered(dataset.history.of(user)))


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


def named(dataset: Dataset, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
    """Id, title and row of each item; an item without a title has its id as title."""
    titles, rows = dataset.titles(), np.asarray(rows, np.int64)
    return [
        {"item_id": one, "title": titles[row], "item": row}
        for one, row in zip(dataset.items.ids(rows), rows.tolist(), strict=True)
    ]
