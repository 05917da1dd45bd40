"""Files of items: pictures, sounds and videos, found by item id and stored in a data folder.

A file is taken only if it lies in the folder that the user named, after symbolic links and `..` are
resolved, and everything that is not taken is counted by reason.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Literal, TypeVar

import polars as pl

from modalign.data import pictures

T = TypeVar("T", pl.DataFrame, pl.DataFrame | None)
Placing = Literal["copy", "link"]
FileKind = Literal["image", "audio", "video"]

SUFFIXES: dict[FileKind, frozenset[str]] = {
    "image": frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"}),
    "audio": frozenset(
        {".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff"}
    ),
    "video": frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"}),
}
"""Endings of the files of each kind, in small letters."""
STORED: dict[FileKind, str] = {"image": "images", "audio": "audio", "video": "video"}
"""Sub-folder of a data folder with the files of each kind."""
KINDS = tuple(SUFFIXES)
WORDS: dict[FileKind, str] = {"image": "pictures", "audio": "sounds", "video": "videos"}
_EXAMPLES = 3


class Refused:
    """Files that were not taken, counted by reason.

    Example:
        >>> refused = Refused("image")
        >>> refused.add("ends in .txt", "notes.txt")
        >>> refused.remarks()
        ['1 of the pictures not taken: ends in .txt (notes.txt)']
    """

    def __init__(self, kind: FileKind) -> None:
        self.kind = kind
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Count one file; the first names of each reason are kept."""
        self._counts[reason] += 1
        if len(shown := self._examples.setdefault(reason, [])) < _EXAMPLES:
            shown.append(name if len(name) <= 60 else f"{name[:57]}...")

    def remarks(self) -> list[str]:
        """One note for each reason, the most frequent first."""
        return [
            f"{count} of the {WORDS[self.kind]} not taken: {reason} "
            f"({', '.join(self._examples[reason])}{', ...' if count > _EXAMPLES else ''})"
            for reason, count in self._counts.most_common()
        ]


def find(folder: Path, kind: FileKind = "image", remarks: list[str] | None = None) -> pl.DataFrame:
    """Files of a folder and its sub-folders that are named by item id, such as `010/0108.jpg`.

    Args:
        folder: where to look; symbolic links that lead out of it are not followed.
        kind: the kind of files.
        remarks: gets a note on what was not taken, by reason.

    Returns:
        Columns item_id and the kind (absolute path); of several files of one item the first.
    """
    root = folder.resolve()
    refused = Refused(kind)
    found: dict[str, str] = {}
    for above, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = Path(above) / name
            shown = str(path.relative_to(root))
            ending = path.suffix.lower()
            if name.startswith("."):
                refused.add("hidden files", shown)
            elif ending not in SUFFIXES[kind]:
                refused.add(f"ends in {ending}" if ending else "without an ending", shown)
            elif (why := _outside(path, root)) is not None:
                refused.add(why, shown)
            elif path.stem in found:
                refused.add("another file of the same item", shown)
            else:
                found[path.stem] = str(path.resolve())
        for name in folders:
            if (Path(above) / name).is_symlink():
                refused.add("symbolic links to folders", name)
    if remarks is not None:
        remarks += refused.remarks()
    return pl.DataFrame(
        {"item_id": list(found), kind: list(found.values())},
        schema={"item_id": pl.String, kind: pl.String},
    )


def _outside(path: Path, root: Path | None) -> str | None:
    """Why a path may not be taken from below a folder; None if it may."""
    try:
        whole = path.resolve()
        if root is not None and not whole.is_relative_to(root):
            return "outside of the folder"
        return None if whole.is_file() else "no such file"
    except (OSError, ValueError, RuntimeError):  # too long a name, a NUL byte, links in a circle
        return "no such file"


def within(
    names: pl.Series, folder: Path | None, kind: FileKind, remarks: list[str] | None = None
) -> pl.Series:
    """Paths of a column of the items' table made absolute; null where they may not be read.

    Args:
        names: paths, relative to `folder` or absolute.
        folder: the folder of the table, which no path may leave; None for a data frame, whose
            paths may lead anywhere.
        kind: the kind of files.
        remarks: gets a note on what was not taken, by reason.

    Example:
        >>> remarks = []
        >>> within(pl.Series("image", ["../secret.png"]), Path(), "image", remarks).to_list()
        [None]
        >>> remarks
        ['1 of the pictures not taken: outside of the folder (../secret.png)']
    """
    root = None if folder is None else folder.resolve()
    base = root or Path.cwd()
    refused = Refused(kind)
    paths: list[str | None] = []
    for name in names.cast(pl.String).str.strip_chars():
        path = None
        if name:
            if name.lower().startswith(("http://", "https://", "data:")):
                refused.add("an address of the web, which is not fetched", name)
            elif (why := _outside(base / name, root)) is not None:
                refused.add(why, name)
            else:
                path = str((base / name).resolve())
        paths.append(path)
    if remarks is not None:
        remarks += refused.remarks()
    return pl.Series(names.name, paths, pl.String)


def beside(items: T, folder: Path, remarks: list[str]) -> T:
    """A table of items of a folder with the paths of its files made absolute, see `within`.

    Args:
        items: the table, or None.
        folder: where the table lies, which no path may leave.
        remarks: gets a note on what was not taken.
    """
    if items is None:
        return items
    for kind in KINDS:
        if kind in items.columns:
            items = items.with_columns(within(items[kind], folder, kind, remarks))
    return items


def existing(items: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """The item table with absolute paths of files, null where there is none that can be taken.

    Pictures are checked by their content: only the formats of `pictures.FORMATS` are taken.

    Returns:
        The table, and notes on what was not taken, by reason.
    """
    remarks: list[str] = []
    for kind in KINDS:
        if kind not in items.columns:
            continue
        refused = Refused(kind)
        paths: list[str | None] = []
        for item_id, name in items.select("item_id", pl.col(kind).cast(pl.String)).iter_rows():
            why = None if name is None else _unusable(Path(name), kind)
            if why is not None:
                refused.add(why, item_id)
            paths.append(None if name is None or why else str(Path(name).resolve()))
        items = items.with_columns(pl.Series(kind, paths, pl.String))
        remarks += refused.remarks()
    return items, remarks


def _unusable(path: Path, kind: FileKind) -> str | None:
    try:
        if not path.is_file():
            return "no such file"
    except (OSError, ValueError):
        return "no such file"
    return pictures.refusal(path) if kind == "image" else None


def under(items: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """The item table with paths of files relative to `folder` made absolute."""
    root = folder.resolve()
    for kind in KINDS:
        if kind in items.columns:
            full = [None if p is None else str(root / p) for p in items[kind]]
            items = items.with_columns(pl.Series(kind, full, pl.String))
    return items


def stored(folder: Path, name: str | None) -> Path | None:
    """The path of a file that the item table of a data folder names, or None.

    A relative path that leads out of the data folder is not followed; an absolute one is what
    `--link-images` has stored.
    """
    if not name:
        return None
    path = folder / name
    if Path(name).is_absolute():
        return path
    return path if path.resolve().is_relative_to(folder.resolve()) else None


def place(items: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Copy the files into `folder/images` and so on, and make their paths relative to `folder`.

    A file is named by the hash of the item's id, so that ids of any length and script have one,
    and ids that differ only in case have two.
    """
    for kind in KINDS:
        if kind not in items.columns or items[kind].null_count() == len(items):
            continue
        target = folder / STORED[kind]
        target.mkdir(parents=True, exist_ok=True)
        names: list[str | None] = []
        for item_id, path in items.select("item_id", kind).iter_rows():
            if path is None:
                names.append(None)
                continue
            ending = Path(path).suffix.lower()
            name = hashlib.sha256(item_id.encode()).hexdigest()[:32]
            name += ending if ending in SUFFIXES[kind] else ""
            shutil.copyfile(path, target / name)
            names.append(f"{STORED[kind]}/{name}")
        items = items.with_columns(pl.Series(kind, names, pl.String))
    return items
