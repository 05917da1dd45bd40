"""The MMRec layout: one `.inter` file with the split in it, features as `.npy` by row.

    baby/
      baby.inter           tab separated: userID itemID x_label (0 train, 1 valid, 2 test)
      text_feat.npy        row r belongs to the item numbered r
      image_feat.npy
      i_id_mapping.csv     original id and itemID, optional (tab or comma)
      u_id_mapping.csv
      items.csv            table of items, optional (tab or comma)

The layout is that of the MMRec toolbox, https://github.com/enoche/MMRec.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from modalign.data import item_files
from modalign.data.raw import RawData, RawFeatures
from modalign.data.sources._columns import unique_ids
from modalign.data.sources._quotes import Quoting
from modalign.data.sources._text_table import SourceTable, open_table, physical_line
from modalign.data.sources._times import moments
from modalign.errors import DataError

PARTS = ("train", "valid", "test")
USER, ITEM, LABEL = "userID", "itemID", "x_label"


def read(path: str | Path) -> RawData:
    r"""Read a folder in the MMRec layout, its split and all its modalities.

    Users and items carry their original ids where a mapping is there, otherwise their numbers.
    Rows of a feature file that are zero throughout are taken as missing: a zero vector is how
    the layout writes "no picture". Columns `rating` and `timestamp` are read where they are.

    Args:
        path: the folder.

    Returns:
        RawData with split, and one feature matrix (n_items, d), float32, per `<name>_feat.npy`.

    Raises:
        DataError: a file is missing or does not follow the layout; the message names file and line.

    Limits: features are read whole; reading float64 files needs twice their float32 size.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "toy.inter").write_text("userID\titemID\tx_label\n0\t1\t0\n")
        >>> np.save(folder / "text_feat.npy", np.array([[0.0, 0.0], [1.0, 2.0]]))
        >>> raw = read(folder)
        >>> raw.interactions.collect().row(0), raw.features["text"].present.tolist()
        (('0', '1', 'train'), [False, True])
    """
    folder = Path(path)
    inter = open_table(_inter_file(folder), "\t", quote="none")
    columns = inter.names
    schema: dict[str, type[pl.DataType]] = {USER: pl.Int64, ITEM: pl.Int64, LABEL: pl.Int64}
    schema |= {n: pl.Float64 for n in ("rating", "timestamp") if n in columns}
    table = inter.cells(schema)
    _check_numbers(inter, table)
    matrices = {p.name.removesuffix("_feat.npy"): p for p in sorted(folder.glob("*_feat.npy"))}
    items = _ids(folder / "i_id_mapping.csv", ITEM)
    users = _ids(folder / "u_id_mapping.csv", USER)
    n_items = _count(inter, table, ITEM, items, matrices)
    n_users = _count(inter, table, USER, users, {})
    items = items if items is not None else _numbers(n_items)
    users = users if users is not None else _numbers(n_users)
    features, remarks = {}, []
    for name, file in matrices.items():
        matrix, present = _features(file, n_items)
        provenance = {"source": "mmrec", "file": file.name}
        features[name] = RawFeatures(items, matrix, present, provenance)
        if missing := int((~present).sum()):
            remarks.append(f"{missing} of {n_items} rows of {file.name} are zero: taken as missing")
    time = moments(table.lazy(), "timestamp") if "timestamp" in columns else None
    if time is not None and time.remark:
        remarks.append(time.remark)
    interactions = table.lazy().select(
        user_id=pl.lit(users).gather(pl.col(USER)),
        item_id=pl.lit(items).gather(pl.col(ITEM)),
        **({"weight": pl.col("rating").cast(pl.Float32)} if "rating" in columns else {}),
        **({} if time is None else {"time": time.seconds.floor().cast(pl.Int64)}),
        split=pl.lit(pl.Series(PARTS)).gather(pl.col(LABEL)),
    )
    return RawData(
        name=Path(inter.name).stem,
        interactions=interactions,
        items=_item_table(folder, items, remarks),
        users=pl.DataFrame({"user_id": users}),
        features=features,
        info={
            "kind": "mmrec",
            "files": [Path(inter.name).name, *(p.name for p in matrices.values())],
        }
        | {"remarks": remarks},
    )


def _numbers(n: int) -> pl.Series:
    return pl.int_range(n, eager=True).cast(pl.Utf8)


def _inter_file(folder: Path) -> Path:
    if not folder.is_dir():
        expected = "a folder with a .inter file and its *_feat.npy files (MMRec layout)"
        got = f"{folder}, which {'is a file' if folder.is_file() else 'does not exist'}"
        raise DataError(expected, got, "check the path")
    found = sorted(folder.glob("*.inter"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found[:4]) or "none"
        raise DataError(
            f"exactly one .inter file in {folder}", names, "keep one data set in each folder"
        )
    return found[0]


def _check_numbers(inter: SourceTable, table: pl.DataFrame) -> None:
    """User and item numbers are not negative, labels are 0, 1 or 2, and there is a row."""
    if table.is_empty():
        raise DataError(
            f"interactions in {inter.name}", "column names and no rows", "check the file"
        )
    for name, low, high in ((USER, 0, None), (ITEM, 0, None), (LABEL, 0, 2)):
        wrong = table[name] < low if high is None else ~table[name].is_between(low, high)
        if wrong.any():
            row = int(wrong.arg_max() or 0)
            bound = "0 (train), 1 (valid) or 2 (test)" if high else "a number from 0 upward"
            raise inter.bad_cell(row, name, bound)


def _ids(path: Path, number: str) -> pl.Series | None:
    """Original ids in the order of their numbers, or None if there is no mapping file."""
    if not path.is_file():
        return None
    mapping = _tab_or_comma(path)
    columns = mapping.names
    if len(columns) < 2:
        expected = f"two columns, original id and number, in {path}, line 1"
        raise DataError(expected, repr(columns[0]), "separate them by a tab or a comma")
    place = next((c for c in (number, "row", "index") if c in columns), columns[1])
    name = next(c for c in columns if c != place)
    table = mapping.cells({name: pl.String, place: pl.Int64}).sort(place, maintain_order=True)
    if not (table[place] == pl.int_range(len(table), eager=True)).all():
        raise DataError(
            f"each number from 0 to {len(table) - 1} once in column {place!r} of {path}",
            f"numbers from {table[place].min()!r} to {table[place].max()!r} with gaps or repeats",
            "number the rows without gaps",
        )
    if table[name].n_unique() != len(table):
        twice = str(table[name].filter(table[name].is_duplicated())[0])
        raise DataError(f"each id once in {path}", f"{twice!r} twice", "remove the repetition")
    return table[name].alias("id")


def _count(
    inter: SourceTable,
    table: pl.DataFrame,
    column: str,
    ids: pl.Series | None,
    matrices: dict[str, Path],
) -> int:
    """Number of users or items: from the mapping, else the features, else the highest number."""
    numbers = table[column]
    highest = int(numbers.max()) + 1  # type: ignore[arg-type]
    if ids is not None:
        known, teller = len(ids), "the mapping file"
    elif matrices:
        first = next(iter(matrices.values()))
        known, teller = len(_open(first)), first.name
    else:
        return highest
    if highest > known:
        row = int((numbers >= known).arg_max() or 0)
        expected = f"{column} below {known}, as {teller} has {known} rows, in {inter.name}"
        got = f"{numbers[row]} in {inter.place(row)}"
        raise DataError(expected, got, f"use the {teller} and the .inter file of the same data set")
    return known


def _open(path: Path) -> np.ndarray:
    try:
        matrix: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        got = str(error).split("\n")[0]
        fix = "write it with numpy.save as float16, float32 or float64"
        raise DataError(f"a NumPy matrix of numbers in {path}", got, fix) from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        got = f"shape {matrix.shape} of {matrix.dtype}"
        fix = "write it with numpy.save as float16, float32 or float64"
        raise DataError(f"a matrix (items, width) of floating-point numbers in {path}", got, fix)
    return matrix


def _features(path: Path, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrix as float32, (n_items, d), and which rows are there, (n_items,)."""
    matrix = _open(path)
    if len(matrix) != n_items:
        fix = "use the feature file of the same data set"
        raise DataError(f"{n_items} rows, one per item, in {path}", f"{len(matrix)} rows", fix)
    features = np.asarray(matrix, dtype=np.float32)
    return features, np.asarray(features.any(axis=1), dtype=bool)


def _item_table(folder: Path, ids: pl.Series, remarks: list[str]) -> pl.DataFrame:
    """Ids in row order, joined with `items.csv` if it exists; adds notes on files not taken."""
    table = pl.DataFrame({"item_id": ids})
    path = folder / "items.csv"
    if not path.is_file():
        return table
    texts = ("item_id", "title", "description")
    items = _tab_or_comma(path, infer_except=texts)
    items.need(("item_id",))
    known = unique_ids(items, "item_id", "item")
    known = item_files.beside(known, folder, remarks)
    return table.join(known, on="item_id", how="left", maintain_order="left")


def _tab_or_comma(path: Path, infer_except: Sequence[str] | None = None) -> SourceTable:
    separator = "\t" if "\t" in physical_line(path) else ","
    quote: Quoting = "auto" if separator == "," else "none"
    return open_table(path, separator, quote=quote, infer_except=infer_except)
