"""The items that can be recommended: those of the artifact, and those added since.

A `Catalogue` never changes; adding items makes a new one that shares the artifact's arrays. A
request uses one catalogue from its start to its end, so it sees all of a new item or nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modalign_serve.artifact.artifact import Artifact, Category
from modalign_serve.artifact.strings import Strings, UnknownIds
from modalign_serve.errors import DataError, UnknownName
from modalign_serve.ranker.rules import Where, matches

Record = Mapping[str, str | float | None]
MASKS = 64
"""Number of filters whose masks are kept."""


@dataclass(frozen=True)
class AddedItems:
    """Items that are not in the artifact, in the order of their arrival.

    Attributes:
        vectors: (m, width).
        records: metadata by column.
        rows: row of each id in the whole catalogue.
        features: by modality, the reduced unit row of each item that has one, by its place.
    """

    ids: tuple[str, ...] = ()
    vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    records: tuple[Record, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, Mapping[int, np.ndarray]] = field(default_factory=dict)


class Catalogue:
    """Ids, vectors and metadata of all items, by row; added items come after the artifact's.

    Args:
        artifact: the trained items.
        added: the other items.
    """

    def __init__(self, artifact: Artifact, added: AddedItems | None = None) -> None:
        self.artifact = artifact
        self.added = added if added is not None else AddedItems()
        self.n_trained = artifact.n_items
        self.n_added = len(self.added.ids)
        self.n = self.n_trained + self.n_added
        self._masks: dict[str, np.ndarray] = {}
        self._codes: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return self.n

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Rows of ids, int64, -1 where unknown."""
        found = self.artifact.item_ids.find(ids)
        if self.added.ids:
            for place in np.flatnonzero(found < 0).tolist():
                found[place] = self.added.rows.get(ids[place], -1)
        return found

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Rows of ids, int64.

        Raises:
            UnknownIds: some are unknown.
        """
        found = self.find(ids)
        if (found < 0).any():
            unknown = [one for one, row in zip(ids, found, strict=True) if row < 0]
            some = self.artifact.item_ids.take(range(min(3, self.n_trained)))
            raise UnknownIds("item", unknown, some, self.n)
        return found

    def ids(self, rows: np.ndarray | Sequence[int]) -> list[str]:
        """Ids of rows."""
        at = np.asarray(rows, np.int64)
        if self.n == self.n_trained or (at < self.n_trained).all():
            return self.artifact.item_ids.take(at)
        return [self.id(row) for row in at.tolist()]

    def id(self, row: int) -> str:
        """Id of a row."""
        trained = row < self.n_trained
        return self.artifact.item_ids[row] if trained else self.added.ids[row - self.n_trained]

    def record(self, row: int) -> dict[str, str | float | None]:
        """Metadata of an item by column; None for a missing value."""
        if row < self.n_trained:
            return self.artifact.item_record(row)
        known = dict.fromkeys(self.artifact.columns)
        return {**known, **self.added.records[row - self.n_trained]}

    def is_trained(self, item_id: str) -> bool:
        """Whether an item is in the artifact, not added later."""
        return self.artifact.item_ids.row(item_id) >= 0

    def picture_name(self, row: int) -> str | None:
        """The name of an item's picture in the artifact; None if it has none, or was added."""
        return self.artifact.picture_name(row) if row < self.n_trained else None

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of rows: an array of rows of shape (...) gives (..., width).

        Raises:
            DataError: the artifact has no item vectors.
        """
        items = self._items()
        if self.n == self.n_trained:
            return np.asarray(items[rows])
        found = np.asarray(items[np.minimum(rows, self.n_trained - 1)])
        new = rows >= self.n_trained
        found[new] = self.added.vectors[rows[new] - self.n_trained]
        return found

    def features(self, modality: str, rows: np.ndarray) -> np.ndarray:
        """Reduced unit features of rows, (len(rows), d); zeros for an item without any."""
        table = self.artifact.features[modality]
        trained = rows < self.n_trained
        found = np.zeros((len(rows), table.shape[1]), np.float32)
        found[trained] = table[rows[trained]]
        added = self.added.features.get(modality, {})
        for place in np.flatnonzero(~trained):
            known = added.get(int(rows[place]) - self.n_trained)
            if known is not None:
                found[place] = known
        return found

    def _items(self) -> np.ndarray:
        if self.artifact.items is None:
            raise DataError(
                "an artifact with item vectors",
                f"one of {self.artifact.manifest.model} without",
                "export a model with vectors, or distil a student: modalign distill",
            )
        return self.artifact.items

    def counts(self) -> np.ndarray:
        """Number of users who chose each item, float32 (n,); 0 for added items."""
        found = np.zeros(self.n, np.float32)
        found[: self.n_trained] = self.artifact.counts
        return found

    def mask(self, where: Where) -> np.ndarray:
        """0 for the items that meet all conditions and minus infinity for the others, (n,).

        Raises:
            UnknownName: no such column.
            ConfigError: a condition of another type than its column.
        """
        key = json.dumps(dict(where), sort_keys=True, default=str)
        if key not in self._masks:
            met = self.meets(where)
            if len(self._masks) >= MASKS:
                self._masks.pop(next(iter(self._masks)), None)
            self._masks[key] = np.where(met, np.float32(0), np.float32(-np.inf))
        return self._masks[key]

    def meets(self, where: Where) -> np.ndarray:
        """Which items meet all conditions, bool (n,)."""
        met = np.empty(self.n, bool)
        met[: self.n_trained] = matches(self.artifact.columns, where, self.n_trained)
        if self.added.ids:
            columns = {name: self._added_column(name) for name in where}
            met[self.n_trained :] = matches(columns, where, len(self.added.ids))
        return met

    def _added_column(self, name: str) -> Strings | np.ndarray:
        values = [record.get(name) for record in self.added.records]
        if isinstance(self.artifact.columns[name], np.ndarray):
            return np.array([np.nan if one is None else float(one) for one in values])
        return Strings.of(None if one is None else str(one) for one in values)

    def codes(self, column: str) -> np.ndarray:
        """A number for each item's value in a column of categories, -1 for none, (n,).

        Raises:
            UnknownName: no such column, or not one of categories.
        """
        if column not in self._codes:
            found = self.artifact.columns.get(column)
            if not isinstance(found, Category):
                kinds = self.artifact.columns.items()
                known = [name for name, one in kinds if isinstance(one, Category)]
                raise UnknownName("item column of categories", column, known or ["(none)"])
            self._codes[column] = np.append(found.codes, self._added_codes(column, found))
        return self._codes[column]

    def _added_codes(self, column: str, trained: Category) -> np.ndarray:
        code_of = {name: code for code, name in enumerate(trained.names)}
        codes = []
        for record in self.added.records:
            value = record.get(column)
            codes.append(-1 if value is None else code_of.setdefault(str(value), len(code_of)))
        return np.array(codes, np.int32)

    def with_items(
        self,
        ids: Sequence[str],
        vectors: np.ndarray,
        records: Iterable[Record],
        features: Mapping[str, np.ndarray] | None = None,
    ) -> Catalogue:
        """A catalogue with more items; one that was added before is replaced in its row.

        Args:
            ids: new ids.
            vectors: (len(ids), width), finite.
            records: metadata; columns that the artifact lacks are kept, but not filtered by.
            features: reduced unit rows (len(ids), d) by modality; zeros for a missing modality.

        Raises:
            DataError: an id of the artifact itself, or vectors of another shape, or not finite,
                or a text where the artifact's column has numbers.
        """
        checked = self._checked(ids, vectors)
        old = self.added
        rows, known_ids, known_records = dict(old.rows), list(old.ids), list(old.records)
        fresh = len(dict.fromkeys(one for one in ids if one not in rows))
        stacked = np.empty((len(known_ids) + fresh, checked.shape[1]), np.float32)
        stacked[: len(known_ids)] = old.vectors.reshape(-1, checked.shape[1])
        reduced = {name: dict(old.features.get(name, {})) for name in self.artifact.features}
        for number, (one, vector, record) in enumerate(zip(ids, checked, records, strict=True)):
            _check_record(self.artifact, one, record)
            if one in rows:
                known_records[rows[one] - self.n_trained] = dict(record)
            else:
                rows[one] = self.n_trained + len(known_ids)
                known_ids.append(one)
                known_records.append(dict(record))
            stacked[rows[one] - self.n_trained] = vector
            for name, table_of in reduced.items():
                row = None if features is None else features.get(name)
                table_of.pop(rows[one] - self.n_trained, None)
                if row is not None and row[number].any():
                    table_of[rows[one] - self.n_trained] = row[number]
        return Catalogue(
            self.artifact,
            AddedItems(tuple(known_ids), stacked, tuple(known_records), rows, reduced),
        )

    def _checked(self, ids: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        width = self._items().shape[1]
        found = np.asarray(vectors, np.float32)
        if found.shape != (len(ids), width) or not np.isfinite(found).all():
            raise DataError(
                f"finite vectors of shape {(len(ids), width)} for new items",
                f"shape {found.shape}"
                if found.shape != (len(ids), width)
                else "some that are not finite",
                "give one vector of the model's width per item, or its features to the adapter",
            )
        taken = self.artifact.item_ids.find(ids) >= 0
        if taken.any():
            one = ids[int(taken.argmax())]
            raise DataError("ids that the artifact does not have", repr(one), "choose another id")
        return found


def _check_record(artifact: Artifact, one: str, record: Record) -> None:
    for name, value in record.items():
        numeric = isinstance(artifact.columns.get(name), np.ndarray)
        if numeric and value is not None and not isinstance(value, int | float):
            raise DataError(
                f"a number as {name} of item {one!r}", repr(value), "give a number, or leave it out"
            )
        if value is not None and not isinstance(value, str | int | float):
            raise DataError(
                f"a text or a number as {name} of item {one!r}",
                repr(value),
                "give a text or a number",
            )
