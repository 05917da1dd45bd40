"""The k best items of each user among all items, a block of users and of items at a time.

Nothing of size users x items is held: the scores of each block are written to one buffer of at most
`MEMORY` bytes, masked by flat index, and cut to the k best. Of products of two tables the items are
computed in blocks too; other scorers score all items, so that their blocks have fewer users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from modalign.core.interfaces import Factors, Queries, Scorer
from modalign.core.sparse import from_scipy, row_of_entries
from modalign.core.topk import CHUNK, MASKED, top
from modalign.errors import ConfigError, DataError, TrainingError

MEMORY = 256 << 20
"""Bytes of scores that are held at a time, whatever the numbers of users and items."""
USERS = 1024
"""Users of a block, if their scores fit into the memory."""


@dataclass(frozen=True)
class Ranking:
    """The best items of each user, best first.

    Attributes:
        users: rows of users, int64, shape (n,).
        items: rows of items, int32, shape (n, k); -1 after the last item of a shorter list.
        scores: float32, shape (n, k); minus infinity where the item is -1.
    """

    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        return f"Ranking({len(self):,} users, {self.k} items each)"

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
    unseen: np.ndarray | None = None,
    candidates: np.ndarray | None = None,
    block: int = USERS,
    memory: int = MEMORY,
    device: torch.device | str = "cpu",
) -> Ranking:
    """Rank all items (or `candidates`) for each user.

    The order is deterministic: higher score first, then the smaller item row, also if the k-th
    and the next item tie. Scores are compared as float32. An item with a score of minus infinity
    is never listed.

    Args:
        scorer: scores a block of users against all items.
        users: rows of users, int64, shape (n,).
        k: length of the lists.
        seen: users x items; its entries are left out of the lists.
        history: users x items; passed to a scorer that reads histories, None for others.
        unseen: bool, shape (n,); these users are passed as -1 and known by their history alone.
        candidates: rows of the items that may be listed; None for all items.
        block: number of users scored at a time, at most.
        memory: bytes of scores held at a time, at most; at least the scores of one user are. A
            scorer that is not a product of two tables holds as many again.
        device: device of the scorer's tensors.

    Raises:
        ConfigError: `k` or `block` is below 1.
        DataError: there is no candidate.
        TrainingError: a score is not a number.

    Example:
        >>> tables = Factors(torch.tensor([[1.0], [-1.0]]), torch.tensor([[3.0], [1.0], [2.0]]))
        >>> rank(tables, np.array([0, 1]), 2).items.tolist()
        [[0, 2], [1, 2]]
    """
    for name, value in (("k", k), ("block", block), ("memory", memory)):
        if value < 1:
            raise ConfigError(f"{name} of at least 1", str(value), f"give a larger {name}")
    if candidates is not None and not len(candidates):
        raise DataError("at least one candidate item", "none", "rank all items instead")
    users = np.asarray(users, np.int64)
    rows = users if unseen is None else np.where(unseen, -1, users)
    chosen = None if candidates is None else torch.from_numpy(np.unique(candidates)).to(device)
    items = np.full((len(users), k), -1, np.int32)
    scores = np.full((len(users), k), MASKED, np.float32)
    buffer = _Buffer(memory, device)
    block = max(1, min(block, len(users)))
    start = 0
    with torch.inference_mode():
        while start < len(users):
            block = min(block, buffer.users(scorer))
            part = slice(start, min(start + block, len(users)))
            start = part.stop
            past = None if history is None else from_scipy(history[users[part]]).to(device)
            queries = Queries(torch.from_numpy(rows[part]).to(device), past)
            hidden = None if seen is None else seen[users[part]]
            best: tuple[Tensor, Tensor] | None = None
            for first, filled in buffer.fill(scorer, queries):
                if hidden is not None:
                    buffer.mask(hidden, first)
                best = _merged(best, _cut(filled, first, chosen, k), k)
            assert best is not None
            values, found = best
            _refuse_nan(values, users[part])
            listed = values > MASKED
            width = values.shape[1]
            items[part, :width] = torch.where(listed, found, -1).to("cpu", torch.int32).numpy()
            scores[part, :width] = values.cpu().numpy()
    return Ranking(users, items, scores)


def _cut(filled: Tensor, first: int, chosen: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The k best of a block of items that begins with item `first`: values and items."""
    if chosen is None:
        values, found = top(filled, k)
        return values, found + first
    inside = chosen[(chosen >= first) & (chosen < first + filled.shape[1])]
    values, at = top(filled.index_select(1, inside - first), k)
    return values, inside[at]


def _merged(
    best: tuple[Tensor, Tensor] | None, more: tuple[Tensor, Tensor], k: int
) -> tuple[Tensor, Tensor]:
    """The k best of two lists, the second of later items: of equal values the first come first."""
    if best is None:
        return more
    values, items = (torch.cat(pair, dim=1) for pair in zip(best, more, strict=True))
    kept, at = top(values, k)
    return kept, items.gather(1, at)


class _Buffer:
    """A buffer for a block of scores: what a scorer returns may be a view of its weights."""

    def __init__(self, memory: int, device: torch.device | str) -> None:
        self.cells, self.device = max(1, memory // 4), device
        self._scores = torch.empty(0, device=device)
        self._filled = self._scores
        self._n_items: int | None = None

    def users(self, scorer: Scorer) -> int:
        """How many users' scores of all items fit; any number of a product of two tables."""
        if isinstance(scorer, Factors):
            return USERS
        known = self._n_items or getattr(scorer, "n_items", None)
        return USERS if known is None else max(1, self.cells // int(known))

    def fill(self, scorer: Scorer, queries: Queries) -> Iterator[tuple[int, Tensor]]:
        """The first item and the scores of each block of items, float32, padded with -inf."""
        n = len(queries)
        if isinstance(scorer, Factors) and scorer.items.dtype == torch.float32:
            of_users, n_items = scorer.users[queries.user], len(scorer.items)
            step = max(CHUNK, self.cells // n // CHUNK * CHUNK)
            for first in range(0, n_items, step):
                part = scorer.items[first : first + step]
                torch.mm(of_users, part.T, out=self._rows(n, len(part)))
                yield first, self._filled
        else:
            scores = scorer.score(queries)
            self._n_items = scores.shape[1]
            self._rows(*scores.shape).copy_(scores)
            yield 0, self._filled

    def mask(self, seen: sp.csr_array, first: int) -> None:
        """Set the scores of items that the users have seen to minus infinity."""
        width = self._filled.shape[1]
        rows, columns = row_of_entries(seen), seen.indices.astype(np.int64) - first
        if first or seen.shape[1] > width:
            inside = (columns >= 0) & (columns < width)
            rows, columns = rows[inside], columns[inside]
        flat = torch.from_numpy(rows * width + columns).to(self.device)
        self._filled.view(-1).index_fill_(0, flat, MASKED)

    def _rows(self, n: int, n_items: int) -> Tensor:
        width = -(-n_items // CHUNK) * CHUNK
        if self._scores.shape[0] < n or self._scores.shape[1] != width:
            self._scores = torch.full((n, width), MASKED, device=self.device)
        self._filled = self._scores[:n]
        self._filled[:, n_items:] = MASKED  # the block before may have been wider
        return self._filled[:, :n_items]


def _refuse_nan(values: Tensor, users: np.ndarray) -> None:
    # A partial sort puts NaN first, so that the first column suffices.
    bad = values[:, 0].isnan()
    if bad.any():
        user = int(users[int(bad.nonzero()[0, 0])])
        raise TrainingError(
            f"{int(bad.sum())} users of a block, the first in row {user}, have a score that is not "
            "a number: the training has diverged; try a smaller learning rate"
        )
