"""Text files as bytes and lines: plain or compressed, in any encoding, and JSON line by line."""

from __future__ import annotations

import ast
import bz2
import codecs
import gzip
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from modalign.errors import DataError

CHUNK = 16 << 20
SAMPLE = 1 << 16
"""Bytes at the start of a file that show how it is written."""

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
)
_OTHERS = (
    (b"PK\x05\x06", "an empty zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel workbook"),
    (b"ARROW1\0\0", "an Arrow or Feather file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"Obj\x01", "an Avro file"),
    (b"%PDF-", "a PDF document"),
    (b"\x80\x04\x95", "a pickle of Python"),
    (b"\x80\x05\x95", "a pickle of Python"),
    (b"version https://git-lfs", "a pointer of Git LFS in place of the file"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML document"),
)
"""How files start that are no tables; letters in lower case."""
_TAR = slice(257, 262)
"""Where a tar archive says that it is one."""
COMMON = ("cp1252", "cp1251", "gb18030", "shift_jis", "euc_kr", "big5", "cp1253")
"""Encodings of old files, the most common one first, that a guess is made of."""
BROKEN = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""What the readers of compressed files raise for one that is cut or damaged."""


def compression(path: Path) -> str | None:
    """gzip, bz2, xz, zstd or zip, by the first bytes of a file; None for any other file.

    The content decides, not the name: browsers and mirrors unpack or rename such files.

    Raises:
        DataError: the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise _unreadable(path, error) from error
    return next((name for magic, name in _MAGIC if start.startswith(magic)), None)


def open_bytes(path: Path) -> BinaryIO:
    """A file opened for reading, decompressed if it is compressed (see `compression`).

    Raises:
        DataError: the file cannot be opened, or a zip archive holds no file or several.
    """
    kind = compression(path)
    try:
        if kind == "gzip":
            return cast(BinaryIO, gzip.open(path, "rb"))
        if kind == "bz2":
            return cast(BinaryIO, bz2.open(path, "rb"))
        if kind == "xz":
            return cast(BinaryIO, lzma.open(path, "rb"))
        if kind == "zstd":
            return cast(BinaryIO, io.BufferedReader(_zstd(path)))
        if kind == "zip":
            return _only_member(path)
        return path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error


def _zstd(path: Path) -> io.RawIOBase:
    import pyarrow as pa

    return cast(io.RawIOBase, pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))


def _only_member(path: Path) -> BinaryIO:
    """The one file of a zip archive; what a Mac adds beside it does not count."""
    fix = "unpack the archive and name one file"
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        got = f"{path}, which is cut or damaged: {error}"
        raise DataError("a complete zip archive", got, "download the file again") from error
    names = [
        one.filename
        for one in archive.infolist()
        if not one.is_dir() and not one.filename.startswith("__MACOSX/")
    ]
    if any(name.startswith("xl/") or name == "content.xml" for name in names):
        got = f"{path}, which is a workbook of a spreadsheet program"
        raise DataError("a table as text", got, "save the sheet as CSV in UTF-8, or as Parquet")
    if len(names) != 1:
        some = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise DataError(f"one file in the archive {path}", f"{len(names)}: {some}", fix)
    try:
        return cast(BinaryIO, archive.open(names[0]))
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unknown method
        raise DataError(f"a zip archive without a password: {path}", str(error), fix) from error


@contextmanager
def complete(path: Path) -> Iterator[None]:
    """Turn what a reader raises for a file that is cut, damaged or unreadable into a DataError.

    Raises:
        DataError: it is.
    """
    try:
        yield
    except (*BROKEN, OSError) as error:
        kind = compression(path)
        if kind is None:
            raise _unreadable(path, error) from error
        fix = "download the file again"
        raise DataError(f"a complete {kind} file {path}", str(error), fix) from error


def chunks(path: Path, size: int = CHUNK) -> Iterator[tuple[int, bytes]]:
    """Pieces of whole lines, each with the number of its first line, from 1.

    Args:
        path: the file.
        size: bytes to read at a time, after decompression.

    Raises:
        DataError: the file cannot be read, or its compressed stream is broken; the message names
            a line up to which it is complete.
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
        except (*BROKEN, OSError) as error:
            kind = compression(path)
            if kind is None:
                raise _unreadable(path, error) from error
            got = f"a stream that breaks off after line {line - 1} or later: {error}"
            fix = "download the file again"
            raise DataError(f"a complete {kind} file {path}", got, fix) from error
    if rest:
        yield line, rest


def in_utf8(path: Path, encoding: str | None = None) -> bytes | None:
    r"""The content of a file that is not UTF-8, as UTF-8; None where it needs no change.

    Args:
        path: the file.
        encoding: its encoding; None reads UTF-16 where the file starts with its mark, and
            leaves all other files as they are.

    Raises:
        DataError: no such encoding, or the file is not of that encoding; the line is named.
    """
    if encoding is None:
        with complete(path), open_bytes(path) as file:
            start = file.read(SAMPLE)
        _refuse_others(path, start)
        found = _marked(start)
        if found is None:
            _refuse_nul(path, start)
            return None
        encoding = found
    try:
        name = codecs.lookup(encoding).name
    except LookupError as error:
        fix = "use the name that Python gives it, such as utf-8, utf-16, cp1252 or gb18030"
        raise DataError("the name of an encoding", repr(encoding), fix) from error
    raw = whole(path)
    try:
        text = raw.decode("utf-8-sig" if name == "utf-8" else name)
    except UnicodeDecodeError as error:
        wrong = not_encoded(path, raw, name, error)
        with suppress(UnicodeDecodeError):
            raw.decode()
            wrong = DataError(wrong.expected, wrong.got, "leave out --encoding: the file is UTF-8")
        raise wrong from error
    return text.encode()


def _marked(start: bytes) -> str | None:
    """UTF-16 or UTF-32 where a text starts with its mark."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else None


def _refuse_others(path: Path, start: bytes) -> None:
    """Refuse a file of a known format that is no table, by how it starts.

    Raises:
        DataError: it is one.
    """
    head = start[:64].lstrip(b"\xef\xbb\xbf \t\r\n") if start[:1] != b"\0" else start
    found = (n for magic, n in _OTHERS if start.startswith(magic) or head.lower().startswith(magic))
    name = "a tar archive" if start[_TAR] == b"ustar" else next(found, None)
    if name is None:
        return
    if "archive" in name:
        fix = "unpack it and name one file"
    elif "page" in name or "LFS" in name:
        fix = "download the file itself"
    else:
        fix = "write the table as CSV in UTF-8, or as Parquet"
    raise DataError("a table as text, JSON lines or Parquet", f"{path}, which is {name}", fix)


def _refuse_nul(path: Path, start: bytes) -> None:
    """Refuse a file whose first bytes hold zeros, which no text in UTF-8 does.

    Raises:
        DataError: they do; UTF-16 without its mark is guessed from where the zeros are.
    """
    if b"\0" not in start:
        return
    odd, even = start[1::2].count(0), start[::2].count(0)
    guess = "utf-16-le" if odd > even else "utf-16-be"
    fix = (
        f"try --encoding {guess}"
        if 3 * max(odd, even) > len(start) // 2
        else "check that the right file was given"
    )
    line = start.count(b"\n", 0, start.index(b"\0")) + 1
    raise DataError(f"text in UTF-8 in {path}", f"a byte of zero in line {line}", fix)


def not_encoded(path: Path, raw: bytes, name: str, error: UnicodeDecodeError) -> DataError:
    """The error for bytes that are not text of an encoding, with the line and a guess.

    Args:
        path: the file, for the message.
        raw: its content.
        name: of the encoding.
        error: what decoding it said.
    """
    from charset_normalizer import from_bytes

    line = raw.count(b"\n", 0, error.start) + 1
    got = f"bytes {raw[error.start : error.start + 4].hex(' ')} in line {line}"
    around = raw[max(error.start - 20_000, 0) : error.start + 20_000]
    best = from_bytes(around, cp_isolation=list(COMMON)).best()
    guess = f"--encoding {COMMON[0] if best is None else best.encoding}"
    return DataError(f"text in {name} in {path}", got, f"save the file as UTF-8, or try {guess}")


def check_utf8(path: Path) -> None:
    """Raise the error for the first bytes of a file that are not UTF-8; nothing if all are.

    Raises:
        DataError: the line, and a guess at the encoding.
    """
    for number, piece in chunks(path):
        try:
            piece.decode()
        except UnicodeDecodeError as error:
            raise not_encoded(
                path, b"\n" * (number - 1) + piece, "utf-8", _later(error, number)
            ) from error


def _later(error: UnicodeDecodeError, number: int) -> UnicodeDecodeError:
    shift = number - 1
    return UnicodeDecodeError(
        error.encoding, error.object, error.start + shift, error.end + shift, error.reason
    )


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


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(
        f"a readable file {path.name}", f"{path}: {reason}", "check path and permissions"
    )
