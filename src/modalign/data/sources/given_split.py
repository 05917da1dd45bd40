"""A folder with train, valid and test files, whose split is kept as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from modalign.core import settings
from modalign.data.raw import RawData
from modalign.data.sources._columns import find_columns, typed
from modalign.data.sources._text_table import PACKED, SUFFIXES, table_of
from modalign.data.sources._types import decimals
from modalign.data.sources.flat_table import TableOptions, item_table
from modalign.errors import DataError

NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "testing"),
}


def read(folder: str | Path, **options: Any) -> RawData:
    """Interactions of `train`, `valid` (or validation, val, dev) and `test` files of a folder.

    Each is a CSV, TSV, JSON-lines or Parquet file, as in `modalign.data.sources.flat_table.read`.

    Args:
        folder: the folder.
        options: fields of `TableOptions`. Without `items` a file called `items` in the folder is
            taken if it is there, without `images` a folder `images`, and so on for `audio`
            and `video`.

    Raises:
        DataError: a part is missing or exists twice, or a file is invalid.
        ConfigError: an option is unknown or of the wrong type.
    """
    chosen = settings.build(TableOptions, options, "the source 'split'")
    folder = Path(folder)
    if not folder.is_dir():
        got = f"{folder}, which is a file" if folder.exists() else f"{folder}, which does not exist"
        raise DataError("a folder with train, valid and test files", got, "check the path")
    files = {part: _one(folder, part) for part in NAMES}
    frames, remarks, used, bad = [], [], {}, []
    rules = chosen.rules()
    for part, path in files.items():
        table = table_of(path, chosen.text())
        columns = find_columns(table, chosen.given())
        used[part] = set(columns.used())
        rows = typed(decimals(table, columns.weight, chosen.decimal), columns, rules)
        # One unit for all files: train, the largest, shows it.
        rules = replace(rules, time_unit=rules.time_unit or rows.time_unit)
        frames.append(rows.frame.with_columns(split=pl.lit(part)))
        remarks += [f"{path.name}: {one}" for one in rows.remarks]
        bad += [] if rows.bad is None else [rows.bad]
    everywhere = set.intersection(*used.values())
    for column in sorted(set.union(*used.values()) - everywhere):
        remarks.append(f"{column} is not in all three files and was dropped")
    keep = ["user_id", "item_id", *(c for c in ("weight", "time") if c in everywhere), "split"]
    item_file = chosen.items or next(iter(_candidates(folder, ("items",))), None)
    return RawData(
        name=chosen.name or folder.resolve().name,
        interactions=pl.concat([frame.select(keep) for frame in frames]),
        items=item_table(
            item_file,
            chosen.folders(folder),
            chosen.encoding,
            remarks,
            decimal=chosen.decimal,
            key=columns.item,
        ),
        bad=pl.concat(bad, how="diagonal") if bad else None,
        info={
            "source": "split",
            "files": [str(path) for path in files.values()],
            **columns.described(table.names),
            "remarks": remarks,
        },
    )


def _candidates(folder: Path, stems: tuple[str, ...]) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and _stem(p) in stems and p.suffix.lower() in SUFFIXES
    )


def _stem(path: Path) -> str:
    return (Path(path.stem).stem if path.suffix.lower() in PACKED else path.stem).lower()


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
