"""Columns of texts and ids that open immediately: arrays on disk, mapped into memory.

A column is two arrays: the concatenated bytes of all texts, and the place where each starts. Ids
have two more, their hashes in ascending order and the row of each, so a million ids can be looked
up without a dictionary of a million entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import numpy as np

from modalign_serve.errors import DataError


class UnknownIds(DataError):
    """Ids that the artifact does not have.

    Args:
        kind: "user" or "item".
        ids: that are unknown, in the order asked.
        known: some existing ids.
        total: number of existing ids.
    """

    def __init__(self, kind: str, ids: Sequence[str], known: Sequence[str], total: int) -> None:
        self.kind, self.ids = kind, list(ids)
        some = ", ".join(map(repr, known))
        super().__init__(
            f"ids of the {total} known {kind}s" + (f" (such as {some})" if some else ""),
            f"{len(ids)} unknown: {', '.join(map(repr, ids[:3]))}",
            f"use {kind} ids of the data the model was trained on",
        )


def hashed(one: str) -> int:
    """A 64-bit hash of a text, the same on every machine."""
    return int.from_bytes(blake2b(one.encode(), digest_size=8).digest(), "little")


class Strings(Sequence[str]):
    """Texts in row order.

    Args:
        data: UTF-8 bytes of all texts, uint8.
        starts: where each text starts, and the end, int64, (n + 1,).

    Example:
        >>> column = Strings.of(["vegan rucksack", "", "Überwurf"])
        >>> column[2], column.take([0, 1]), len(column)
        ('Überwurf', ['vegan rucksack', ''], 3)
    """

    def __init__(self, data: np.ndarray, starts: np.ndarray) -> None:
        self.data, self.starts = data, starts
        self._view = np.ascontiguousarray(data).data if len(data) else b""

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> Strings:
        """Pack texts; None becomes an empty text."""
        encoded = [(one or "").encode() for one in texts]
        starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=starts[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> str:  # type: ignore[override]
        if not 0 <= row < len(self):
            raise IndexError(row)
        return str(self._view[self.starts[row] : self.starts[row + 1]], "utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        return iter(self.take(range(len(self))))

    def take(self, rows: Iterable[int] | np.ndarray) -> list[str]:
        """Texts of `rows`, in their order."""
        at = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows), np.int64)
        first, last, view = self.starts[at].tolist(), self.starts[at + 1].tolist(), self._view
        return [str(view[a:b], "utf-8", "replace") for a, b in zip(first, last, strict=True)]

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are written to disk, by name."""
        return {"bytes": self.data, "starts": self.starts}


class Ids(Strings):
    """Ids in row order, with the lookup from an id to its row.

    Args:
        data: UTF-8 bytes of all ids, uint8.
        starts: where each starts, and the end, int64, (n + 1,).
        hashes: `hashed` of every id, ascending, uint64, (n,).
        order: row of each hash, int64, (n,).
        kind: "user" or "item", used in messages.

    Example:
        >>> ids = Ids.pack(["u1", "u2"], "user")
        >>> ids.row("u2"), ids.row("u9"), ids.rows(["u2", "u1"]).tolist()
        (1, -1, [1, 0])
    """

    def __init__(
        self,
        data: np.ndarray,
        starts: np.ndarray,
        hashes: np.ndarray,
        order: np.ndarray,
        kind: str = "item",
    ) -> None:
        super().__init__(data, starts)
        self.hashes, self.order, self.kind = hashes, order, kind

    @classmethod
    def pack(cls, ids: Iterable[str], kind: str = "item") -> Ids:
        """Pack ids, which must be unique."""
        texts = list(ids)
        packed = Strings.of(texts)
        digests = b"".join(blake2b(one.encode(), digest_size=8).digest() for one in texts)
        hashes = np.frombuffer(digests, "<u8")
        order = np.argsort(hashes, kind="stable")
        return cls(packed.data, packed.starts, hashes[order], order, kind)

    def row(self, one: str) -> int:
        """Row of an id, -1 if it is unknown."""
        value = hashed(one)
        return self._confirmed(one, value, int(self.hashes.searchsorted(np.uint64(value))))

    def _confirmed(self, one: str, value: int, place: int) -> int:
        # Two ids may share a hash, so the id itself decides.
        while place < len(self.hashes) and int(self.hashes[place]) == value:
            row = int(self.order[place])
            if self[row] == one:
                return row
            place += 1
        return -1

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Rows of ids, int64, -1 for unknown ones."""
        if len(ids) == 1:
            return np.array([self.row(ids[0])], np.int64)
        values = [hashed(one) for one in ids]
        places = self.hashes.searchsorted(np.array(values, np.uint64)).tolist()
        found = map(self._confirmed, ids, values, places)
        return np.fromiter(found, np.int64, len(values))

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Rows of ids, int64.

        Raises:
            UnknownIds: some are unknown.
        """
        found = self.find(ids)
        if (found < 0).any():
            unknown = [one for one, row in zip(ids, found, strict=True) if row < 0]
            raise UnknownIds(self.kind, unknown, self.take(range(min(3, len(self)))), len(self))
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are written to disk, by name."""
        return {**super().arrays(), "hashes": self.hashes, "order": self.order}
