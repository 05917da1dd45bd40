"""Text files as bytes and lines: plain or gzipped, UTF-8 or Latin-1, and JSON line by line."""

from __future__ import annotations

import ast
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from modalign.errors import DataError

CHUNK = 16 << 20


def open_bytes(path: Path) -> BinaryIO:
    """A file opened for reading, decompressed if it starts with the two bytes of gzip.

    The content decides, not the name: browsers and mirrors unpack or rename such files.

    Raises:
        DataError: the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        return cast(BinaryIO, gzip.open(path, "rb")) if zipped else path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error


def chunks(path: Path, size: int = CHUNK) -> Iterator[tuple[int, bytes]]:
    """Pieces of whole lines, each with the number of its first line, from 1.

    Args:
        path: the file.
        size: bytes to read at a time, after decompression.

    Raises:
        DataError: the file cannot be read, or its gzip stream is broken; the message names a
            line up to which it is complete.
    """
    line, rest = 1, b""
    with open_bytes(path) as file:
        try:
            while block := file.read(size):
                cut = block.rfind(b"\n") + 1
                if not cut:
                    rest += block
                    continue
                piece, rest = rest + block[:cut], block[cut:]
                yield line, piece
                line += piece.count(b"\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            got = f"a stream that breaks off after line {line - 1} or later: {error}"
            fix = "download the file again"
            raise DataError(f"a complete gzip file {path}", got, fix) from error
        except OSError as error:
            raise _unreadable(path, error) from error
    if rest:
        yield line, rest


def first_line(path: Path) -> str:
    """The first line that is not blank, without white space around it; "" if there is none.

    Raises:
        DataError: the file cannot be read.
    """
    for _, piece in chunks(path, 1 << 16):
        if text := piece.strip():
            return text.split(b"\n")[0].decode("utf-8-sig", "replace").rstrip("\r")
    return ""


def whole(path: Path) -> bytes:
    """The content of a file, decompressed.

    Raises:
        DataError: the file cannot be read.
    """
    return b"".join(piece for _, piece in chunks(path))


def decoded(path: Path) -> str:
    r"""The whole file as text: UTF-8, or Latin-1 if it is not valid UTF-8; `\r\n` becomes `\n`.

    Raises:
        DataError: the file cannot be read.
    """
    raw = whole(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n")


def read_lines(path: Path) -> list[str]:
    r"""Lines of a text file, split at `\n` only, without blank lines at the end.

    `str.splitlines` would also split at characters such as U+0085, which old files contain.
    """
    return decoded(path).rstrip("\n").split("\n")


def parse_json(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """One line as a dictionary: JSON, or a Python literal as in the Amazon metadata of 2014.

    Args:
        path: the file, for messages.
        number: of the line, from 1.
        line: its text.

    Raises:
        DataError: it is neither; file and line are named.
    """
    try:
        record = json.loads(line)
    except ValueError as wrong:
        try:
            record = ast.literal_eval(line.decode("utf-8", "replace").strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise DataError(
                f"a JSON object in each line of {path}",
                f"line {number}, {line[:60].decode('utf-8', 'replace')!r}: {wrong}",
                "correct or remove that line",
            ) from error
    if not isinstance(record, dict):
        got = f"a {type(record).__name__} in line {number}"
        raise DataError(f"a JSON object in each line of {path}", got, "correct or remove that line")
    return record


def json_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and content of each line of a JSON-lines file that is not blank.

    Raises:
        DataError: a line is not a JSON object, or the file cannot be read.
    """
    for first, piece in chunks(path):
        yield from parsed(path, first, piece)


def parsed(path: Path, first: int, piece: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and content of each line of a piece that is not blank.

    Args:
        path: the file, for messages.
        first: number of the first line of the piece, from 1.
        piece: whole lines of the file.

    Raises:
        DataError: a line is not a JSON object.
    """
    for number, line in enumerate(piece.split(b"\n"), first):
        if line.strip():
            yield number, parse_json(path, number, line)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"a readable file {path.name}", f"{path}: {error.strerror}", "check path and permissions"
    )
