"""A folder with train, valid and test files, whose split is kept as it is."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from modalign.data.raw import RawData
from modalign.data.sources._columns import find_columns, typed
from modalign.data.sources._text_table import SUFFIXES, open_table
from modalign.data.sources.flat_table import item_table
from modalign.errors import DataError

NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "testing"),
}


def read(
    folder: str | Path,
    user: str | None = None,
    item: str | None = None,
    weight: str | None = None,
    time: str | None = None,
    separator: str | None = None,
    items: str | Path | None = None,
    images: str | Path | None = None,
    name: str | None = None,
) -> RawData:
    """Interactions of `train`, `valid` (or validation, val, dev) and `test` files of a folder.

    Each is a CSV, TSV or Parquet file with named columns, as in
    `modalign.data.sources.flat_table.read`.

    Args:
        folder: the folder.
        user: name of the column of users; None recognises it by common names.
        item: name of the column of items, as for users.
        weight: name of the column of ratings, as for users.
        time: name of the column of times, as for users.
        separator: between the fields of a text file; None finds it in the first line.
        items: table of items; None takes a file called `items` in the folder, if there is one.
        images: folder of pictures named by item id; None takes a folder called `images` in the
            folder, if there is one.
        name: short name of the data; None takes the name of the folder.

    Raises:
        DataError: a part is missing or exists twice, or a file is invalid.
    """
    folder = Path(folder)
    if not folder.is_dir():
        got = f"{folder}, which is a file" if folder.exists() else f"{folder}, which does not exist"
        raise DataError("a folder with train, valid and test files", got, "check the path")
    files = {part: _one(folder, part) for part in NAMES}
    frames, remarks, used = [], [], {}
    for part, path in files.items():
        table = open_table(path, separator)
        given = {"user": user, "item": item, "weight": weight, "time": time}
        columns = find_columns(table, given)  # type: ignore[arg-type]
        used[part] = set(columns.used())
        interactions, told = typed(table, columns)
        frames.append(interactions.with_columns(split=pl.lit(part)))
        remarks += [f"{path.name}: {one}" for one in told]
    everywhere = set.intersection(*used.values())
    for column in sorted(set.union(*used.values()) - everywhere):
        remarks.append(f"{column} is not in all three files and was dropped")
    keep = ["user_id", "item_id", *(c for c in ("weight", "time") if c in everywhere), "split"]
    item_file = items or next(iter(_candidates(folder, ("items",))), None)
    pictures = images or (folder / "images" if (folder / "images").is_dir() else None)
    return RawData(
        name=name or folder.resolve().name,
        interactions=pl.concat([frame.select(keep) for frame in frames]),
        items=item_table(item_file, pictures),
        info={
            "source": "split",
            "files": [str(path) for path in files.values()],
            "remarks": remarks,
        },
    )


def _candidates(folder: Path, stems: tuple[str, ...]) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and p.stem.lower() in stems and p.suffix.lower() in SUFFIXES
    )


def _one(folder: Path, part: str) -> Path:
    found = _candidates(folder, NAMES[part])
    if len(found) == 1:
        return found[0]
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    wanted = " or ".join(f"{stem}.csv" for stem in NAMES[part])
    if found:
        got = f"{len(found)}: {', '.join(p.name for p in found)}"
        raise DataError(f"one {part} file in {folder}", got, "keep one of them in the folder")
    raise DataError(
        f"a {part} file ({wanted}, .tsv, .parquet) in {folder}",
        there,
        "add the file, or import one table and let modalign split it: `modalign data import table`",
    )
