"""RecBole's atomic files: `<name>.inter`, `<name>.item`, `<name>.user`.

Tab-separated tables whose header gives every column's type after a colon: `token` (an id or
word), `token_seq` (words separated by spaces), `float`, `float_seq` (numbers separated by
spaces). A split that was fixed beforehand comes as three interaction files,
`<name>.train.inter`, `<name>.valid.inter` and `<name>.test.inter`.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from modalign.data.raw import RawData, RawFeatures
from modalign.data.sources._reading import check_columns, header, ragged, read_table
from modalign.errors import DataError

TYPES = ("token", "token_seq", "float", "float_seq")
PARTS = ("train", "valid", "test")
TITLES = ("title", "name", "movie_title", "item_name", "product_title")
TIMES = ("timestamp", "time")
WEIGHTS = ("rating", "weight")


def read(path: str | Path) -> RawData:
    r"""Read a folder of atomic files.

    Of interactions the columns user_id, item_id, rating or weight, and timestamp are kept. All
    columns of `.item` and `.user` are; a name such as `movie_title` becomes `title`, and each
    `float_seq` column of `.item` becomes a feature matrix of that name (without an ending
    `_feat` or `_emb`). An item whose cell there is empty has no such features.

    Args:
        path: the folder, or one of its files.

    Returns:
        RawData, with split where the folder holds one file for each part.

    Raises:
        DataError: a file is missing or not what the format says; file, line and column are
            named.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "toy.inter").write_text("user_id:token\titem_id:token\nu\ti\n")
        >>> read(folder).interactions.collect().rows()
        [('u', 'i')]
    """
    folder, name, files = _files(Path(path))
    tables = [_interactions(file, part) for file, part in files]
    interactions = pl.concat(tables, how="diagonal")
    if interactions.is_empty():
        raise DataError(f"interactions in {files[0][0]}", "a header and nothing below", "fill it")
    items, features = _entity(folder / f"{name}.item", "item_id")
    users, _ = _entity(folder / f"{name}.user", "user_id")
    others = [p for p in (folder / f"{name}.item", folder / f"{name}.user") if p.is_file()]
    return RawData(
        name=name,
        interactions=interactions.lazy(),
        items=items,
        users=users,
        features=features,
        info={
            "kind": "recbole",
            "files": [p.name for p in (*(f for f, _ in files), *others)],
            "remarks": [],
        },
    )


def _files(path: Path) -> tuple[Path, str, list[tuple[Path, str | None]]]:
    """The folder, the data set's name, and its interaction files with the part each is of."""
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise DataError(
            "a folder with RecBole's atomic files", f"{path}, which does not exist", "check it"
        )
    found = sorted(folder.glob("*.inter"))
    parts = {p for p in found if p.suffixes[-2:-1] and p.suffixes[-2][1:] in PARTS}
    whole = [p for p in found if p not in parts]
    names = {p.name.rsplit(".", 2)[0] for p in parts} if parts else {p.stem for p in whole}
    if path.is_file():
        names &= {path.name.split(".")[0], path.stem, path.name.rsplit(".", 2)[0]}
    if len(names) != 1:
        raise DataError(
            f"the .inter files of one data set in {folder}",
            ", ".join(p.name for p in found[:5]) or "none",
            "keep one data set to a folder, or give the .inter file itself",
        )
    name = names.pop()
    if not parts:
        return folder, name, [(folder / f"{name}.inter", None)]
    files: list[tuple[Path, str | None]] = [
        (folder / f"{name}.{part}.inter", part) for part in PARTS
    ]
    missing = [file.name for file, _ in files if not file.is_file()]
    if missing:
        raise DataError(
            f"a train, a valid and a test file of {name!r} in {folder}",
            f"no {', '.join(missing)}",
            "add the missing part, or give one .inter file without a split",
        )
    return folder, name, files


def _header(path: Path, needed: Sequence[str]) -> dict[str, str]:
    """Type of each column by its name."""
    cells = header(path, "\t")
    types = {cell.rpartition(":")[0]: cell.rpartition(":")[2] for cell in cells}
    untyped = [cell for cell in cells if ":" not in cell or cell.rpartition(":")[2] not in TYPES]
    if untyped and len(cells) > 1:
        raise DataError(
            f"columns as name:type, type one of {', '.join(TYPES)}, in {path}, line 1",
            f"{untyped[0]!r}",
            f"write it as {untyped[0].partition(':')[0]}:token or with another of the types",
        )
    check_columns(path, cells, [f"{name}:token" for name in needed], "\t")
    return types


def _interactions(path: Path, part: str | None) -> pl.DataFrame:
    types = _header(path, ("user_id", "item_id"))
    time = next((name for name in TIMES if name in types), None)
    weight = next((name for name in WEIGHTS if name in types), None)
    columns: dict[str, tuple[str, type[pl.DataType]]] = {
        "user_id": ("user_id", pl.Utf8),
        "item_id": ("item_id", pl.Utf8),
    }
    if weight:
        columns["weight"] = (weight, pl.Float64)
    if time:
        columns["time"] = (time, pl.Float64)
    schema = {f"{name}:{types[name]}": kind for name, kind in columns.values()}
    table = read_table(path, "\t", schema)
    table = table.rename(dict(zip(schema, columns, strict=True)))
    if weight:
        table = table.with_columns(pl.col("weight").cast(pl.Float32))
    if time:
        table = table.with_columns(pl.col("time").cast(pl.Int64))
    return table if part is None else table.with_columns(split=pl.lit(part))


def _entity(path: Path, key: str) -> tuple[pl.DataFrame | None, dict[str, RawFeatures]]:
    """The table of items or users, and the feature matrices of its `float_seq` columns."""
    if not path.is_file():
        return None, {}
    types = _header(path, (key,))
    try:
        cells = pl.read_csv(path, separator="\t", quote_char=None, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise ragged(path, "\t", error) from error
    cells = cells.rename({f"{name}:{kind}": name for name, kind in types.items()})
    ids = cells[key]
    if ids.null_count() or ids.n_unique() != len(ids):
        twice = (
            "an empty id" if ids.null_count() else f"{ids.filter(ids.is_duplicated())[0]!r} twice"
        )
        raise DataError(f"each {key} once in {path}", twice, "remove the line")
    features: dict[str, RawFeatures] = {}
    keep = []
    for name, kind in types.items():
        if kind == "float_seq":
            short = name.removesuffix("_feat").removesuffix("_emb")
            matrix, present = _matrix(path, name, cells[name])
            provenance = {"source": "recbole", "file": path.name, "column": name}
            features[short] = RawFeatures(ids, matrix, present, provenance)
        else:
            keep.append(_numbers(path, cells[name]) if kind == "float" else cells[name])
    table = pl.DataFrame(keep)
    title = next((name for name in TITLES if name in table.columns), None)
    return (table.rename({title: "title"}) if title else table), features


def _numbers(path: Path, cells: pl.Series) -> pl.Series:
    """A column of type float; an empty cell is unknown, any other that is no number refused."""
    numbers = cells.str.strip_chars().cast(pl.Float64, strict=False)
    wrong = numbers.is_null() & cells.is_not_null()
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise DataError(
            f"a number in column {cells.name!r} of {path}",
            f"{cells[row]!r} in line {row + 2}",
            "mend that cell, or leave it empty",
        )
    return numbers


def _matrix(path: Path, name: str, cells: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Space-separated numbers as float32, (n, d), and which rows have any, (n,)."""
    lists = cells.fill_null("").str.extract_all(r"\S+")
    lengths = lists.list.len().to_numpy().astype(np.int64)
    present = lengths > 0
    width = int(lengths.max(initial=0))
    wrong = np.flatnonzero(present & (lengths != width))
    if width == 0 or len(wrong):
        got = f"{lengths[wrong[0]]} in line {wrong[0] + 2}" if len(wrong) else "no number at all"
        raise DataError(
            f"as many numbers, separated by spaces, in each cell of column {name!r} of {path}, "
            f"{width or 'some'}",
            got,
            "mend that cell, or leave it empty where the item has no such features",
        )
    flat = lists.filter(pl.Series(present)).explode()
    numbers = flat.cast(pl.Float32, strict=False)
    if numbers.null_count():
        at = int(numbers.is_null().arg_max() or 0)
        row = int(np.flatnonzero(present)[at // width])
        raise DataError(
            f"numbers in column {name!r} of {path}",
            f"{flat[at]!r} in line {row + 2}",
            "mend that cell",
        )
    matrix = np.zeros((len(lengths), width), np.float32)
    matrix[present] = numbers.to_numpy().reshape(-1, width)
    return matrix, present
