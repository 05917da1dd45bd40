"""The k largest of each row, exactly and in the same order every time.

Larger values come first, then smaller columns, also where the k-th and the next value are equal.
`modalign_serve.ranker.topk` does the same in numpy.

The columns of a row are dealt into chunks (column j lies in chunk j mod c). At most k chunks can
hold one of the k largest values: those with the k highest peaks. Only their members are sorted;
the peaks take one vectorised pass over the block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.core.sparse import ranges

MASKED = float("-inf")
"""The value of what is never listed."""
CHUNK = 16


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns of the k largest of each row, ties by the smaller column.

    Args:
        scores: float, shape (B, width). Entries of minus infinity are never listed; where a row
            has fewer than k others, their order among themselves is arbitrary.
        k: how many; fewer are returned where there are fewer columns.

    Returns:
        Values and int64 columns, both (B, min(k, width)), largest first.

    Example:
        >>> top(torch.tensor([[1.0, 2.0, 2.0, 2.0]]), 2)[1].tolist()
        [[1, 2]]
    """
    width = scores.shape[1]
    k = min(k, width)
    if k == 0:
        return scores.new_empty(len(scores), 0), scores.new_empty(len(scores), 0).long()
    # One more than is wanted shows whether the list was cut inside a tie.
    values, columns = _partial(scores, min(k + 1, width))
    if values.shape[1] > k:
        cut = (values[:, k - 1] == values[:, k]) & (values[:, k] > MASKED)
        values, columns = values[:, :k], columns[:, :k]
        if cut.any():
            columns = _repair(scores, values, columns, cut.nonzero().squeeze(1))
    tied = (values[:, 1:] == values[:, :-1]).any(1).nonzero().squeeze(1)
    if len(tied):
        columns = _by_column_within_ties(values, columns, tied)
    return values, columns


def _partial(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, largest first, ties in any order."""
    n, width = scores.shape
    n_chunks = width // CHUNK
    if width % CHUNK or k >= n_chunks:
        best = scores.topk(k)
        return best.values, best.indices
    peaks = scores.view(n, CHUNK, n_chunks).amax(1)
    chunks = peaks.topk(k, sorted=False).indices  # (B, k)
    steps = torch.arange(0, width, n_chunks, device=scores.device)
    columns = (chunks[:, None, :] + steps[:, None]).flatten(1)  # (B, CHUNK * k)
    best = scores.gather(1, columns).topk(k)
    return best.values, columns.gather(1, best.indices)


def _repair(scores: Tensor, values: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Fill the tail of the rows that were cut inside a tie with the smallest tied columns."""
    k = values.shape[1]
    last = values[rows, -1:]  # (R, 1): the value at which the row is cut
    better = (values[rows] > last).sum(1)  # (R,): places already taken
    level = scores[rows] == last
    level &= level.cumsum(1, dtype=torch.int32) <= (k - better)[:, None]
    row, column = level.nonzero(as_tuple=True)  # by row, then by column
    repaired = columns.clone()
    repaired[rows[row], ranges(better, k - better)] = column
    return repaired


def _by_column_within_ties(values: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Order equal values by column. Rows stay sorted by value, so two stable sorts do it."""
    by_column, at = columns[rows].sort(1)
    back = values[rows].gather(1, at).sort(dim=1, descending=True, stable=True).indices
    ordered = columns.clone()
    ordered[rows] = by_column.gather(1, back)
    return ordered
