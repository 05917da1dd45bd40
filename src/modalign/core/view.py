"""What a model may read of a data set: sizes, training interactions and features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from modalign.core.modality import Modality
from modalign.core.sparse import csr_tensor, ranges


@dataclass(frozen=True)
class TrainView:
    """The training side of a data set.

    Attributes:
        n_users, n_items: sizes of the vocabularies, including items without interactions.
        users, items: the training interactions, int64 tensors of shape (n,), no duplicates.
        modalities: item features by name.
        user_modalities: user features by name, such as a description of their preferences.
        fingerprint: of the data set; part of every cache key.
        item_ids, user_ids: hashes of the vocabularies' ids and order.
    """

    n_users: int
    n_items: int
    users: Tensor
    items: Tensor
    modalities: Mapping[str, Modality] = field(default_factory=dict)
    user_modalities: Mapping[str, Modality] = field(default_factory=dict)
    fingerprint: str = ""
    user_ids: str = ""
    item_ids: str = ""

    def __repr__(self) -> str:
        sizes = f"{self.n_users:,} users, {self.n_items:,} items, {len(self.users):,} interactions"
        names = [*sorted(self.modalities), *(f"{n} of users" for n in sorted(self.user_modalities))]
        return f"TrainView({sizes}; modalities {', '.join(names) or 'none'})"

    def item_counts(self) -> Tensor:
        """Training interactions of each item, int64, shape (n_items,)."""
        return torch.bincount(self.items, minlength=self.n_items)

    def user_counts(self) -> Tensor:
        """Training interactions of each user, int64, shape (n_users,)."""
        return torch.bincount(self.users, minlength=self.n_users)

    def rows(self) -> UserRows:
        """The same interactions by user."""
        return UserRows(self)


class UserRows:
    """Training items of users, looked up for a block of users at a time."""

    def __init__(self, view: TrainView) -> None:
        self._n_items = view.n_items
        order = torch.argsort(view.users * view.n_items + view.items)
        self._items = view.items[order]
        self.counts = view.user_counts()
        self._start = torch.cumsum(self.counts, 0) - self.counts

    def of(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Position in `users` and item of each of their interactions, both int64 (n,), in order.

        Example:
            >>> view = TrainView(2, 3, users=torch.tensor([1, 0, 1]), items=torch.tensor([2, 1, 0]))
            >>> view.rows().of(torch.tensor([1, 0]))
            (tensor([0, 0, 1]), tensor([0, 2, 1]))
        """
        asked = users.cpu()
        counts = self.counts[asked]
        items = self._items[ranges(self._start[asked], counts)]
        return torch.repeat_interleave(counts).to(users.device), items.to(users.device)

    def history(self, users: Tensor) -> Tensor:
        """Training items of users (B,) as sparse CSR rows of ones, (B, n_items)."""
        _, items = self.of(users)
        zero = torch.zeros(1, dtype=torch.int64)
        indptr = torch.cat([zero, torch.cumsum(self.counts[users.cpu()], 0)]).to(users.device)
        ones = torch.ones(len(items), device=users.device)
        return csr_tensor(indptr, items, ones, (len(users), self._n_items))

    def seen(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Which users (B,) have which of distinct items (C,): positions in both, int64 (n,).

        Example:
            >>> view = TrainView(2, 3, users=torch.tensor([1, 0, 1]), items=torch.tensor([2, 1, 0]))
            >>> view.rows().seen(torch.tensor([1, 0]), torch.tensor([1, 2]))
            (tensor([0, 1]), tensor([1, 0]))
        """
        owner, theirs = self.of(users)
        place = torch.full((self._n_items,), -1, device=items.device)
        place[items] = torch.arange(len(items), device=items.device)
        at = place[theirs]
        found = at >= 0
        return owner[found], at[found]
