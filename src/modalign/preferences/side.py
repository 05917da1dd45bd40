"""The training side of a data set, which is all that a provider of preferences sees.

`training_side` is the only place of this package where a `Dataset` is read. All other functions
take its result, which holds no validation and no test interaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from modalign.core.modality import Modality
from modalign.core.seeds import derive
from modalign.core.settings import DEFAULT_SEED
from modalign.core.sparse import place_in_row
from modalign.data.dataset import Dataset
from modalign.data.vocabulary import Vocabulary
from modalign.encoding.encode import item_texts, text_columns
from modalign.errors import DataError, UnknownName

TITLES = ("title", "name")
CATEGORIES = ("category", "categories", "genre", "genres", "tags", "keywords")
MAKERS = ("brand", "store", "author", "authors", "artist", "director")


@dataclass(frozen=True)
class TrainingSide:
    """Training interactions, and the texts and features of items.

    Attributes:
        pairs: rows of users and items of the training interactions, int64 (2, n), each pair
            once, in order of user, then item.
        time: last time of each pair, int64 (n,); None unless known for all pairs.
        titles: of all items; the id of an item without one.
        texts: all text columns of an item joined; None if all are empty.
        details: the same without title, categories and makers.
        labels: categories and makers of the items; rows of `item` (row) and `label`.
        fingerprint: hash of ids and training pairs.
        modalities: of items, by name.
        seed: of the order of a user's items where times do not decide it.
    """

    users: Vocabulary
    items: Vocabulary
    pairs: np.ndarray
    time: np.ndarray | None
    titles: Sequence[str]
    texts: Sequence[str | None]
    details: Sequence[str | None]
    labels: pl.DataFrame
    fingerprint: str
    modalities: dict[str, Modality] = field(default_factory=dict)
    seed: int = DEFAULT_SEED

    @property
    def n_users(self) -> int:
        """Number of users, including those without training items."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Number of items, including those without training users."""
        return len(self.items)

    @cached_property
    def text_hash(self) -> str:
        """Hash of the items' texts, 16 hexadecimal digits."""
        digest = hashlib.sha256(self.items.fingerprint.encode())
        for text in self.texts:
            digest.update(b"\1" if text is None else b"\0" + text.encode() + b"\0")
        return digest.hexdigest()[:16]

    @cached_property
    def order(self) -> np.ndarray:
        """Indices of the pairs by user, the most recent pair of a user first, int64 (n,).

        Equal or unknown times are ordered by a hash of the seed and of both ids: a random order
        of a user's items that does not depend on other users.
        """
        users, items = self.pairs
        # Another name of the random stream gives other orders.
        salt = np.uint64(derive(self.seed, "profiles", "order"))
        chance = _mixed(_id_hash(self.users)[users] ^ _mixed(_id_hash(self.items)[items] ^ salt))
        late = np.zeros(len(users), np.int64) if self.time is None else -self.time
        return np.lexsort((chance, late, users))

    def latest(self, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Users and items of each user's first `limit` pairs in `order`, int64 (n,) each."""
        users, items = self.pairs[:, self.order]
        if limit is not None:
            first = place_in_row(np.bincount(users, minlength=self.n_users)) < limit
            users, items = users[first], items[first]
        return users, items

    @cached_property
    def active(self) -> np.ndarray:
        """Rows of the users with training items, int64."""
        return np.flatnonzero(self.is_active)

    @cached_property
    def is_active(self) -> np.ndarray:
        """Whether a user has training items, bool (n_users,)."""
        return np.bincount(self.pairs[0], minlength=self.n_users) > 0


def training_side(
    dataset: Dataset, columns: Sequence[str] | None = None, seed: int = DEFAULT_SEED
) -> TrainingSide:
    """Reduce a data set to what a provider of preferences may see.

    Args:
        dataset: only the part `train` of its interactions is read.
        columns: item columns that make the text; None takes the usual ones.
        seed: of the order of a user's items where times do not decide it.

    Raises:
        UnknownName: there is no such column.
    """
    train = dataset.train
    keys, place = np.unique(
        train.users.astype(np.int64) * dataset.n_items + train.items, return_inverse=True
    )
    time = None
    if train.time is not None:
        time = np.full(len(keys), np.iinfo(np.int64).min)
        np.maximum.at(time, place, train.time)
    chosen = list(columns or text_columns(dataset))
    for name in chosen:
        if name not in dataset.item_table.columns:
            raise UnknownName("column of the items", name, dataset.item_table.columns)
    return TrainingSide(
        users=dataset.users,
        items=dataset.items,
        pairs=np.stack([keys // dataset.n_items, keys % dataset.n_items]),
        time=time,
        titles=dataset.titles().to_list(),
        texts=_texts(dataset, chosen),
        details=_texts(dataset, [n for n in chosen if n not in (*TITLES, *CATEGORIES, *MAKERS)]),
        labels=_labels(dataset.item_table),
        fingerprint=dataset.train_fingerprint,
        modalities={n: m for n, m in dataset.modalities.items() if m.entity == "item"},
        seed=seed,
    )


def need_texts(side: TrainingSide, purpose: str) -> None:
    """Check that at least one item has a text.

    Raises:
        DataError: no item has one.
    """
    if not any(side.texts):
        raise DataError(
            f"items with texts (title, description, category, ...) for {purpose}",
            "items without texts",
            "import the data with --items TABLE, or use --provider history-mean, which only "
            "needs an encoded modality",
        )


def _texts(dataset: Dataset, columns: Sequence[str]) -> list[str | None]:
    return item_texts(dataset, columns) if columns else [None] * dataset.n_items


def _labels(table: pl.DataFrame) -> pl.DataFrame:
    """One row per category or maker of an item: `item` (row) and `label`."""
    found = []
    for name in (*CATEGORIES, *MAKERS):
        if name not in table.columns:
            continue
        column = pl.col(name)
        if table.schema[name] != pl.List(pl.Utf8):
            if table.schema[name] not in (pl.Utf8, pl.Categorical):
                continue
            column = column.cast(pl.Utf8).str.replace_all(r"\s*[|;]\s*|,\s+", "\0").str.split("\0")
        rows = table.select(pl.int_range(pl.len()).alias("item"), column.alias("label"))
        found.append(rows.explode("label").with_columns(pl.col("label").str.strip_chars()))
    schema = pl.Schema({"item": pl.Int64, "label": pl.Utf8})
    if not found:
        return pl.DataFrame(schema=schema)
    rows = pl.concat(found).filter(pl.col("label").fill_null("") != "")
    return rows.unique(maintain_order=True).cast(schema)


def _id_hash(ids: Vocabulary) -> np.ndarray:
    """A hash of each id, uint64, the same in every process."""
    digests = (hashlib.blake2b(one.encode(), digest_size=8).digest() for one in ids)
    return np.frombuffer(b"".join(digests), np.uint64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers that looks random (splitmix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: np.ndarray = x ^ (x >> np.uint64(31))
    return out
