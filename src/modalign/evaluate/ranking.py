"""The k best items of each user among all items, a block of users at a time.

Nothing of size users x items is held: the scores of each block are written to one buffer, masked
by flat index, and cut to the k best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from modalign.core.interfaces import Factors, Queries, Scorer
from modalign.core.sparse import from_scipy, row_of_entries
from modalign.core.topk import CHUNK, MASKED, top
from modalign.errors import ConfigError, DataError, TrainingError


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
    block: int = 1024,
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
        block: number of users scored at a time. Memory is about `block` x items x 4 bytes, twice
            that for a scorer that is not a product of two tables.
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
    for name, value in (("k", k), ("block", block)):
        if value < 1:
            raise ConfigError(f"{name} of at least 1", str(value), f"give a larger {name}")
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
            past = None if history is None else from_scipy(history[users[part]]).to(device)
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


class _Buffer:
    """A buffer for a block of scores: what a scorer returns may be a view of its weights."""

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
        """Set the scores of items that the users have seen to minus infinity."""
        part = seen[users]
        width = self._filled.shape[1]
        flat = torch.from_numpy(row_of_entries(part) * width + part.indices).to(self.device)
        self._filled.view(-1).index_fill_(0, flat, MASKED)

    def _rows(self, n: int, n_items: int) -> Tensor:
        if n_items != self.n_items:
            width = -(-n_items // CHUNK) * CHUNK
            self._scores = torch.full((self.block, width), MASKED, device=self.device)
            self.n_items = n_items
        self._filled = self._scores[:n]
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
