"""The different items of a batch, which a step projects once."""

from __future__ import annotations

import torch
from torch import Tensor

NEARLY_ALL = 0.9


def distinct(index: Tensor, n_items: int) -> tuple[Tensor | None, Tensor]:
    """The different items of a batch, and where in them each entry of `index` stands.

    A batch contains popular items many times, and their wide features should be projected once.
    Where the batch has nearly all items the first result is None, for all items: copying their
    features would then cost more than the few saved projections.

    Args:
        index: rows of items, int64, (b,).
        n_items: number of all items.

    Returns:
        Rows (u,) or None, and places (b,) such that `rows[places] == index`.

    Example:
        >>> rows, places = distinct(torch.tensor([7, 3, 7]), 10)
        >>> rows.tolist(), places.tolist()
        ([3, 7], [1, 0, 1])
    """
    rows, places = torch.unique(index, return_inverse=True)
    return (None, index) if len(rows) >= NEARLY_ALL * n_items else (rows, places)
