"""Quotes in delimited text: where they pair up, and what to do where they do not.

A double quote opens a field only as its first character, and closes it only before a separator or
the end of a line; two quotes inside it stand for one. Titles such as `7" single` or
`"Heroes" live` break that rule. A parser that toggles at every quote joins all lines between two of
them into one field, and rows are lost without a word, so that files are checked here first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np

Quoting = Literal["auto", "none", "double"]
BLOCK = 16 << 20
QUOTE, NEWLINE, RETURN = 34, 10, 13
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Quotes:
    """What a look at every quote of a file found.

    Attributes:
        any: whether there is a quote.
        records: number of records, if all quotes pair up: lines that end outside of quotes.
        stray: line (from 1) of the first quote that does not pair up; None if all do.
    """

    any: bool
    records: int
    stray: int | None


def look(file: BinaryIO, separator: bytes, size: int = BLOCK) -> Quotes:
    r"""Whether all quotes of a file open and close fields, one block at a time.

    Every quote toggles between inside and outside. They pair up if each quote that opens stands
    at the start of a field or right after one that closes, each quote that closes stands before
    the end of a field or another quote, and none is open at the end of the file.

    Args:
        file: the file, decompressed.
        separator: between fields, one byte.
        size: bytes to hold at a time.

    Example:
        >>> import io
        >>> look(io.BytesIO(b'a,b\n1,"x, ""y"" z"\n'), b",")
        Quotes(any=True, records=2, stray=None)
        >>> look(io.BytesIO(b'a,b\n1,x\n2,7" single\n'), b",").stray
        3
    """
    found, records, lines, inside, last = False, 0, 0, False, NEWLINE
    pending = False  # a closing quote at the end of the block before is yet to be judged
    opened, first = 1, True
    ends = np.array([ord(separator), NEWLINE, RETURN], np.uint8)
    while block := file.read(size):
        if first and block.startswith(BOM):
            block = block[len(BOM) :]
        first = False
        if not block:
            continue
        text = np.frombuffer(block, np.uint8)
        at = np.flatnonzero(text == QUOTE)
        breaks = np.flatnonzero(text == NEWLINE)
        if pending and text[0] != QUOTE and text[0] not in ends:
            return Quotes(True, 0, lines + 1)
        pending = False
        if len(at):
            found = True
            opens = (np.arange(len(at)) % 2 == 0) ^ inside
            before = np.concatenate([[last], text[:-1]])[at].astype(np.uint8)
            after = text[np.minimum(at + 1, len(text) - 1)]
            good = np.where(
                opens,
                np.isin(before, ends) | (before == QUOTE),
                np.isin(after, ends) | (after == QUOTE),
            )
            if at[-1] == len(text) - 1 and not opens[-1]:
                good[-1] = pending = True  # its neighbour is in the next block
            if not good.all():
                return Quotes(True, 0, lines + 1 + int((breaks < at[np.argmin(good)]).sum()))
            if opens.any():
                opened = lines + 1 + int((breaks < at[np.flatnonzero(opens)[-1]]).sum())
        outside = (np.searchsorted(at, breaks) % 2 == 0) ^ inside
        records += int(outside.sum())
        lines += len(breaks)
        inside ^= len(at) % 2 == 1
        last = int(text[-1])
    if inside:
        return Quotes(True, 0, opened)
    return Quotes(found, records + (last != NEWLINE), None)


@dataclass(frozen=True)
class Plain:
    """A text whose stray quotes are ordinary characters.

    Attributes:
        content: the text, with these fields quoted by the rule.
        fields: how many fields there were.
        line: line of the first one, from 1.
        example: that field.
    """

    content: bytes
    fields: int
    line: int
    example: str


def as_plain(content: bytes, separator: bytes) -> Plain:
    r"""Fields whose quotes do not pair up, as plain text; other fields stay as they are.

    Such a field ends at the next separator or line end, and keeps its quotes.

    Args:
        content: of the file.
        separator: between fields, one byte.

    Example:
        >>> as_plain(b'1,7" single\n2,"a, b"\n', b",").content
        b'1,"7"" single"\n2,"a, b"\n'
    """
    start = b"(?<![^" + re.escape(separator) + rb"\r\n])"
    end = b"(?=[" + re.escape(separator) + rb"\r\n]|\Z)"
    text = b"[^" + re.escape(separator) + rb'\r\n"]*+'
    pattern = re.compile(
        start + b"(?:" + rb'(?P<good>"(?:[^"]++|"")*+"' + end + b")|"
        rb"(?P<stray>" + text + rb'"[^' + re.escape(separator) + rb"\r\n]*+))"
    )
    body = content[len(BOM) :] if content.startswith(BOM) else content
    fields, first, example = 0, -1, b""

    def quoted(match: re.Match[bytes]) -> bytes:
        nonlocal fields, first, example
        if match["good"] is not None:
            return match["good"]
        fields += 1
        if first < 0:
            first, example = match.start(), match["stray"][:60]
        return b'"' + match["stray"].replace(b'"', b'""') + b'"'

    made = pattern.sub(quoted, body)
    line = body.count(b"\n", 0, max(first, 0)) + 1
    return Plain(made, fields, line, example.decode("utf-8", "replace"))
