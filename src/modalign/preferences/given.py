"""Preferences from your own file: texts or vectors, joined by user id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modalign.core.settings import build, from_signature
from modalign.encoding.encoders.encoder import file_hash
from modalign.encoding.encoders.precomputed import read_precomputed, read_table
from modalign.errors import ConfigError, DataError
from modalign.preferences.provider import (
    PROVIDERS,
    Descriptions,
    ProgressCallback,
    ProviderContext,
    TextSource,
)
from modalign.preferences.side import TrainingSide

ID_COLUMNS = ("user_id", "user", "id")
TEXT_COLUMNS = ("text", "profile", "preference", "description", "answer")
MATRICES = (".npy", ".safetensors")


class FileTexts:
    """Texts of users from a Parquet, CSV or JSON-lines file.

    Limits: nothing can check which interactions the texts were made from. Make sure that they
    use training interactions only.

    Args:
        path: the file, with a column of ids (user_id, user, id, or the first column) and one of
            texts (text, profile, preference, description, answer, or the only other column).

    Raises:
        DataError: the file does not exist or is unreadable, has no such column, or has an id
            twice.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        ids, table = read_table(self.path, None, ID_COLUMNS)
        named = [name for name in TEXT_COLUMNS if name in table.columns]
        if not named and len(table.columns) == 1:
            named = table.columns
        if not named or table.schema[named[0]] != pl.Utf8:
            got = f"other columns {', '.join(table.columns) or '(none)'}"
            fix = f"name the column of texts {TEXT_COLUMNS[0]!r}"
            raise DataError(f"a column of ids and one of texts in {self.path}", got, fix)
        twice = ids.filter(ids.is_duplicated())
        if len(twice):
            raise DataError(f"each user once in {self.path}", f"{twice[0]!r} twice", "remove a row")
        self._table = pl.DataFrame({"id": ids, "text": table[named[0]]})

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """Provider, name and hash of the file."""
        return _provenance(self.path)

    def describe(self, side: TrainingSide, progress: ProgressCallback) -> Descriptions:
        """The texts of the users who have training items.

        Raises:
            DataError: the file has no text about such a user.
        """
        users = pl.DataFrame({"id": side.users.series})
        found = users.join(self._table, on="id", how="left", maintain_order="left")["text"]
        blank = found.str.strip_chars().fill_null("") == ""
        kept = side.is_active & ~blank.to_numpy()
        texts = [text if keep else None for text, keep in zip(found, kept, strict=True)]
        if not any(texts):
            known = ", ".join(map(repr, side.users.series.head(3)))
            expected = f"texts about users of the data (such as {known}) in {self.path}"
            raise DataError(expected, "none", "use the ids of users.parquet in the data folder")
        sources: list[TextSource | None] = [None if text is None else "file" for text in texts]
        progress(len(side.active), len(side.active))
        return Descriptions(texts, sources)


class FileVectors:
    """Vectors of users from a .npy or .safetensors file with ids, or from a table of numbers.

    Args:
        path: the file.
        ids: the ids of the rows of a .npy or .safetensors file: .txt, .csv or .json, one per row.

    Raises:
        DataError: the file does not exist.
    """

    def __init__(self, path: str | Path, ids: str | Path | None = None) -> None:
        self.path, self.ids = Path(path), ids
        if not self.path.is_file():
            raise DataError(f"a file of vectors {self.path}", "no such file", "check the path")

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """Provider, name and hash of the file."""
        facts = _provenance(self.path)
        return facts if self.ids is None else {**facts, "ids": file_hash(self.ids)}

    def vectors(self, side: TrainingSide) -> tuple[np.ndarray, np.ndarray]:
        """The unchanged vectors of the users who have training items."""
        made = read_precomputed(
            self.path, "preference", side.users, ids=self.ids, id_columns=ID_COLUMNS
        )
        present = side.is_active & made.present
        return np.where(present[:, None], made.features, np.float32(0)), present


def from_file(path: str | Path, ids: str | Path | None = None) -> FileTexts | FileVectors:
    """Texts if the file has a column of them, else vectors.

    Raises:
        DataError: the file does not exist or is unreadable.
    """
    where = Path(path)
    if where.suffix in MATRICES:
        return FileVectors(where, ids)
    texts = pl.Utf8 in read_table(where, None, ID_COLUMNS)[1].dtypes
    return FileTexts(where) if texts else FileVectors(where, ids)


def _from_options(context: ProviderContext, **options: Any) -> FileTexts | FileVectors:
    if "path" not in options:
        raise ConfigError("a file of texts or vectors by user id", "no path", "add --set path=FILE")
    return from_file(**build(from_signature(from_file), options, "provider file").model_dump())


def _provenance(path: Path) -> dict[str, Any]:
    return {"provider": "file", "version": 1, "file": path.name, "input": file_hash(path)}


PROVIDERS.register("file", _from_options)
