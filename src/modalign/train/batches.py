"""An epoch as whole batches: one shuffle, one draw of negatives, then slices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from modalign.core.interfaces import Batch
from modalign.core.view import TrainView
from modalign.data.sampling import NegativeSampler
from modalign.errors import DataError


class PairBatches:
    """Training pairs with no, one or several negatives each.

    Users who have every item have no negative; their pairs are left out if negatives are drawn.

    Args:
        view: training data.
        batch_size: number of pairs in a batch.
        negatives: number of negatives per pair.

    Raises:
        DataError: no pair is left.
    """

    def __init__(self, view: TrainView, batch_size: int, negatives: int) -> None:
        self._batch_size, self._n_negatives = batch_size, negatives
        self._users, self._items = view.users, view.items
        self._sampler = None
        if negatives:
            self._sampler = NegativeSampler(view.users, view.items, view.n_users, view.n_items)
            keep = self._sampler.n_free[view.users] > 0
            self._users, self._items = view.users[keep], view.items[keep]
        if len(self._users) == 0:
            raise DataError(
                "training interactions to learn from",
                f"none that can be used among {len(view.users)}",
                "import more interactions, or filter less",
            )

    def __len__(self) -> int:
        return -(-len(self._users) // self._batch_size)

    def epoch(self, rng: torch.Generator, device: torch.device) -> Iterator[Batch]:
        """All pairs once, in an order drawn from `rng`."""
        order = torch.randperm(len(self._users), generator=rng)
        users, positives = self._users[order], self._items[order]
        negatives = None
        if self._sampler is not None:
            many = self._n_negatives > 1
            wanted = users.unsqueeze(1).expand(-1, self._n_negatives) if many else users
            negatives = self._sampler.sample(wanted, rng)
        columns: list[Any] = [
            [None] * len(self)
            if whole is None
            else whole.to(device, non_blocking=True).split(self._batch_size)
            for whole in (users, positives, negatives)
        ]
        for u, p, n in zip(*columns, strict=True):
            yield Batch(users=u, positives=p, negatives=n)


class UserBatches:
    """Users with their histories, for models that read a user's whole row."""

    def __init__(self, view: TrainView, batch_size: int) -> None:
        self._batch_size = batch_size
        self._rows = view.rows()
        self._users = torch.nonzero(self._rows.counts).flatten()

    def __len__(self) -> int:
        return -(-len(self._users) // self._batch_size)

    def epoch(self, rng: torch.Generator, device: torch.device) -> Iterator[Batch]:
        """All users with interactions once, in an order drawn from `rng`."""
        order = self._users[torch.randperm(len(self._users), generator=rng)]
        for users in order.split(self._batch_size):
            history = self._rows.history(users)
            yield Batch(users=users.to(device), history=history.to(device))
