"""Large text files, plain or gzipped, in pieces of whole lines, so that memory stays small."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from modalign.errors import DataError

CHUNK = 16 << 20


def open_bytes(path: Path) -> BinaryIO:
    """Open for reading, decompressed where the file begins with gzip's two bytes.

    The content decides and not the name: browsers and mirrors unpack or rename such files.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if zipped else path.open("rb")


def chunks(path: Path, size: int = CHUNK) -> Iterator[tuple[int, bytes]]:
    """Pieces of whole lines with the number of each one's first line, from 1.

    Args:
        path: the file.
        size: bytes to read at a time, after decompression.

    Raises:
        DataError: the file cannot be read, or its gzip stream is broken; the line up to which
            it was whole is named.
    """
    line, rest = 1, b""
    try:
        with open_bytes(path) as file:
            while block := file.read(size):
                cut = block.rfind(b"\n") + 1
                if not cut:
                    rest += block
                    continue
                piece, rest = rest + block[:cut], block[cut:]
                yield line, piece
                line += piece.count(b"\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"a whole gzip file {path}",
            f"a stream that breaks off after line {line - 1} or later: {error}",
            "download the file again",
        ) from error
    except OSError as error:
        raise DataError(
            f"a readable file {path.name}", f"{path}: {error.strerror}", "check path and rights"
        ) from error
    if rest:
        yield line, rest


def first_line(path: Path) -> bytes:
    """The first line that is not blank.

    Raises:
        DataError: there is none, or the file cannot be read.
    """
    for _, piece in chunks(path, 1 << 16):
        if text := piece.strip():
            return text.split(b"\n")[0].strip()
    raise DataError(f"lines of data in {path}", "an empty file", "download the file again")
