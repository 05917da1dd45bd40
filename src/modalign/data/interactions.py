"""Who did something with what: rows of users and items, with optional weight and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Interactions:
    """Parallel arrays, one entry per interaction.

    Attributes:
        users: rows of users, int64, shape (n,).
        items: rows of items, int64, shape (n,).
        weight: rating or strength, float32, shape (n,), or None.
        time: seconds since 1970, int64, shape (n,), or None.
    """

    users: np.ndarray
    items: np.ndarray
    weight: np.ndarray | None = None
    time: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.users) != len(self.items):
            raise ValueError(f"{len(self.users)} users but {len(self.items)} items")

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        known = [name for name in ("weight", "time") if getattr(self, name) is not None]
        return f"Interactions({', '.join([f'{len(self):,} pairs', *known])})"

    @classmethod
    def empty(cls) -> Interactions:
        """No interaction at all."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Interactions]) -> Interactions:
        """The interactions of several parts in order; weights and times where all have them."""
        some = [part for part in parts if len(part)]
        if not some:
            return cls.empty()

        def column(name: str) -> np.ndarray | None:
            columns = [getattr(part, name) for part in some]
            return None if any(one is None for one in columns) else np.concatenate(columns)

        return cls(
            np.concatenate([part.users for part in some]),
            np.concatenate([part.items for part in some]),
            column("weight"),
            column("time"),
        )

    def take(self, rows: np.ndarray) -> Interactions:
        """Some of them, by a mask or by places."""
        return Interactions(
            self.users[rows],
            self.items[rows],
            None if self.weight is None else self.weight[rows],
            None if self.time is None else self.time[rows],
        )

    def csr(self, n_users: int, n_items: int) -> sp.csr_array:
        """Binary users x items matrix, float32, sorted column indices, duplicates merged."""
        ones = np.ones(len(self), np.float32)
        matrix = sp.csr_array((ones, (self.users, self.items)), shape=(n_users, n_items))
        matrix.sum_duplicates()
        matrix.data[:] = 1.0
        return matrix
