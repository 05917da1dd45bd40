"""What a model may see of a data set: sizes, training interactions, features. Nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from modalign.data.modality import Modality


@dataclass(frozen=True)
class TrainView:
    """The training side of a data set.

    Attributes:
        n_users, n_items: sizes of the vocabularies (items without interactions included).
        users, items: the training interactions, int64 tensors of shape (n,), no duplicates.
        modalities: item features by name.
        fingerprint: of the data set; part of every cache key.
        item_ids, user_ids: hashes of the vocabularies' ids and order.
    """

    n_users: int
    n_items: int
    users: Tensor
    items: Tensor
    modalities: Mapping[str, Modality] = field(default_factory=dict)
    fingerprint: str = ""
    user_ids: str = ""
    item_ids: str = ""

    def item_counts(self) -> Tensor:
        """Training interactions of each item, int64, shape (n_items,)."""
        return torch.bincount(self.items, minlength=self.n_items)

    def user_counts(self) -> Tensor:
        """Training interactions of each user, int64, shape (n_users,)."""
        return torch.bincount(self.users, minlength=self.n_users)
