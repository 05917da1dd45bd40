"""Groups of options: a parameter that is a dataclass stands for one option per field."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose dataclass parameters are replaced by one option for each of their fields.

    Args:
        function: annotated for typer. A parameter annotated with a dataclass receives an instance
            made from the options that the fields of the dataclass, annotated for typer too,
            declare.

    Raises:
        TypeError: two options have the same name.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Place:
        ...     host: str = "127.0.0.1"
        ...     port: int = 8080
        >>> @grouped
        ... def serve(name: str, place: Place) -> None:
        ...     print(name, place.port)
        >>> list(inspect.signature(serve).parameters)
        ['name', 'host', 'port']
        >>> serve(name="shop", host="::1", port=80)
        shop 80
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for one in inspect.signature(function).parameters.values():
        hint = hints[one.name]
        if is_dataclass(hint):
            groups[one.name] = hint
            parameters += _options(hint)
        else:
            parameters.append(one.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
    names = [one.name for one in parameters]
    if len(set(names)) < len(names):
        raise TypeError(f"{function.__name__} has an option twice: {sorted(names)}")

    @functools.wraps(function)
    def command(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        function(**given, **made)

    signature = inspect.Signature(parameters, return_annotation=None)
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    del command.__wrapped__
    return command


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
