"""Bodies are read by their types; errors state what was expected, what was sent, and the fix."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from modalign_serve.errors import Failure

T = TypeVar("T")
_TEXT = r"(?P<what>.*?)(?:, got (?P<got>.*?))?(?: - at `(?P<where>[^`]*)`)?"
_MESSAGE = re.compile(_TEXT, re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_LONGEST = 80


def read(decoder: msgspec.json.Decoder[T], body: bytes, docs: str) -> T:
    """The body as the type of a decoder.

    Whole numbers may be written as 10.0, which is the same number in JSON.

    Args:
        decoder: of the type.
        body: JSON.
        docs: path of the endpoint in the documentation.

    Raises:
        Failure: 400 if it is not JSON, 422 if it does not conform to the type.

    Example:
        >>> from modalign_serve.service.schemas import RECOMMEND
        >>> try:
        ...     read(RECOMMEND, b'{"user_id": "a", "k": 0}', "/v1/recommend")
        ... except Failure as failure:
        ...     print(failure.status, failure.expected, "|", failure.got)
        422 an integer >= 1 in k | 0
    """
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            if "`int" not in str(error):
                raise _misshapen(str(error), body, docs) from error
            return _with_whole_numbers(decoder, body, docs)
    except UnicodeDecodeError as error:
        raise Failure(400, "a JSON body in UTF-8", str(error), "encode it in UTF-8") from error
    except msgspec.DecodeError as error:
        got = "an empty body" if not body.strip() else str(error)
        raise Failure(400, "a JSON body", got, f"send JSON as /docs shows for {docs}") from error
    except RecursionError as error:
        raise Failure(400, "a JSON body", "one nested too deeply", "nest it less") from error


def _with_whole_numbers(decoder: msgspec.json.Decoder[T], body: bytes, docs: str) -> T:
    try:
        found: T = msgspec.convert(_whole(msgspec.json.decode(body)), decoder.type)
    except msgspec.ValidationError as error:
        raise _misshapen(str(error), body, docs) from error
    return found


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    return value


def _misshapen(message: str, body: bytes, docs: str) -> Failure:
    fix = f"see {docs} in /docs"
    unknown = re.search(r"unknown field `(.*?)`", message)
    if unknown:
        return Failure(422, "known fields only", f"{unknown.group(1)!r}{_at(message)}", fix)
    missing = re.search(r"missing required field `(.*?)`", message)
    if missing:
        return Failure(422, f"the field {missing.group(1)}{_at(message)}", "none", fix)
    parts = _MESSAGE.fullmatch(message)
    assert parts is not None
    where = parts["where"] or "$"
    expected = _plain(parts["what"].removeprefix("Expected "))
    if "matching regex" in expected:
        plain = "A-Za-z0-9" in expected
        expected = "a plain name" if plain else "a text without control characters"
    if expected == "Number out of range":
        expected = "a number in the range of its type"
    field = where.removeprefix("$").removeprefix(".")
    got = _value(body, where)
    if got is None:
        got = _plain(parts["got"] or "another")
    return Failure(422, f"{expected}{f' in {field}' if field else ''}", got, fix)


def _plain(message: str) -> str:
    words = {"str": "a text", "int": "an integer", "float": "a number", "bool": "true or false",
             "object": "an object", "array": "an array", "null": "null"}  # fmt: skip

    def one(found: re.Match[str]) -> str:
        return " or ".join(words.get(part.strip(), part) for part in found.group(1).split("|"))

    return re.sub(r"`([^`]*)`", one, message)


def _at(message: str) -> str:
    found = re.search(r" - at `\$\.?([^`]+)`", message)
    return f" in {found.group(1)}" if found else ""


def _value(body: bytes, where: str) -> str | None:
    """The value at a path of the body, shortened; None if the path has wildcards."""
    if "..." in where:
        return None
    try:
        value: Any = msgspec.json.decode(body)
        for name, index in _STEP.findall(where):
            value = value[name] if name else value[int(index)]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    if isinstance(value, list):
        return f"an array of {len(value):,}"
    if isinstance(value, dict):
        return "an object"
    shown = repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}... ({len(shown):,} characters)"
