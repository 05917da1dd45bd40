"""Negative sampling without rejection: each draw is uniform over the unseen items of a user."""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.errors import DataError


class NegativeSampler:
    """Uniform draws from a pool of items without each user's own training items.

    The r-th item a user has *not* seen is found directly: among the user's sorted items
    p_0 < p_1 < ..., exactly #{k : p_k - k <= r} lie before it, and one binary search over
    the keys `user * (P + 1) + (p_k - k)` of all users counts them. No draw is rejected and
    repeated, and a training item is never drawn.

    Args:
        users, items: training interactions without duplicates, int64, shape (n,).
        n_users, n_items: sizes.
        pool: bool (n_items,), which items may be drawn; None takes those with at least one
            training interaction, as an item that no user could see is no evidence.

    Memory: one int64 per interaction.

    Example:
        >>> sampler = NegativeSampler(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]), 2, 3)
        >>> sampler.sample(torch.zeros(4, dtype=torch.int64), torch.Generator()).tolist()
        [1, 1, 1, 1]
    """

    def __init__(
        self, users: Tensor, items: Tensor, n_users: int, n_items: int, pool: Tensor | None = None
    ) -> None:
        seen = torch.bincount(items, minlength=n_items) > 0
        pool = seen if pool is None else pool
        self._pool = torch.nonzero(pool).flatten()
        slot = torch.cumsum(pool, 0) - 1
        inside = pool[items]
        size = len(self._pool)
        keys = (users[inside] * size + slot[items[inside]]).sort().values
        owner = keys // max(size, 1)
        taken = torch.bincount(owner, minlength=n_users)
        start = torch.cumsum(taken, 0) - taken
        rank = torch.arange(len(keys)) - start[owner]
        # Nondecreasing within a user, and users differ by size + 1: sorted as a whole.
        self._keys = owner * (size + 1) + (keys - owner * size) - rank
        self._start, self._stride = start, size + 1
        self.n_free = size - taken
        """Number of items that can be drawn for each user, int64, shape (n_users,)."""

    def sample(self, users: Tensor, rng: torch.Generator) -> Tensor:
        """One unseen item for each entry of `users` (any shape), int64.

        Raises:
            DataError: a user has seen every item of the pool.
        """
        free = self.n_free[users]
        if (free <= 0).any():
            who = users[free <= 0].flatten()[0].item()
            got = f"user row {who}, who has all {len(self._pool)} items"
            fix = "remove such users, or add items"
            raise DataError("at least one unseen item for each user", got, fix)
        draw = torch.rand(users.shape, generator=rng, dtype=torch.float64)
        r = (draw * free).long()
        base = users * self._stride
        before = torch.searchsorted(self._keys, base + r, right=True) - self._start[users]
        return self._pool[r + before]
