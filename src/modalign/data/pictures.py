"""Item pictures: placed into a data folder under names made of item ids."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import polars as pl

Placing = Literal["copy", "link"]


def find(folder: Path) -> pl.DataFrame:
    """Picture files of a folder named by item id: columns item_id and image (absolute path)."""
    kinds = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in kinds and p.is_file())
    table = pl.DataFrame(
        {"item_id": [p.stem for p in files], "image": [str(p.resolve()) for p in files]},
        schema={"item_id": pl.String, "image": pl.String},
    )
    return table.unique("item_id", keep="first", maintain_order=True)


def existing(items: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The item table with absolute picture paths, null where there is no such file.

    Returns:
        The table, and how many pictures were named but are not there.
    """
    if "image" not in items.columns:
        return items, 0
    paths = items["image"].to_list()
    there = [p if p is not None and Path(p).is_file() else None for p in paths]
    missing = sum(p is not None and t is None for p, t in zip(paths, there, strict=True))
    full = pl.Series("image", [str(Path(p).resolve()) if p else None for p in there], pl.String)
    return items.with_columns(full), missing


def under(items: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """The item table with picture paths relative to `folder` made absolute."""
    if "image" not in items.columns:
        return items
    root = folder.resolve()
    full = [None if p is None else str(root / p) for p in items["image"]]
    return items.with_columns(pl.Series("image", full, pl.String))


def place(items: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Put the pictures into `folder/images` and name them relative to `folder`.

    A hard link is made where the file system allows it, which costs no space, else a copy.
    """
    if "image" not in items.columns or items["image"].null_count() == len(items):
        return items
    target = folder / "images"
    target.mkdir(parents=True, exist_ok=True)
    names: list[str | None] = []
    for item_id, path in items.select("item_id", "image").iter_rows():
        if path is None:
            names.append(None)
            continue
        name = quote(item_id, safe=" ()[]'") + Path(path).suffix.lower()
        _link(Path(path), target / name)
        names.append(f"images/{name}")
    return items.with_columns(pl.Series("image", names, pl.String))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
