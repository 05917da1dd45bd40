"""Ids of users or items and their rows, in both directions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import polars as pl

from modalign.errors import DataError


class Vocabulary:
    """The ids of users or items, in row order.

    Ids are text: the integer 42 and the text "42" are the same id.

    Args:
        ids: unique ids, one per row.
        kind: "user" or "item", used in messages.

    Raises:
        DataError: an id occurs twice.

    Example:
        >>> v = Vocabulary(["a", "b"], "item")
        >>> v.rows(["b", "a"]).tolist(), v.ids([1]), len(v), "c" in v
        ([1, 0], ['b'], 2, False)
    """

    def __init__(self, ids: Iterable[str | int] | pl.Series, kind: str = "item") -> None:
        series = (
            ids if isinstance(ids, pl.Series) else pl.Series("id", list(map(str, ids)), pl.Utf8)
        )
        self._ids = series.cast(pl.Utf8).alias("id").rechunk()
        self.kind = kind
        if self._ids.n_unique() != len(self._ids):
            twice = self._ids.filter(self._ids.is_duplicated())[0]
            raise DataError(f"each {kind} id once", f"{twice!r} twice", "remove the duplicate row")

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __contains__(self, one_id: object) -> bool:
        return str(one_id) in self._index

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} {self.kind}s)"

    @property
    def series(self) -> pl.Series:
        """All ids in row order."""
        return self._ids

    @cached_property
    def _index(self) -> dict[str, int]:
        return {one: row for row, one in enumerate(self._ids)}

    def rows(self, ids: Iterable[str | int] | pl.Series) -> np.ndarray:
        """Rows of `ids`, int64, in their order.

        Raises:
            DataError: an id is unknown; the first few are named.
        """
        wanted = [str(one) for one in ids]
        found = np.fromiter((self._index.get(one, -1) for one in wanted), np.int64, len(wanted))
        if (found < 0).any():
            unknown = [wanted[i] for i in np.flatnonzero(found < 0)[:3]]
            known = ", ".join(repr(one) for one in self._ids.head(3))
            expected = f"ids of the {len(self)} known {self.kind}s (such as {known})"
            got = f"{(found < 0).sum()} unknown: {', '.join(map(repr, unknown))}"
            raise DataError(expected, got, f"use ids of {self.kind}s.parquet in the data folder")
        return found

    def ids(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Ids of `rows`, in their order."""
        return self._ids.gather(np.asarray(rows, dtype=np.int64)).to_list()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the ids and their order, 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for one in self._ids:
            digest.update(one.encode() + b"\0")
        return digest.hexdigest()[:16]
