"""Features that were computed elsewhere, joined to the items by id, never by position."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import BadZipFile

import numpy as np
import polars as pl
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.sparse import load_npz

from modalign.core.interfaces import Config
from modalign.core.modality import Modality
from modalign.core.settings import build
from modalign.data.modality_file import features_in
from modalign.data.vocabulary import Vocabulary
from modalign.encoding.encoders.encoder import file_hash
from modalign.errors import DataError

IDS = ("{stem}.ids.txt", "{stem}_ids.txt", "{stem}.ids.csv", "{stem}.ids.json", "{stem}.ids.npy",
       "{stem}_ids.npy", "ids.txt", "ids.csv", "ids.json", "ids.npy")  # fmt: skip
"""Files of ids that are looked for beside a matrix."""
ID_COLUMNS = ("item_id", "id", "item", "asin", "movie_id")


class PrecomputedOptions(Config):
    """Options of the encoder `precomputed`."""

    path: Annotated[str, Field(min_length=1)]
    """The features: .npy, .npz, .safetensors, .parquet, .csv or .jsonl."""
    ids: str | None = None
    """For .npy, .npz and .safetensors: the ids of the rows, .txt, .csv, .json or .npy, one per row;
    None takes the array `ids` of the file, or a file beside it such as NAME.ids.txt or ids.txt."""
    id_column: str | None = None
    """The column of ids in a table; None takes item_id, id, ... or else the first column."""
    bag: bool = False
    """Whether the columns are words and the numbers their weights, as BANDVAE reads them."""


def read_precomputed(
    path: str | Path,
    name: str,
    items: Vocabulary,
    *,
    ids: str | Path | None = None,
    id_column: str | None = None,
    id_columns: Sequence[str] = ID_COLUMNS,
) -> Modality:
    """A modality from a feature file; an item (or user) without a row counts as absent.

    So does one whose row is all zeros, the only way in which a bare matrix can say that an item has
    no features.

    Args:
        path: a `.npy`, `.npz` or `.safetensors` matrix with `ids`, or a table (see `read_table`)
            with an id column and either one column of lists or one column per number.
        name: of the modality.
        items: the vocabulary to join to, of items or of users.
        ids: for a matrix: ids of its rows, one per row, in a `.txt`, `.csv`, `.json` or `.npy`
            file; None takes the array `ids` of the file, or a file beside it (`IDS`).
        id_column: the id column of a table (or of a `.csv` of ids).
        id_columns: candidates for it if it is not named; the first column if none exists.

    Returns:
        The modality in the order of the vocabulary; its provenance holds the numbers of rows,
        joined rows, rows of unknown items and rows of zeros.

    Raises:
        DataError: the file is unreadable, has NaN or infinite numbers (row and id are named),
            has an id twice or none, or has no row of a known item.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"a file of features {path}", "no such file", "check the path")
    if path.suffix in MATRICES:
        matrix, held = MATRICES[path.suffix](path)
        beside = ids if ids is not None or held is not None else _ids_beside(path)
        if beside is not None:
            ids, held = beside, _read_ids(Path(beside), id_column, id_columns)
        if held is None:
            fix = f"write one id per row to {path.stem}.ids.txt beside it, or add --set ids=FILE"
            raise DataError(f"the ids of the rows of {path}", "a matrix without ids", fix)
        row_ids = held
    else:
        row_ids, table = read_table(path, id_column, id_columns)
        matrix = _numbers(path, table)
    if len(row_ids) != len(matrix):
        expected = f"one id per row, {len(matrix)} rows in {path}"
        raise DataError(
            expected, f"{len(row_ids)} ids in {ids or path}", "give exactly one id per row"
        )
    _check_rows(path, row_ids, matrix, items.kind)
    return _join(path, name, items, row_ids, matrix)


def from_options(name: str, items: Vocabulary, options: dict[str, Any]) -> Modality:
    """`read_precomputed` with the options of the encoder `precomputed`.

    Args:
        name: of the modality.
        items: the vocabulary to join to.
        options: see `PrecomputedOptions`.

    Raises:
        ConfigError: an option is unknown or not a text.
        DataError: there is no path, or see `read_precomputed`.
    """
    if "path" not in options:
        raise DataError(
            "the file of precomputed features", "no path", "add --set path=FILE.npy (or .parquet)"
        )
    chosen = build(PrecomputedOptions, options, "encoder precomputed")
    made = read_precomputed(chosen.path, name, items, ids=chosen.ids, id_column=chosen.id_column)
    return replace(made, provenance={**made.provenance, "kind": "vectors", "bag": chosen.bag})


def _join(path: Path, name: str, items: Vocabulary, ids: pl.Series, matrix: np.ndarray) -> Modality:
    place = pl.DataFrame({"id": items.series}).with_row_index("item")
    rows = pl.DataFrame({"id": ids}).with_row_index("row")
    pairs = rows.join(place, on="id", how="inner")
    if pairs.is_empty():
        shown = ", ".join(map(repr, ids.head(3)))
        known = ", ".join(map(repr, items.series.head(3)))
        expected = f"features of {items.kind}s of the data (such as {known}) in {path}"
        got = f"rows of other {items.kind}s ({shown})" if len(ids) else "no rows"
        raise DataError(expected, got, f"use the ids of {items.kind}s.parquet in the data folder")
    features = np.zeros((len(items), matrix.shape[1]), np.float32)
    present = np.zeros(len(items), bool)
    rows_of = pairs["row"].to_numpy()
    rows_of = rows_of[matrix[rows_of].any(axis=1)]
    if not len(rows_of):
        fix = "a row of zeros stands for an item without features; write the features again"
        raise DataError(f"features other than zeros in {path}", f"{len(pairs)} rows of zeros", fix)
    target = np.full(len(ids), -1)
    target[pairs["row"].to_numpy()] = pairs["item"].to_numpy()
    features[target[rows_of]] = matrix[rows_of]
    present[target[rows_of]] = True
    provenance = {
        "encoder": "precomputed",
        "file": path.name,
        "input": file_hash(path),
        "join": {
            "rows": len(ids),
            "joined": len(pairs),
            "unknown": len(ids) - len(pairs),
            "zeros": len(pairs) - len(rows_of),
        },
    }
    entity: Literal["item", "user"] = "user" if items.kind == "user" else "item"
    return Modality(name, features, present, entity, provenance)


def _check_rows(path: Path, ids: pl.Series, matrix: np.ndarray, kind: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        good = np.isfinite(matrix.astype(np.float32)).all(axis=1)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise DataError(
            f"finite numbers in {path}",
            f"NaN or infinite values in {(~good).sum()} rows, the first is row {row} "
            f"(counted from 0) of id {ids[row]!r}",
            f"correct these rows, or remove them: {kind}s without a row count as absent",
        )
    if ids.null_count():
        row = int(ids.is_null().arg_max() or 0)
        raise DataError(
            f"an id in each row of {path}", f"none in row {row}", "add it or remove the row"
        )
    if ids.n_unique() != len(ids):
        twice = ids.filter(ids.is_duplicated())[0]
        raise DataError(f"each id once in {path}", f"{twice!r} twice", "remove the duplicate row")


def _ids_beside(path: Path) -> Path | None:
    """A file of ids beside a matrix: of its name or called ids, the first that is there."""
    names = [form.format(stem=path.stem) for form in IDS]
    return next((path.with_name(one) for one in names if path.with_name(one).is_file()), None)


def _read_npz(path: Path) -> tuple[np.ndarray, pl.Series | None]:
    """The only matrix of an archive, or the one called features, and its ids if it holds any.

    An archive may also hold the parts of a sparse matrix, as scipy writes them.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        got = str(error).split("\n")[0]
        raise DataError(f"arrays of numbers in {path}", got, "save it with numpy.savez") from error
    if {"data", "indptr", "format", "shape"} <= set(arrays):  # of scipy.sparse.save_npz
        return load_npz(path).toarray(), None
    ids = next((arrays.pop(name) for name in ("ids", *ID_COLUMNS) if name in arrays), None)
    return _the_matrix(path, arrays), None if ids is None else _as_ids(path, ids)


def _as_ids(path: Path, ids: np.ndarray) -> pl.Series:
    if ids.ndim != 1 or ids.dtype.kind not in "iuUS":
        got = f"{ids.dtype} of shape {ids.shape}"
        raise DataError(f"a list of numbers or texts as ids in {path}", got, "save one id per row")
    texts = ids.astype(str) if ids.dtype.kind != "S" else np.char.decode(ids, "utf-8")
    return pl.Series("id", texts.tolist(), pl.Utf8)


def _the_matrix(path: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    found = {name: one for name, one in arrays.items() if one.ndim == 2 and one.dtype.kind in "fiu"}
    if "features" in found:
        return found["features"]
    if len(found) == 1:
        return next(iter(found.values()))
    got = f"{len(found)} matrices among {', '.join(arrays) or 'nothing'}"
    raise DataError(f"one matrix in {path}, or one named features", got, "name the matrix features")


def _read_npy(path: Path) -> tuple[np.ndarray, pl.Series | None]:
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"a matrix of numbers in {path}", str(error).split("\n")[0], "save it with numpy.save"
        ) from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        shape = f"{matrix.dtype} of shape {matrix.shape}" if isinstance(matrix, np.ndarray) else ""
        raise DataError(
            f"a matrix of numbers with two dimensions in {path}", shape or "no matrix", "reshape it"
        )
    return matrix, None


def _read_safetensors(path: Path) -> tuple[np.ndarray, pl.Series | None]:
    """The features of a modality's file, or the only matrix in another, and ids if it holds any."""
    try:
        tensors = load_file(path)
        features = features_in(tensors)
    except (OSError, ValueError, IndexError, TypeError, SafetensorError) as error:
        raise DataError(
            f"a matrix of numbers in {path}", str(error).split("\n")[0], "save it again"
        ) from error
    ids = _as_ids(path, tensors.pop("ids")) if "ids" in tensors else None
    if features is not None and features.ndim == 2:
        return features, ids
    return _the_matrix(path, tensors), ids


MATRICES = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}
"""Readers of a matrix and of its ids, None where the file holds none, by ending."""


def _read_ids(path: Path, id_column: str | None, known: Sequence[str]) -> pl.Series:
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, list):
                raise ValueError("it is not a list")
            return pl.Series("id", list(map(str, content)), pl.Utf8)
        if path.suffix == ".csv":
            return read_table(path, id_column, known)[0]
        if path.suffix == ".npy":
            return _as_ids(path, np.load(path, allow_pickle=False))
        return pl.Series("id", path.read_text(encoding="utf-8").splitlines(), pl.Utf8)
    except (OSError, ValueError, EOFError, pl.exceptions.PolarsError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"ids, one per row, in {path}", str(error).split("\n")[0], "write one id per line"
        ) from error


def read_table(
    path: Path, id_column: str | None, known: Sequence[str]
) -> tuple[pl.Series, pl.DataFrame]:
    """Ids as texts, and the other columns of a table.

    Args:
        path: a .parquet, .csv, .jsonl or .ndjson file.
        id_column: the column of ids; None takes the first of `known`, else the first column.
        known: usual names of that column.

    Raises:
        DataError: the file does not exist, is of another kind or unreadable, or has no such
            column.
    """
    if not path.is_file():
        raise DataError(f"a file {path}", "no such file", "check the path")
    if path.suffix not in (".parquet", ".csv", ".jsonl", ".ndjson"):
        expected = "a file in .npy, .npz, .safetensors, .parquet, .csv, .jsonl or .ndjson"
        raise DataError(expected, f"{path}", "convert it to one of these formats")
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
        elif path.suffix == ".csv":
            table = pl.read_csv(path, infer_schema_length=None)
        else:
            table = pl.read_ndjson(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"a readable table {path}", str(error).split("\n")[0], "write the file again"
        ) from error
    column = _id_column(path, table.columns, id_column, known)
    ids = table[column].cast(pl.Utf8)
    if path.suffix == ".csv":
        # Read as text, so that ids such as 007 keep their zeros.
        ids = pl.read_csv(path, columns=[column], infer_schema=False)[column]
    return ids.alias("id"), table.drop(column)


def _id_column(path: Path, columns: list[str], wanted: str | None, known: Sequence[str]) -> str:
    if wanted is not None and wanted not in columns:
        got = f"columns {', '.join(columns)}"
        raise DataError(f"a column {wanted!r} in {path}", got, "name one of these columns")
    if not columns:
        raise DataError(f"a table with columns in {path}", "none", "write the file again")
    return wanted or next((one for one in known if one in columns), columns[0])


def _numbers(path: Path, table: pl.DataFrame) -> np.ndarray:
    lists = [n for n, kind in table.schema.items() if isinstance(kind, pl.List | pl.Array)]
    if len(lists) == 1:
        values = table[lists[0]].cast(pl.List(pl.Float64))
        lengths = values.list.len()
        if values.null_count() or lengths.n_unique() != 1:
            got = f"{lengths.n_unique()} different lengths, {values.null_count()} missing"
            fix = "use lists of equal length, and remove rows without features"
            raise DataError(f"lists of one length in column {lists[0]!r} of {path}", got, fix)
        flat = values.explode().fill_null(float("nan")).to_numpy()
        return flat.reshape(len(values), -1)
    if lists or not table.columns:
        got = f"{len(lists)} columns of lists and {len(table.columns) - len(lists)} others"
        fix = "keep only the id column and the features"
        raise DataError(f"one column of lists, or one column per number, in {path}", got, fix)
    for column, kind in table.schema.items():
        if not kind.is_numeric():
            raise DataError(
                f"numbers in column {column!r} of {path}", str(kind), "remove or convert the column"
            )
    return table.cast(pl.Float64).fill_null(float("nan")).to_numpy()
