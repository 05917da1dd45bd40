"""Bodies are read by their types; errors state what was expected, what was sent, and the fix.

msgspec reads a body. If it refuses one, the same type is compared with the body once more, step by
step, to find the first place that does not conform and what is expected there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import inspect

from modalign_serve.errors import Failure

T = TypeVar("T")
_LONGEST = 80


class Fault(NamedTuple):
    """The first place of a body that does not conform to its type.

    Attributes:
        where: such as `boost[1].amount`; empty for the body as a whole.
        expected, got: there.
    """

    where: str
    expected: str
    got: str


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
        except msgspec.ValidationError:
            value = _whole(msgspec.json.decode(body))
            return _converted(decoder, value, docs)
    except msgspec.ValidationError as error:
        # Without a type, only a number such as 1e999 is refused.
        got, fix = "a number out of range", f"see {docs} in /docs"
        raise Failure(422, "a number in the range of its type", got, fix) from error
    except UnicodeDecodeError as error:
        raise Failure(400, "a JSON body in UTF-8", str(error), "encode it in UTF-8") from error
    except msgspec.DecodeError as error:
        got = "an empty body" if not body.strip() else str(error)
        raise Failure(400, "a JSON body", got, f"send JSON as /docs shows for {docs}") from error
    except RecursionError as error:
        raise Failure(400, "a JSON body", "one nested too deeply", "nest it less") from error


def _converted(decoder: msgspec.json.Decoder[T], value: Any, docs: str) -> T:
    try:
        found: T = msgspec.convert(value, decoder.type)
    except msgspec.ValidationError as error:
        fault = first_fault(inspect.type_info(decoder.type), value)
        fault = fault or Fault("", "a body as documented", "another")
        place = f" in {fault.where}" if fault.where else ""
        raise Failure(422, f"{fault.expected}{place}", fault.got, f"see {docs} in /docs") from error
    return found


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    return value


def first_fault(kind: inspect.Type, value: Any, where: str = "") -> Fault | None:
    """Where a value does not conform to a type; None if it does.

    Args:
        kind: of `msgspec.inspect`.
        value: of JSON.
        where: it is, for the fault.

    Example:
        >>> kind = inspect.type_info(dict[str, list[int]])
        >>> first_fault(kind, {"a": [1, "x"]})
        Fault(where='a[1]', expected='an integer', got="'x'")
    """
    if isinstance(kind, inspect.Metadata):
        return first_fault(kind.type, value, where)
    if isinstance(kind, inspect.UnionType):
        return _of_union(kind, value, where)
    if not _fits(kind, value):
        return Fault(where, _named(kind), shown(value))
    limit = next(_broken_limits(kind, value), None)
    if limit is not None:
        return Fault(where, limit, shown(value))
    for inner, one, place in _parts(kind, value, where):
        if isinstance(inner, Fault):
            return inner
        fault = first_fault(inner, one, place)
        if fault is not None:
            return fault
    return None


def _of_union(kind: inspect.UnionType, value: Any, where: str) -> Fault | None:
    known = [one for one in kind.types if not _is_unset(one)]
    for one in known:
        bare = one.type if isinstance(one, inspect.Metadata) else one
        if _fits(bare, value):
            return first_fault(bare, value, where)
    return Fault(where, " or ".join(dict.fromkeys(map(_named, known))), shown(value))


def _is_unset(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.CustomType) and kind.cls is msgspec.UnsetType


_JSON: dict[type[inspect.Type], tuple[tuple[type, ...], str]] = {
    inspect.NoneType: ((type(None),), "null"),
    inspect.BoolType: ((bool,), "true or false"),
    inspect.IntType: ((int,), "an integer"),
    inspect.FloatType: ((int, float), "a number"),
    inspect.StrType: ((str,), "a text"),
    inspect.ListType: ((list,), "an array"),
    inspect.DictType: ((dict,), "an object"),
    inspect.StructType: ((dict,), "an object"),
}


def _fits(kind: inspect.Type, value: Any) -> bool:
    """Whether a value is of the JSON type, whatever its limits."""
    if isinstance(kind, inspect.LiteralType):
        return value in kind.values
    known = _JSON.get(type(kind))
    if known is None:
        return True
    return isinstance(value, known[0]) and (not isinstance(value, bool) or bool in known[0])


def _named(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.Metadata):
        return _named(kind.type)
    if isinstance(kind, inspect.LiteralType):
        return f"one of {', '.join(map(repr, kind.values))}"
    known = _JSON.get(type(kind))
    return known[1] if known else "another value"


def _broken_limits(kind: inspect.Type, value: Any) -> Iterator[str]:
    """What the limits of a type expect of a value that is outside of them."""
    name = _named(kind)
    low, high = getattr(kind, "ge", None), getattr(kind, "le", None)
    if low is not None and value < low:
        yield f"{name} >= {low}"
    if high is not None and value > high:
        yield f"{name} <= {high}"
    low, high = getattr(kind, "min_length", None), getattr(kind, "max_length", None)
    if low is not None and len(value) < low:
        yield f"{name} of length >= {low}"
    if high is not None and len(value) > high:
        yield f"{name} of length <= {high}"
    pattern = getattr(kind, "pattern", None)
    if pattern is not None and not re.search(pattern, value):
        plain = "A-Za-z0-9" in pattern
        yield "a plain name" if plain else "a text without control characters"


def _parts(
    kind: inspect.Type, value: Any, where: str
) -> Iterator[tuple[inspect.Type | Fault, Any, str]]:
    """What a value consists of, each with its type, or the fault of its names."""
    if isinstance(kind, inspect.ListType):
        for at, one in enumerate(value):
            yield kind.item_type, one, f"{where}[{at}]"
    elif isinstance(kind, inspect.DictType):
        for name, one in value.items():
            yield kind.key_type, name, f"the names of {where}" if where else "its names"
            yield kind.value_type, one, _inside(where, name)
    elif isinstance(kind, inspect.StructType):
        known = {field.encode_name: field for field in kind.fields}
        for name, one in value.items():
            if name in known:
                yield known[name].type, one, _inside(where, name)
            elif kind.forbid_unknown_fields:
                yield Fault(where, "known fields only", shown(name)), None, where
        for name, field in known.items():
            if field.required and name not in value:
                yield Fault(where, f"the field {name}", "none"), None, where


def _inside(where: str, name: str) -> str:
    short = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    return f"{where}.{short}" if where else short


def shown(value: Any) -> str:
    """A value in an error, shortened.

    Example:
        >>> shown("x"), shown([1, 2]), shown(None), shown({})
        ("'x'", 'an array of 2', 'null', 'an object')
    """
    if isinstance(value, list):
        return f"an array of {len(value):,}"
    if isinstance(value, dict):
        return "an object"
    text = repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"
