"""A folder with train, valid and test files, whose split is kept as it is."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from modalign.data.raw import RawData
from modalign.data.sources import _flat
from modalign.data.sources.table import item_table
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
    `modalign.data.sources.table.read`, which also explains the options. A file called `items`
    and a folder called `images` beside them are used where no other is named.

    Raises:
        DataError: a part is missing or there twice, or a file is not what it should be.
    """
    folder = Path(folder)
    if not folder.is_dir():
        got = f"{folder}, which is a file" if folder.exists() else f"{folder}, which does not exist"
        raise DataError("a folder with train, valid and test files", got, "check the path")
    files = {part: _one(folder, part) for part in NAMES}
    frames, remarks, used = [], [], {}
    for part, path in files.items():
        frame, origin = _flat.scan(path, separator)
        columns = _flat.find_columns(
            _flat.names_of(frame, origin),
            {"user": user, "item": item, "weight": weight, "time": time},
            origin,
        )
        used[part] = {k for k, v in vars(columns).items() if v is not None}
        typed, told = _flat.typed(frame, columns, origin)
        frames.append(typed.with_columns(split=pl.lit(part)))
        remarks += [f"{path.name}: {one}" for one in told]
    everywhere = set.intersection(*used.values())
    for column in sorted(set.union(*used.values()) - everywhere):
        remarks.append(f"{column} is not in all three files and is left out")
    keep = ["user_id", "item_id", *(c for c in ("weight", "time") if c in everywhere), "split"]
    table = items or next(iter(_candidates(folder, ("items",))), None)
    pictures = images or (folder / "images" if (folder / "images").is_dir() else None)
    return RawData(
        name=name or folder.resolve().name,
        interactions=pl.concat([frame.select(keep) for frame in frames]),
        items=item_table(table, pictures),
        info={
            "source": "split",
            "files": [str(path) for path in files.values()],
            "remarks": remarks,
        },
        image_root=Path(pictures).resolve() if pictures is not None else None,
    )


def _candidates(folder: Path, stems: tuple[str, ...]) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and p.stem.lower() in stems and p.suffix.lower() in _flat.SUFFIXES
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
        f"{there}",
        "add the file, or import one table and let modalign split it: `data import table`",
    )
