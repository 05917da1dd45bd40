"""Pictures of items: found by item id, decoded, and stored in a data folder."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import quote

import polars as pl
from PIL import Image, ImageOps, UnidentifiedImageError

Placing = Literal["copy", "link"]
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}


class UnreadablePicture(Exception):
    """A picture cannot be decoded; the message says why."""


def decoded(
    source: str | Path | BinaryIO | Image.Image,
    *,
    near: tuple[int, int] | None = None,
    upright: bool = False,
) -> Image.Image:
    """A picture in RGB; transparent parts become white.

    Args:
        source: path, open file, or a PIL image.
        near: decode a JPEG faster, at a size of at least these pixels where possible; None decodes
            all pixels.
        upright: rotate it as its EXIF data say.

    Raises:
        UnreadablePicture: there is no file, or it is not a picture, broken, or far too large.
    """
    if isinstance(source, Image.Image):
        return _rgb(source)
    try:
        with warnings.catch_warnings():
            # Warnings about damaged headers are dropped; a decompression bomb is not opened.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source) as picture:
                if near is not None:
                    picture.draft("RGB", near)
                return _rgb(ImageOps.exif_transpose(picture) if upright else picture)
    except FileNotFoundError as error:
        raise UnreadablePicture("no such file") from error
    except UnidentifiedImageError as error:
        raise UnreadablePicture("not a picture") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadablePicture("far too many pixels") from error
    # For a damaged file, the readers of single formats raise any of these.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadablePicture(f"broken picture: {error}") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if "A" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def find(folder: Path) -> pl.DataFrame:
    """Picture files of a folder named by item id: columns item_id and image (absolute path)."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    table = pl.DataFrame(
        {"item_id": [p.stem for p in files], "image": [str(p.resolve()) for p in files]},
        schema={"item_id": pl.String, "image": pl.String},
    )
    return table.unique("item_id", keep="first", maintain_order=True)


def existing(items: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The item table with absolute picture paths, null if there is no such file.

    Returns:
        The table, and the number of pictures that are named but do not exist.
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
    """Store the pictures in `folder/images` and make their paths relative to `folder`.

    They are hard links, which need no space, if the file system allows it, otherwise copies.
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
