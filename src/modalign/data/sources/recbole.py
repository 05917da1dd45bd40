"""RecBole's atomic files: `<name>.inter`, `<name>.item`, `<name>.user`.

Tab-separated tables whose header gives every column's type after a colon: `token` (an id or
word), `token_seq` (words separated by spaces), `float`, `float_seq` (numbers separated by
spaces). A split that was fixed beforehand comes as three interaction files,
`<name>.train.inter`, `<name>.valid.inter` and `<name>.test.inter`.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from modalign.data import item_files
from modalign.data.raw import RawData, RawFeatures
from modalign.data.sources._columns import Columns, RowRules, TypedRows, typed, unique_ids
from modalign.data.sources._text_table import Role, SourceTable, open_table, recognise
from modalign.errors import DataError

TYPES = ("token", "token_seq", "float", "float_seq")
PARTS = ("train", "valid", "test")
TITLES = ("title", "name", "movie_title", "item_name", "product_title")
TIMES = ("timestamp", "time")
WEIGHTS = ("rating", "weight")


def read(path: str | Path, user: str | None = None, item: str | None = None) -> RawData:
    r"""Read a folder of atomic files.

    Users, items, ratings or weights and timestamps of interactions are kept, and all columns of
    `.item` and `.user`. Ids are found by common names of `token` columns: user_id, session_id;
    item_id, product_id, artist_id, business_id and others. A name such as `movie_title` becomes
    `title`, and each `float_seq` column of `.item` becomes a feature matrix of that name (without
    the ending `_feat` or `_emb`). An item with an empty cell there has no such features.

    Args:
        path: the folder, or one of its files.
        user: name of the column of users, without its type; None finds it.
        item: name of the column of items, as for users.

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
    given: dict[Role, str | None] = {"user": user, "item": item}
    read_: list[TypedRows] = []
    keys: dict[str, str] = {}
    for file, part in files:
        # One unit for all files: train, the largest, shows it.
        unit = next((one.time_unit for one in read_ if one.time_unit), None)
        rows, columns = _interactions(file, part, RowRules(time_unit=unit), given)
        read_.append(rows)
        keys = keys or {"user": columns.user, "item": columns.item}
        described = columns.used()
    interactions = pl.concat([one.frame for one in read_], how="diagonal")
    items, features = _entity(folder / f"{name}.item", "item", keys["item"])
    files_told: list[str] = []
    items = item_files.beside(items, folder, files_told)
    users, _ = _entity(folder / f"{name}.user", "user", keys["user"])
    others = [p for p in (folder / f"{name}.item", folder / f"{name}.user") if p.is_file()]
    return RawData(
        name=name,
        interactions=interactions,
        items=items,
        users=users,
        features=features,
        info={
            "kind": "recbole",
            "columns": described,
            "files": [p.name for p in (*(f for f, _ in files), *others)],
            "remarks": list(dict.fromkeys(note for one in read_ for note in one.remarks))
            + files_told,
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


def _open(path: Path) -> tuple[SourceTable, dict[str, str]]:
    """The file as a table, and the type of each column by its name."""
    table = open_table(path, "\t", quote="none")
    cells = table.names
    untyped = [cell for cell in cells if ":" not in cell or cell.rpartition(":")[2] not in TYPES]
    if untyped and len(cells) > 1:
        expected = f"columns as name:type, type one of {', '.join(TYPES)}, in {path}, line 1"
        fix = f"write it as {untyped[0].partition(':')[0]}:token or with another of the types"
        raise DataError(expected, f"{untyped[0]!r}", fix)
    return table, {cell.rpartition(":")[0]: cell.rpartition(":")[2] for cell in cells}


def _interactions(
    path: Path, part: str | None, rules: RowRules, given: Mapping[Role, str | None]
) -> tuple[TypedRows, Columns]:
    table, types = _open(path)
    user, item = (_ids(table, types, role, given[role]) for role in ("user", "item"))
    rest = [cell for cell in table.names if cell not in (user, item)]

    def column(names: Sequence[str], role: Role) -> str | None:
        first = (f"{name}:{types[name]}" for name in names if name in types)
        return next(first, None) or recognise([c for c in rest if c.endswith(":float")], role)

    columns = Columns(user, item, column(WEIGHTS, "weight"), column(TIMES, "time"))
    rows = typed(table, columns, rules, may_be_empty=part is not None)
    if part is not None:
        rows = replace(rows, frame=rows.frame.with_columns(split=pl.lit(part)))
    return rows, columns


def _ids(
    table: SourceTable, types: Mapping[str, str], role: Role, given: str | None, like: str = ""
) -> str:
    """The column of ids of a role: the one given, one named as in the interactions, or known."""
    tokens = [f"{name}:token" for name, kind in types.items() if kind == "token"]
    if given is not None:
        wanted = f"{given.removesuffix(':token')}:token"
        found = wanted if wanted in tokens else None
    else:
        usual = (like, f"{role}_id:token", recognise(tokens, role), "id:token" if like else "")
        found = next((one for one in usual if one and one in tokens), None)
    if found is None:
        raise DataError(
            f"a column {given or f'{role}_id'}:token in {table.name}",
            table.shown(),
            table.hint() or f"name the column of {role}s: --{role} NAME",
        )
    return found


def _entity(
    path: Path, role: Role, like: str
) -> tuple[pl.DataFrame | None, dict[str, RawFeatures]]:
    """The table of items or users, and the feature matrices of its `float_seq` columns."""
    if not path.is_file():
        return None, {}
    table, types = _open(path)
    key, id_column = f"{role}_id", _ids(table, types, role, None, like)
    cells = unique_ids(table, id_column, role)
    features: dict[str, RawFeatures] = {}
    keep: list[pl.Series] = []
    for name, kind in types.items():
        column = f"{name}:{kind}"
        if kind == "float_seq":
            short = name.removesuffix("_feat").removesuffix("_emb")
            matrix, present = _matrix(table, cells[column])
            provenance = {"source": "recbole", "file": path.name, "column": name}
            ids = cells[id_column].alias(key)
            features[short] = RawFeatures(ids, matrix, present, provenance)
        elif column == id_column:
            keep.insert(0, cells[column].alias(key))
        elif kind == "float":
            keep.append(_numbers(table, cells[column]).alias(name))
        else:
            keep.append(cells[column].alias(name))
    found = pl.DataFrame(keep)
    others = [name for name in found.columns if name != key]
    title = next((name for name in TITLES if name in others), None) or recognise(others, "title")
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
