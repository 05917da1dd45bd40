"""Decoding of pictures that came from anywhere: few formats, bounded size, upright, in RGB."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""The formats that are opened, found by a file's content. Of all that Pillow knows, some hand the
file to other programs, as PostScript does."""
MAX_PIXELS = 50_000_000
"""Maximum number of pixels of a picture; decoding one needs about 16 bytes for each."""

READING = 2
"""Version of how pictures are read; features of another version are not reused."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its orientation in the EXIF data."""
# For damaged files, the readers of single formats raise any of these.
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError,
    RuntimeError, struct.error,
)  # fmt: skip


class UnreadablePicture(Exception):
    """A picture cannot be decoded; the message says why."""


def decoded(
    source: str | Path | BinaryIO | Image.Image, *, near: tuple[int, int] | None = None
) -> Image.Image:
    """A picture in RGB, rotated as its EXIF data say; transparent parts become white.

    Grey pictures of 16 bits are scaled to 8. Of an animation the first picture is taken.

    Args:
        source: path, open file, or a PIL image.
        near: decode a JPEG faster, at a size of at least these pixels where possible; None decodes
            all pixels.

    Raises:
        UnreadablePicture: there is no file, or it is not a picture of a known format, broken, or
            larger than `MAX_PIXELS`.
    """
    if isinstance(source, Image.Image):
        return _rgb(source)
    with _opened(source) as picture:
        if near is not None:
            picture.draft("RGB", near)
        picture.load()
        return _rgb(_upright(picture))


def refusal(path: Path) -> str | None:
    """Why a file is not a picture that `decoded` opens, by its first bytes; None if it is."""
    try:
        with _opened(path):
            return None
    except UnreadablePicture as error:
        return str(error)


@contextmanager
def _opened(source: str | Path | BinaryIO) -> Iterator[Image.Image]:
    """An open picture of which only the header has been read.

    Raises:
        UnreadablePicture: see `decoded`; errors within the block count as well.
    """
    # Other than regular files, such as pipes, would be waited for.
    if isinstance(source, str | Path) and not Path(source).is_file():
        raise UnreadablePicture("no such file")
    try:
        with warnings.catch_warnings():
            # Warnings about damaged headers are dropped; a decompression bomb is not opened.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise UnreadablePicture(f"more than {MAX_PIXELS:,} pixels")
                yield picture
    except UnidentifiedImageError as error:
        raise UnreadablePicture(
            f"not a picture of {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadablePicture(f"more than {MAX_PIXELS:,} pixels") from error
    except _BROKEN as error:
        raise UnreadablePicture(f"broken picture: {error}") from error


def _upright(picture: Image.Image) -> Image.Image:
    try:
        method = _UPRIGHT.get(picture.getexif().get(_ORIENTATION, 1))
    except _BROKEN:  # damaged EXIF data say nothing
        return picture
    return picture if method is None else picture.transpose(method)


def _rgb(picture: Image.Image) -> Image.Image:
    clear = picture.info.get("transparency")
    if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
        return _eight_bits(picture, clear).convert("RGB")
    if "A" in picture.getbands() or clear is not None:
        layer = picture.convert("RGBA")
        white = Image.new("RGB", layer.size, "white")
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image, clear: Any) -> Image.Image:
    """A grey picture of 16 or more bits scaled to 8; Pillow's own conversion cuts it off at 255."""
    values = np.asarray(picture)
    if picture.mode == "F" or values.max(initial=0) > 0xFFFF or values.min(initial=0) < 0:
        low, high = np.float64(values.min()), np.float64(values.max())
        scaled = (values - low) * (255 / max(high - low, 1e-12))
    else:
        scaled = values / 257
    eight = np.rint(scaled).astype(np.uint8)
    if isinstance(clear, int):
        eight[values == clear] = 255
    return Image.fromarray(eight)
