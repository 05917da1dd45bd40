"""Preferences from your own file: texts or vectors, joined by user id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modalign.core.settings import build, from_signature
from modalign.encoding.encoders.encoder import file_hash
from modalign.encoding.encoders.precomputed import read_precomputed
from modalign.errors import ConfigError, DataError
from modalign.preferences.provider import (
    Descriptions,
    ProgressCallback,
    ProviderContext,
    TextSource,
)
from modalign.preferences.side import TrainingSide

ID_COLUMNS = ("user_id", "user", "id")
TEXT_COLUMNS = ("text", "profile", "preference", "description", "answer")
TABLES = (".parquet", ".csv", ".jsonl", ".ndjson")
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
        table = _read(self.path)
        ids = _ids(table)
        others = [name for name in table.columns if name != ids]
        named = [name for name in TEXT_COLUMNS if name in others] or others
        if len(named) == 0 or (len(named) > 1 and named == others) or not _texts(table, named[0]):
            raise DataError(
                f"a column of ids and one of texts in {self.path}",
                f"columns {', '.join(table.columns)}",
                f"name the column of texts {TEXT_COLUMNS[0]!r}",
            )
        self._table = table.select(
            pl.col(ids).cast(pl.Utf8).alias("id"), pl.col(named[0]).alias("text")
        )
        twice = self._table.filter(pl.col("id").is_duplicated())
        if len(twice):
            raise DataError(
                f"each user once in {self.path}", f"{twice['id'][0]!r} twice", "remove one row"
            )

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
            raise DataError(
                f"texts about users of the data (such as {known}) in {self.path}",
                "none",
                "use the ids of users.parquet in the data folder",
            )
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
    table = _read(where)
    texts = any(_texts(table, name) for name in table.columns if name != _ids(table))
    return FileTexts(where) if texts else FileVectors(where, ids)


def file(context: ProviderContext, **options: Any) -> FileTexts | FileVectors:
    """The provider `file`; options as those of `from_file`.

    Raises:
        ConfigError: there is no path, or an option is unknown.
    """
    if "path" not in options:
        raise ConfigError("a file of texts or vectors by user id", "no path", "add --set path=FILE")
    return from_file(**build(from_signature(from_file), options, "provider file").model_dump())


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file() or path.suffix not in TABLES:
        raise DataError(
            f"texts or vectors of users in a file ({', '.join((*TABLES, *MATRICES))})",
            f"{path}, {'another kind of file' if path.is_file() else 'which does not exist'}",
            "check the path",
        )
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
        elif path.suffix == ".csv":
            table = _numbers(pl.read_csv(path, infer_schema=False))
        else:
            table = pl.read_ndjson(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"a readable table {path}", str(error).split("\n")[0], "write the file again"
        ) from error
    if len(table.columns) < 2:
        raise DataError(
            f"a column of ids and at least one other column in {path}",
            f"{len(table.columns)} columns",
            "write the file again",
        )
    return table


def _ids(table: pl.DataFrame) -> str:
    return next((one for one in ID_COLUMNS if one in table.columns), table.columns[0])


def _numbers(table: pl.DataFrame) -> pl.DataFrame:
    """Columns of numbers as numbers; ids remain texts."""
    if not table.columns:
        return table
    read = table.select(pl.exclude(_ids(table)).cast(pl.Float64, strict=False))
    return table.with_columns(
        one for one in read if one.null_count() == table[one.name].null_count()
    )


def _texts(table: pl.DataFrame, name: str) -> bool:
    return bool(table.schema[name] == pl.Utf8)


def _provenance(path: Path) -> dict[str, Any]:
    return {"provider": "file", "version": 1, "file": path.name, "input": file_hash(path)}
