"""The prepared data set: one folder on disk, one frozen object in memory.

dataset.json            name, counts, source, filters, split, seed, fingerprint
users.parquet           user_id and other columns of users, in row order
items.parquet           item_id, title, description, image (path), ..., in row order
interactions.parquet    user (row), item (row), split, weight?, time?
modalities/NAME.safetensors
images/ audio/ video/   files of the items, if there are any
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from modalign.core import showing
from modalign.core.files import tidy, write_folder_aside
from modalign.core.modality import Modality
from modalign.core.sparse import row_of_entries
from modalign.core.view import TrainView
from modalign.data import item_files
from modalign.data.filters import pair_keys, sorting
from modalign.data.interactions import Interactions
from modalign.data.modality_file import read_modality, write_modality
from modalign.data.user_history import UserHistory
from modalign.data.vocabulary import Vocabulary
from modalign.errors import DataError, UnknownName

SCHEMA = 1
SPLITS = ("train", "valid", "test", "valid_history", "test_history")


@dataclass(frozen=True)
class Dataset:
    """Interactions split for training, validation and test, with tables and features of items.

    Attributes:
        train, valid, test: interactions by part.
        valid_history, test_history: under the unseen-users protocol, the known interactions of
            held-out users, from which they are scored; otherwise empty.
        user_table, item_table: columns of users and items, in row order.
        info: provenance: source, filters, split with its seed, licence, `synthetic`.
        folder: the folder it was read from, or None.
    """

    name: str
    users: Vocabulary
    items: Vocabulary
    train: Interactions
    valid: Interactions
    test: Interactions
    valid_history: Interactions = field(default_factory=Interactions.empty)
    test_history: Interactions = field(default_factory=Interactions.empty)
    modalities: Mapping[str, Modality] = field(default_factory=dict)
    user_table: pl.DataFrame = field(default_factory=pl.DataFrame)
    item_table: pl.DataFrame = field(default_factory=pl.DataFrame)
    info: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def __repr__(self) -> str:
        sizes = f"{self.n_users:,} users, {self.n_items:,} items"
        parts = ", ".join(f"{name} {len(self.part(name)):,}" for name in self._parts_there())
        features = f", modalities {', '.join(sorted(self.modalities))}" if self.modalities else ""
        return f"Dataset({self.name}: {sizes}; {parts}{features})"

    def _repr_html_(self) -> str:
        rows = [["users", f"{self.n_users:,}"], ["items", f"{self.n_items:,}"]]
        rows += [[name, f"{len(self.part(name)):,} interactions"] for name in self._parts_there()]
        rows += [
            [name, f"{one.dim:,} numbers, {int((~one.present).sum()):,} missing"]
            for name, one in sorted(self.modalities.items())
        ]
        rows.append(["split", str(dict(self.info.get("split") or {}).get("kind", "unknown"))])
        return showing.html_table(f"Data set {self.name}", ["", ""], rows)

    def _parts_there(self) -> list[str]:
        return [name for name in SPLITS if len(self.part(name))]

    @property
    def n_users(self) -> int:
        """Number of users, including unseen ones."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Number of items, including those without interactions."""
        return len(self.items)

    def vocabulary(self, entity: str) -> Vocabulary:
        """The ids of the rows of an entity: "item" or "user"."""
        return self.items if entity == "item" else self.users

    def part(self, name: str) -> Interactions:
        """One of `SPLITS` by name.

        Raises:
            UnknownName: there is no such part.
        """
        if name not in SPLITS:
            raise UnknownName("part of the split", name, SPLITS)
        found: Interactions = getattr(self, name)
        return found

    @cached_property
    def history(self) -> UserHistory:
        """What each user had: read by models, hidden from rankings."""
        parts = {name: self.part(name) for name in SPLITS}
        return UserHistory(parts, self.n_users, self.n_items)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of ids, interactions and split, 16 hexadecimal digits; without features."""
        digest = hashlib.sha256((self.users.fingerprint + self.items.fingerprint).encode())
        for name in SPLITS:
            part = self.part(name)
            digest.update(name.encode())
            order = sorting(pair_keys(part.users, part.items))
            for rows in (part.users, part.items):
                ordered = rows if order is None else rows[order]
                digest.update(np.ascontiguousarray(ordered, np.int64).view(np.uint8).data)
        return digest.hexdigest()[:16]

    @cached_property
    def train_fingerprint(self) -> str:
        """Hash of ids and training pairs, 16 hexadecimal digits."""
        digest = hashlib.sha256((self.users.fingerprint + self.items.fingerprint).encode())
        train = self.history.train
        keys = row_of_entries(train) * self.n_items + train.indices
        digest.update(keys.view(np.uint8).data)
        return digest.hexdigest()[:16]

    def view(self) -> TrainView:
        """What a model may see: training interactions without duplicates, and features.

        Raises:
            DataError: features of users were made from other training interactions.
        """
        train = self.history.train
        for name, modality in self._of("user").items():
            # Preferences made for another split may have read interactions of this test part.
            if modality.provenance.get("train", self.train_fingerprint) != self.train_fingerprint:
                raise DataError(
                    f"features of users in modality {name!r} made from this data's training part",
                    "features made from another one, which may contain interactions to predict",
                    f"make them again with `modalign describe DATA --name {name}`, or remove "
                    f"modalities/{name}.safetensors",
                )
        return TrainView(
            n_users=self.n_users,
            n_items=self.n_items,
            users=torch.from_numpy(row_of_entries(train)),
            items=torch.from_numpy(train.indices.astype(np.int64)),
            modalities=self._of("item"),
            user_modalities=self._of("user"),
            fingerprint=self.fingerprint,
            user_ids=self.users.fingerprint,
            item_ids=self.items.fingerprint,
        )

    def _of(self, entity: str) -> dict[str, Modality]:
        return {name: m for name, m in self.modalities.items() if m.entity == entity}

    def with_modality(self, modality: Modality) -> Dataset:
        """A copy with one more (or a replaced) modality; nothing is written.

        Raises:
            DataError: the modality has another number of rows.
        """
        n = len(self.vocabulary(modality.entity))
        if len(modality) != n:
            expected = f"{n} rows, one per {modality.entity}, in modality {modality.name!r}"
            got = f"{len(modality)} rows"
            raise DataError(expected, got, f"encode the {modality.entity}s of this data set")
        return replace(self, modalities={**self.modalities, modality.name: modality})

    def image_path(self, item: int) -> Path | None:
        """The path of the picture of an item's row, or None without one."""
        if "image" not in self.item_table.columns:
            return None
        path = self.item_table["image"][int(item)]
        if path is None:
            return None
        return Path(path) if self.folder is None else item_files.stored(self.folder, path)

    def titles(self) -> pl.Series:
        """The title of each item, in row order; the id of an item without a title."""
        if "title" not in self.item_table.columns:
            return self.items.series.alias("title")
        return self.item_table.select(pl.col("title").fill_null(self.items.series))["title"]

    def save(self, folder: str | Path) -> Dataset:
        """Write the folder, complete or not at all, and return the data set read from it."""
        folder = Path(folder)
        with write_folder_aside(folder, keep=(*item_files.STORED.values(), "modalities")) as aside:
            frames = [_frame(name, self.part(name)) for name in SPLITS]
            table = pl.concat(frames, how="diagonal_relaxed", rechunk=False)
            table.write_parquet(aside / "interactions.parquet")
            del frames, table
            items = self.item_table
            if self.folder is not None and self.folder.resolve() != folder.resolve():
                items = item_files.place(item_files.under(items, self.folder), aside)
            _table(self.users, self.user_table).write_parquet(aside / "users.parquet")
            _table(self.items, items).write_parquet(aside / "items.parquet")
            for modality in self.modalities.values():
                write_modality(aside / "modalities", modality, self.vocabulary(modality.entity))
            counts = {name: len(self.part(name)) for name in SPLITS if len(self.part(name))}
            meta = {
                "schema": SCHEMA,
                "name": self.name,
                "n_users": self.n_users,
                "n_items": self.n_items,
                "interactions": counts,
                "fingerprint": self.fingerprint,
                "info": dict(self.info),
            }
            (aside / "dataset.json").write_text(json.dumps(meta, indent=2, default=str) + "\n")
        return Dataset.load(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Read a prepared folder.

        Raises:
            DataError: the folder is not a prepared data set, or its parts disagree.
        """
        folder = Path(folder)
        if not folder.exists():
            tidy(folder)  # a killed import may have left the old folder under another name
        meta_path = folder / "dataset.json"
        if not meta_path.is_file():
            raise DataError(
                "a prepared data folder with a dataset.json",
                f"{folder} without one"
                if folder.is_dir()
                else f"{folder}, which {'is a file' if folder.is_file() else 'does not exist'}",
                f"make it with `modalign data import ... --out {folder}`",
            )
        try:
            meta = json.loads(meta_path.read_text())
            if meta["schema"] != SCHEMA:
                got = f"schema {meta['schema']}"
                raise DataError(f"a data folder of schema {SCHEMA}", got, "import it again")
            users = pl.read_parquet(folder / "users.parquet")
            items = pl.read_parquet(folder / "items.parquet")
            table = pl.scan_parquet(folder / "interactions.parquet")
            # One part at a time, so that table and arrays are never both complete in memory.
            parts: dict[str, Any] = {
                part: _part(table.filter(pl.col("split") == part).collect()) for part in SPLITS
            }
            name, info, fingerprint = meta["name"], meta["info"], meta["fingerprint"]
            user_ids, item_ids = users["user_id"], items["item_id"]
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"a readable data folder {folder}", str(error).split("\n")[0], "import it again"
            ) from error
        dataset = cls(
            name,
            Vocabulary(user_ids, "user"),
            Vocabulary(item_ids, "item"),
            **parts,
            user_table=users,
            item_table=items,
            info=info,
            folder=folder,
        )
        if dataset.fingerprint != fingerprint:
            raise DataError(
                f"data of fingerprint {fingerprint} in {folder}",
                f"fingerprint {dataset.fingerprint}: a file was modified",
                "import it again",
            )
        files = sorted((folder / "modalities").glob("*.safetensors"))
        modalities = {p.stem: read_modality(p, dataset.items, dataset.users) for p in files}
        return replace(dataset, modalities=modalities)


def _table(vocabulary: Vocabulary, table: pl.DataFrame) -> pl.DataFrame:
    column = f"{vocabulary.kind}_id"
    if table.is_empty():
        return pl.DataFrame({column: vocabulary.series})
    if table[column].to_list() != list(vocabulary):
        raise ValueError(f"the {vocabulary.kind} table is not in row order")
    return table


def _frame(name: str, part: Interactions) -> pl.DataFrame:
    columns = {"user": part.users, "item": part.items}
    for column in ("weight", "time"):
        values = getattr(part, column)
        if values is not None and len(part):
            columns[column] = values
    return pl.DataFrame(columns).with_columns(split=pl.lit(name, dtype=pl.Enum(SPLITS)))


def _part(table: pl.DataFrame) -> Interactions:
    def optional(column: str, dtype: type) -> np.ndarray | None:
        if column not in table.columns or table[column].null_count() or table.is_empty():
            return None
        return table[column].to_numpy().astype(dtype)

    return Interactions(
        table["user"].to_numpy().astype(np.int64),
        table["item"].to_numpy().astype(np.int64),
        optional("weight", np.float32),
        optional("time", np.int64),
    )
