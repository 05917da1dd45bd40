"""The training side of a data set as profiles may see it. Nothing here can reach what is hidden.

`training_side` is the one place of this package where a `Dataset` is read; all other functions
take what it returns, which holds no validation and no test interaction.
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
from modalign.data.dataset import Dataset
from modalign.data.vocabulary import Vocabulary
from modalign.encoding.encode import item_texts, text_columns
from modalign.errors import DataError, UnknownName

TITLES = ("title", "name")
CATEGORIES = ("category", "categories", "genre", "genres", "tags", "keywords")
MAKERS = ("brand", "store", "author", "authors", "artist", "director")


@dataclass(frozen=True)
class TrainingSide:
    """Training interactions and what is known of items.

    Attributes:
        users: their ids.
        items: theirs.
        pairs: rows of users and items of the training interactions, int64 (2, n), each pair
            once, in order of user, then item.
        time: when, int64 (n,), the last time of a pair; None where it is not known of all.
        titles: of all items, the id where there is none.
        texts: all that is written of an item in one text, None where there is nothing.
        details: the same without title, categories and makers.
        labels: for each item, its categories and makers; rows of `item` (row) and `label`.
        fingerprint: hash of ids and training pairs.
        modalities: of items, by name.
        seed: of choices among a user's items.
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
    seed: int = 0

    @property
    def n_users(self) -> int:
        """How many users, those without training items included."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """How many items, those nobody has included."""
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
        """Places of the pairs by user, and for each the most recent first, int64 (n,).

        Where times are equal or not known, by a hash of the seed and of both ids: an order at
        random that does not change for a user when others do.
        """
        users, items = self.pairs
        salt = np.uint64(derive(self.seed, "profiles", "order"))
        chance = _mixed(_id_hash(self.users)[users] ^ _mixed(_id_hash(self.items)[items] ^ salt))
        late = np.zeros(len(users), np.int64) if self.time is None else -self.time
        return np.lexsort((chance, late, users))

    def latest(self, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Users and items of each user's first pairs in `order`, `limit` at most, int64 (n,)."""
        users, items = self.pairs[:, self.order]
        if limit is not None:
            counts = np.bincount(users, minlength=self.n_users)
            place = np.arange(len(users)) - (np.cumsum(counts) - counts)[users]
            users, items = users[place < limit], items[place < limit]
        return users, items

    @cached_property
    def active(self) -> np.ndarray:
        """Rows of the users who have training items, int64."""
        return np.unique(self.pairs[0])


def training_side(
    dataset: Dataset, columns: Sequence[str] | None = None, seed: int = 0
) -> TrainingSide:
    """Cut a data set down to what a profile may see.

    Args:
        dataset: of its interactions only the part `train` is read.
        columns: item columns that make the text; None takes the usual ones.
        seed: of the choice among a user's items.

    Raises:
        UnknownName: no such column.
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


def need_texts(side: TrainingSide, who: str) -> None:
    """Raise where no item has a text.

    Raises:
        DataError: there is none.
    """
    if not any(side.texts):
        raise DataError(
            f"items with texts (title, description, category, ...) for {who}",
            "items without any",
            "import the data with --items TABLE, or take --provider history-mean, which wants "
            "an encoded modality only",
        )


def _texts(dataset: Dataset, columns: Sequence[str]) -> list[str | None]:
    return item_texts(dataset, columns) if columns else [None] * dataset.n_items


def _labels(table: pl.DataFrame) -> pl.DataFrame:
    """A row for each category or maker of each item: `item` (row), `label`."""
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
    """A number for each id, uint64, the same in every process."""
    digests = (hashlib.blake2b(one.encode(), digest_size=8).digest() for one in ids)
    return np.frombuffer(b"".join(digests), np.uint64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers that leaves no pattern (splitmix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: np.ndarray = x ^ (x >> np.uint64(31))
    return out
