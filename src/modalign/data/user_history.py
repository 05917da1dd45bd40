"""What each user had, in one meaning for training, evaluation, recommendation and export.

Three questions are answered here and nowhere else:

- `UserHistory.read`: what a model that reads histories is given of a user. It is the training
  items. For a user without training items it is the known part: the items of `valid_history`
  or `test_history` (unseen-users protocol). A known part of a user who has training items is
  not read.
- `UserHistory.seen`: what is hidden from the user's ranking when a split is measured.
- `UserHistory.known`: what is hidden when items are recommended after training: everything
  except the test part.

All matrices are binary: a pair that stands in several parts counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.sparse as sp

from modalign.data.interactions import Interactions

Split = Literal["valid", "test"]
Mask = Literal["strict", "train"]


@dataclass(frozen=True)
class UserHistory:
    """Users' items as sparse matrices, each computed once. `Dataset.history` makes it.

    Attributes:
        parts: the parts of the split by name, as in `modalign.data.dataset.SPLITS`.
        n_users, n_items: shape of the matrices.
    """

    parts: Mapping[str, Interactions]
    n_users: int
    n_items: int
    _made: dict[tuple[str, ...], sp.csr_array] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {len(part):,}" for name, part in self.parts.items())
        return f"UserHistory({self.n_users:,} users, {self.n_items:,} items; {parts})"

    @cached_property
    def trained(self) -> np.ndarray:
        """Whether a user has training items, bool, shape (n_users,)."""
        found = np.zeros(self.n_users, bool)
        found[self.parts["train"].users] = True
        return found

    @cached_property
    def held_out(self) -> np.ndarray:
        """Whether a user has interactions and none of them is in training, bool, (n_users,)."""
        some = np.zeros(self.n_users, bool)
        for part in self.parts.values():
            some[part.users] = True
        some[self.trained] = False
        return some

    @property
    def train(self) -> sp.csr_array:
        """Training items, users x items, float32."""
        return self._union("train")

    def read(self, split: Split | None = None) -> sp.csr_array:
        """What a model that reads histories is given of each user, users x items, float32.

        Args:
            split: the split that is being measured: of a user without training items only the
                known part of that split is read. None, after training, takes both known parts.

        Example:
            >>> def part(*pairs):
            ...     return Interactions(*np.array(pairs, np.int64).reshape(-1, 2).T)
            >>> parts = {
            ...     "train": part((0, 0)), "valid": part((0, 1)), "test": part((0, 2), (1, 2)),
            ...     "valid_history": part(), "test_history": part((0, 3), (1, 0)),
            ... }
            >>> history = UserHistory(parts, n_users=2, n_items=4)
            >>> history.read().toarray().astype(int).tolist()
            [[1, 0, 0, 0], [1, 0, 0, 0]]
            >>> history.seen("test").toarray().astype(int).tolist()
            [[1, 1, 0, 0], [1, 0, 0, 0]]
            >>> history.known.toarray().astype(int).tolist()
            [[1, 1, 0, 1], [1, 0, 0, 0]]
        """
        return self._union(*self._read(split))

    def seen(self, split: Split, mask: Mask = "strict") -> sp.csr_array:
        """What is hidden from each user's ranking on a split, users x items, float32.

        Args:
            split: the split that is being measured. On "valid" both masks hide what is read.
            mask: "strict" hides the validation items of a user from the test ranking too,
                "train" hides only what is read.
        """
        more = ("valid",) if split == "test" and mask == "strict" else ()
        return self._union(*self._read(split), *more)

    @property
    def known(self) -> sp.csr_array:
        """Everything except the test part, users x items, float32: hidden when recommending."""
        return self._union("train", "valid", "valid_history", "test_history")

    def of(self, user: int) -> Interactions:
        """What is read of one user, with weights and times.

        Args:
            user: row of the user.
        """
        names = ("train",) if self.trained[user] else ("valid_history", "test_history")
        parts = [self.parts[name] for name in names]
        return Interactions.joined([part.take(part.users == user) for part in parts])

    def _read(self, split: Split | None) -> tuple[str, ...]:
        splits = ("valid", "test") if split is None else (split,)
        return ("train", *(f"new {one}_history" for one in splits))

    def _union(self, *names: str) -> sp.csr_array:
        """Pairs of any of the parts; "new NAME" is part NAME, of users without training items."""
        found = {name: part for name in names if len(part := self._part(name))}
        key = tuple(found)
        if key not in self._made:
            whole = Interactions.joined([Interactions(p.users, p.items) for p in found.values()])
            self._made[key] = whole.csr(self.n_users, self.n_items)
        return self._made[key]

    def _part(self, name: str) -> Interactions:
        if not name.startswith("new "):
            return self.parts[name]
        part = self.parts[name.removeprefix("new ")]
        return part.take(~self.trained[part.users])
