"""The k best items of each user out of all items, a block of users at a time.

Nothing of size users x items is held: a block of scores lies in one buffer that is filled,
masked by flat index and cut to its k best, again and again.

The partial sort is exact and cheap. The items of a row are dealt into chunks (item j lies in
chunk j mod c); at most k chunks can hold one of the k best values, namely those with the k
highest peaks, so only their members are sorted. Peaks are one vectorised pass over the block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from modalign.core.interfaces import Factors, Queries, Scorer
from modalign.core.sparse import csr_tensor
from modalign.errors import ConfigError, DataError, TrainingError

MASKED = float("-inf")
CHUNK = 16


@dataclass(frozen=True)
class Ranking:
    """The best items of each user, best first.

    Attributes:
        users: rows of users, int64, shape (n,).
        items: rows of items, int32, shape (n, k); -1 where fewer than k could be ranked.
        scores: float32, shape (n, k); minus infinity where the item is -1.
    """

    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    @property
    def k(self) -> int:
        """Length of the lists."""
        return int(self.items.shape[1])


def rank(
    scorer: Scorer,
    users: np.ndarray,
    k: int,
    *,
    seen: sp.csr_array | None = None,
    history: sp.csr_array | None = None,
    needs_history: bool = False,
    unseen: np.ndarray | None = None,
    candidates: np.ndarray | None = None,
    block: int = 1024,
    device: torch.device | str = "cpu",
) -> Ranking:
    """Rank all items (or `candidates`) for each user.

    The order is the same every time: higher score first, then the smaller item row, also
    where the k-th and the next item tie. Scores are compared as float32. An item scored
    minus infinity is never listed.

    Args:
        scorer: scores of a block of users against all items.
        users: rows of users, int64, shape (n,).
        k: length of the lists.
        seen: users x items; what it holds is left out of a user's list.
        history: users x items; what the scorer may read of a user.
        needs_history: hand `history` to the scorer.
        unseen: bool, shape (n,); these users are handed over as -1, known by history alone.
        candidates: rows of the only items that may be listed; all items where None.
        block: users scored at once. The memory held is about `block` x items x 4 bytes, twice
            that for a scorer that is no product of two tables.
        device: where the scorer's tensors live.

    Raises:
        ConfigError: `k` or `block` is below 1.
        DataError: there is no candidate; or a history is wanted and none is given.
        TrainingError: a score is not a number.

    Example:
        >>> tables = Factors(torch.tensor([[1.0], [-1.0]]), torch.tensor([[3.0], [1.0], [2.0]]))
        >>> rank(tables, np.array([0, 1]), 2).items.tolist()
        [[0, 2], [1, 2]]
    """
    for name, value in (("k", k), ("block", block)):
        if value < 1:
            raise ConfigError(f"{name} of at least 1", str(value), f"give a larger {name}")
    if needs_history and history is None:
        raise DataError("histories of users", "none", "pass `history` with `needs_history`")
    if candidates is not None and not len(candidates):
        raise DataError("at least one candidate item", "none", "rank all items instead")
    users = np.asarray(users, np.int64)
    rows = users if unseen is None else np.where(unseen, -1, users)
    chosen = None if candidates is None else torch.from_numpy(np.unique(candidates)).to(device)
    items = np.full((len(users), k), -1, np.int32)
    scores = np.full((len(users), k), MASKED, np.float32)
    buffer = _Buffer(block, device)
    with torch.inference_mode():
        for start in range(0, len(users), block):
            part = slice(start, min(start + block, len(users)))
            past = _sparse(history, users[part], device) if needs_history else None
            queries = Queries(torch.from_numpy(rows[part]).to(device), past)
            filled = buffer.fill(scorer, queries)
            if seen is not None:
                buffer.mask(seen, users[part])
            if chosen is None:
                values, found = top(filled, k)
            else:
                values, at = top(filled.index_select(1, chosen), k)
                found = chosen[at]
            _refuse_nan(values, users[part])
            listed = values > MASKED
            width = values.shape[1]
            items[part, :width] = torch.where(listed, found, -1).to("cpu", torch.int32).numpy()
            scores[part, :width] = values.cpu().numpy()
    return Ranking(users, items, scores)


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns of the k largest of each row, ties by the smaller column.

    Args:
        scores: float, shape (B, width); a row may hold minus infinity, never to be listed.
        k: how many; fewer come back where there are fewer columns.

    Returns:
        Values and int64 columns, both (B, min(k, width)), best first.

    Example:
        >>> top(torch.tensor([[1.0, 2.0, 2.0, 2.0]]), 2)[1].tolist()
        [[1, 2]]
    """
    width = scores.shape[1]
    k = min(k, width)
    # One more than is wanted tells whether the list was cut in the middle of a tie.
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
    """The k largest of each row, best first, ties in any order."""
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
    """Fill the tail of the rows cut within a tie with the smallest tied columns."""
    k = values.shape[1]
    last = values[rows, -1:]  # (R, 1): the value at which the row is cut
    better = (values[rows] > last).sum(1)  # (R,): places already taken
    row, column = (scores[rows] == last).nonzero(as_tuple=True)  # by row, then by column
    counts = torch.bincount(row, minlength=len(rows))
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    place += better[row]
    kept = place < k
    mended = columns.clone()
    mended[rows[row[kept]], place[kept]] = column[kept]
    return mended


def _by_column_within_ties(values: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Order equal values by column. Rows stay sorted by value, so two stable sorts do it."""
    by_column, at = columns[rows].sort(1)
    back = values[rows].gather(1, at).sort(dim=1, descending=True, stable=True).indices
    ordered = columns.clone()
    ordered[rows] = by_column.gather(1, back)
    return ordered


class _Buffer:
    """A block of scores of our own: what a scorer returns may be a view of its weights."""

    def __init__(self, block: int, device: torch.device | str) -> None:
        self.block, self.device, self.n_items = block, device, 0
        self._scores = torch.empty(0, device=device)
        self._filled = self._scores

    def fill(self, scorer: Scorer, queries: Queries) -> Tensor:
        """Scores of a block, float32, (B, n_items and padding of minus infinity)."""
        if isinstance(scorer, Factors) and scorer.items.dtype == torch.float32:
            target = self._rows(len(queries), len(scorer.items))
            torch.mm(scorer.users[queries.user], scorer.items.T, out=target)
        else:
            scores = scorer.score(queries)
            target = self._rows(*scores.shape)
            target.copy_(scores)
        return self._filled

    def mask(self, seen: sp.csr_array, users: np.ndarray) -> None:
        """Minus infinity at what the users have seen."""
        part = seen[users]
        width = self._filled.shape[1]
        row = np.repeat(np.arange(len(users), dtype=np.int64) * width, np.diff(part.indptr))
        flat = torch.from_numpy(row + part.indices).to(self.device)
        self._filled.view(-1).index_fill_(0, flat, MASKED)

    def _rows(self, n: int, n_items: int) -> Tensor:
        if n_items != self.n_items:
            width = -(-n_items // CHUNK) * CHUNK
            self._scores = torch.full((self.block, width), MASKED, device=self.device)
            self.n_items = n_items
        self._filled = self._scores[:n]
        return self._filled[:, :n_items]


def _sparse(history: sp.csr_array | None, users: np.ndarray, device: torch.device | str) -> Tensor:
    assert history is not None  # checked by `rank`
    part = history[users]
    return csr_tensor(
        torch.from_numpy(part.indptr.astype(np.int64)),
        torch.from_numpy(part.indices.astype(np.int64)),
        torch.from_numpy(part.data.astype(np.float32)),
        part.shape,
    ).to(device)


def _refuse_nan(values: Tensor, users: np.ndarray) -> None:
    # A partial sort puts what is not a number first, so one look at the first column is enough.
    bad = values[:, 0].isnan()
    if bad.any():
        user = int(users[int(bad.nonzero()[0, 0])])
        raise TrainingError(
            f"{int(bad.sum())} users of a block, first the user of row {user}, have a score that "
            "is not a number: the training has diverged; lower the learning rate"
        )
