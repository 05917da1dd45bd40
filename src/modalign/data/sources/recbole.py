"""RecBole's atomic files: `<name>.inter`, `<name>.item`, `<name>.user`.

Tab-separated tables whose header gives every column's type after a colon: `token` (an id or
word), `token_seq` (words separated by spaces), `float`, `float_seq` (numbers separated by
spaces). A split that was fixed beforehand comes as three interaction files,
`<name>.train.inter`, `<name>.valid.inter` and `<name>.test.inter`.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from modalign.data.raw import RawData, RawFeatures
from modalign.data.sources._columns import Columns, RowRules, TypedRows, typed, unique_ids
from modalign.data.sources._text_table import SourceTable, open_table
from modalign.errors import DataError

TYPES = ("token", "token_seq", "float", "float_seq")
PARTS = ("train", "valid", "test")
TITLES = ("title", "name", "movie_title", "item_name", "product_title")
TIMES = ("timestamp", "time")
WEIGHTS = ("rating", "weight")


def read(path: str | Path) -> RawData:
    r"""Read a folder of atomic files.

    The columns user_id, item_id, rating or weight, and timestamp of interactions are kept, and all
    columns of `.item` and `.user`. A name such as `movie_title` becomes `title`, and each
    `float_seq` column of `.item` becomes a feature matrix of that name (without the ending
    `_feat` or `_emb`). An item with an empty cell there has no such features.

    Args:
        path: the folder, or one of its files.

    Returns:
        RawData, with split if the folder holds one file for each part.

    Raises:
        DataError: a file is missing or does not follow the format; the message names file, line
            and column.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "toy.inter").write_text("user_id:token\titem_id:token\nu\ti\n")
        >>> read(folder).interactions.collect().rows()
        [('u', 'i')]
    """
    folder, name, files = _files(Path(path))
    read_: list[TypedRows] = []
    for file, part in files:
        # One unit for all files: train, the largest, shows it.
        unit = next((one.time_unit for one in read_ if one.time_unit), None)
        read_.append(_interactions(file, part, RowRules(time_unit=unit)))
    interactions = pl.concat([one.frame for one in read_], how="diagonal")
    items, features = _entity(folder / f"{name}.item", "item_id")
    users, _ = _entity(folder / f"{name}.user", "user_id")
    others = [p for p in (folder / f"{name}.item", folder / f"{name}.user") if p.is_file()]
    return RawData(
        name=name,
        interactions=interactions,
        items=items,
        users=users,
        features=features,
        info={
            "kind": "recbole",
            "files": [p.name for p in (*(f for f, _ in files), *others)],
            "remarks": list(dict.fromkeys(note for one in read_ for note in one.remarks)),
        },
    )


def _files(path: Path) -> tuple[Path, str, list[tuple[Path, str | None]]]:
    """The folder, the name of the data set, and its interaction files with their parts."""
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
        got = ", ".join(p.name for p in found[:5]) or "none"
        fix = "keep one data set to a folder, or give the .inter file itself"
        raise DataError(f"the .inter files of one data set in {folder}", got, fix)
    name = names.pop()
    if not parts:
        return folder, name, [(folder / f"{name}.inter", None)]
    files: list[tuple[Path, str | None]] = [
        (folder / f"{name}.{part}.inter", part) for part in PARTS
    ]
    missing = [file.name for file, _ in files if not file.is_file()]
    if missing:
        got = f"no {', '.join(missing)}"
        fix = "add the missing part, or give one .inter file without a split"
        raise DataError(f"a train, a valid and a test file of {name!r} in {folder}", got, fix)
    return folder, name, files


def _open(path: Path, needed: Sequence[str]) -> tuple[SourceTable, dict[str, str]]:
    """The file as a table, and the type of each column by its name."""
    table = open_table(path, "\t", quote="none")
    cells = table.names
    untyped = [cell for cell in cells if ":" not in cell or cell.rpartition(":")[2] not in TYPES]
    if untyped and len(cells) > 1:
        expected = f"columns as name:type, type one of {', '.join(TYPES)}, in {path}, line 1"
        fix = f"write it as {untyped[0].partition(':')[0]}:token or with another of the types"
        raise DataError(expected, f"{untyped[0]!r}", fix)
    table.need([f"{name}:token" for name in needed])
    return table, {cell.rpartition(":")[0]: cell.rpartition(":")[2] for cell in cells}


def _interactions(path: Path, part: str | None, rules: RowRules) -> TypedRows:
    table, types = _open(path, ("user_id", "item_id"))

    def column(names: Sequence[str]) -> str | None:
        return next((f"{name}:{types[name]}" for name in names if name in types), None)

    columns = Columns("user_id:token", "item_id:token", column(WEIGHTS), column(TIMES))
    rows = typed(table, columns, rules, may_be_empty=part is not None)
    if part is None:
        return rows
    return replace(rows, frame=rows.frame.with_columns(split=pl.lit(part)))


def _entity(path: Path, key: str) -> tuple[pl.DataFrame | None, dict[str, RawFeatures]]:
    """The table of items or users, and the feature matrices of its `float_seq` columns."""
    if not path.is_file():
        return None, {}
    table, types = _open(path, (key,))
    cells = unique_ids(table, f"{key}:token", key.removesuffix("_id"))
    features: dict[str, RawFeatures] = {}
    keep = []
    for name, kind in types.items():
        column = f"{name}:{kind}"
        if kind == "float_seq":
            short = name.removesuffix("_feat").removesuffix("_emb")
            matrix, present = _matrix(table, cells[column])
            provenance = {"source": "recbole", "file": path.name, "column": name}
            ids = cells[f"{key}:token"].alias(key)
            features[short] = RawFeatures(ids, matrix, present, provenance)
        elif kind == "float":
            keep.append(_numbers(table, cells[column]).alias(name))
        else:
            keep.append(cells[column].alias(name))
    found = pl.DataFrame(keep)
    title = next((name for name in TITLES if name in found.columns), None)
    return (found.rename({title: "title"}) if title else found), features


def _numbers(table: SourceTable, cells: pl.Series) -> pl.Series:
    """A column of type float; an empty cell is unknown, any other must be a number."""
    numbers = cells.str.strip_chars().cast(pl.Float64, strict=False)
    wrong = numbers.is_null() & cells.is_not_null()
    if wrong.any():
        raise table.bad_cell(int(wrong.arg_max() or 0), cells.name, "a number or nothing")
    return numbers


def _matrix(table: SourceTable, cells: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Space-separated numbers as float32, (n, d), and which rows have any, (n,)."""
    lists = cells.fill_null("").str.extract_all(r"\S+")
    lengths = lists.list.len().to_numpy().astype(np.int64)
    present = lengths > 0
    width = int(lengths.max(initial=0))
    wrong = np.flatnonzero(present & (lengths != width))
    if width == 0 or len(wrong):
        got = f"{lengths[wrong[0]]} in {table.place(int(wrong[0]))}" if len(wrong) else "no number"
        raise DataError(
            f"the same number of numbers, separated by spaces, in each cell of column "
            f"{cells.name!r} of {table.name}, {width or 'at least one'}",
            got,
            "correct that cell, or leave it empty if the item has no such features",
        )
    flat = lists.filter(pl.Series(present)).explode()
    numbers = flat.cast(pl.Float32, strict=False)
    if numbers.null_count():
        at = int(numbers.is_null().arg_max() or 0)
        row = int(np.flatnonzero(present)[at // width])
        expected = f"numbers in column {cells.name!r}"
        raise DataError(expected, f"{flat[at]!r} in {table.place(row)}", "correct that cell")
    matrix = np.zeros((len(lengths), width), np.float32)
    matrix[present] = numbers.to_numpy().reshape(-1, width)
    return matrix, present
