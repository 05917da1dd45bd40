"""An artifact in memory: its arrays, which may be mapped from disk, and its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from modalign_serve.artifact.manifest import Manifest
from modalign_serve.artifact.pictures import PackedPictures
from modalign_serve.artifact.strings import Ids, Strings


class Csr(NamedTuple):
    """Rows of items: row r holds `indices[indptr[r]:indptr[r + 1]]`.

    Attributes:
        indptr: int64, (rows + 1,).
        indices: int32, ascending within a row.
        values: float32 of the same length as the indices; None: all are 1.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray | None = None

    def row(self, row: int) -> np.ndarray:
        """Indices of one row."""
        return self.indices[self.indptr[row] : self.indptr[row + 1]]

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For several rows: which of them each entry belongs to, and its place in `indices`.

        Example:
            >>> csr = Csr(np.array([0, 2, 3]), np.array([4, 7, 5]))
            >>> owner, at = csr.places(np.array([1, 0]))
            >>> owner.tolist(), csr.indices[at].tolist()
            ([0, 1, 1], [5, 4, 7])
        """
        starts = self.indptr[rows]
        counts = self.indptr[rows + 1] - starts
        ends = np.cumsum(counts)
        owner = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(owner)) - np.repeat(ends - counts, counts)
        return owner, starts[owner] + within


class Category(NamedTuple):
    """A column with few distinct values.

    Attributes:
        codes: place of each row's value in `names`, int32, (n,); -1 for a missing value.
    """

    codes: np.ndarray
    names: tuple[str, ...]


Column: TypeAlias = Strings | Category | np.ndarray
"""Texts, categories, or numbers (float64, NaN for a missing value)."""


@dataclass(frozen=True)
class Artifact:
    """Everything that a server needs of a trained model.

    Attributes:
        seen: items left out of each user's lists, (n_users, n_items).
        counts: number of users who chose each item in training, int64, (n_items,).
        users: vectors (n_users, width) float32; None unless the kind is "factors".
        items: vectors (n_items, width) float32: for scores if the kind is "factors", otherwise
            for the similarity of items only.
        history: what the model reads of a user, if that is not `seen`.
        neighbours: the item-item matrix of the kind "neighbours": row i holds what item i of a
            history adds to the scores of others.
        columns: item metadata by name.
        features: reduced unit rows (n_items, at most 64) of each modality; zeros if missing.
        bases: that reduce the unit rows of each modality, (width of the modality, at most 64).
        fold_in: matrices of the fold-in.
        adapter: matrices of the content adapter, or None.
        pictures: of items; the column "image" holds their names.
        folder: where it was read from.
        verified: whether reading compared the hashes of all files ("full"), or the sizes of all
            and the hashes of the small ones ("quick"); None if it was not read from disk.
    """

    manifest: Manifest
    user_ids: Ids
    item_ids: Ids
    seen: Csr
    counts: np.ndarray
    users: np.ndarray | None = None
    items: np.ndarray | None = None
    history: Csr | None = None
    neighbours: Csr | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    bases: Mapping[str, np.ndarray] = field(default_factory=dict)
    fold_in: Mapping[str, np.ndarray] = field(default_factory=dict)
    adapter: Mapping[str, np.ndarray] | None = None
    pictures: PackedPictures | None = None
    folder: Path | None = None
    verified: Literal["full", "quick"] | None = None

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    def file(self, name: str) -> Path | None:
        """A file of the artifact by its name in the manifest, or None if there is none."""
        if self.folder is None or name not in self.manifest.files:
            return None
        return self.folder / name

    def item_record(self, row: int) -> dict[str, str | float | None]:
        """Metadata of an item by column; None for a missing value.

        Example:
            >>> artifact = Artifact(
            ...     Manifest("factors", "bpr", 0, 1, 0), Ids.pack([], "user"), Ids.pack(["a"]),
            ...     Csr(np.zeros(1, np.int64), np.zeros(0, np.int32)), np.zeros(1, np.int64),
            ...     columns={"title": Strings.of(["A rucksack"]), "price": np.array([np.nan])},
            ... )
            >>> artifact.item_record(0)
            {'title': 'A rucksack', 'price': None}
        """
        return {name: _cell(column, row) for name, column in self.columns.items()}

    def picture_name(self, row: int) -> str | None:
        """The name of an item's picture in `pictures`, or None if it has none."""
        column = self.columns.get("image")
        if self.pictures is None or not isinstance(column, Strings):
            return None
        return column[row] if column[row] in self.pictures else None


def _cell(column: Column, row: int) -> str | float | None:
    if isinstance(column, Strings):
        return column[row] or None
    if isinstance(column, Category):
        code = int(column.codes[row])
        return column.names[code] if code >= 0 else None
    value = float(column[row])
    return None if np.isnan(value) else value
