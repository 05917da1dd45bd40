"""From what a person wrote (`--set key=value`, a YAML file, keyword arguments) to a `Config`.

The command line wins over the file, the file over the defaults; an unknown key is refused
with the nearest known one; a value out of bounds is refused with the bounds.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from modalign.errors import ConfigError

C = TypeVar("C", bound=BaseModel)

DEFAULT_SEED = 1
"""The seed of every function and command that is given none."""


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`["learning_rate=0.01", "modalities=[text]"]` to a mapping; values are read as YAML.

    Raises:
        ConfigError: not of the form key=value, or the value is no YAML.

    Example:
        >>> parse_assignments(["n_layers=3", "fusion=none"])
        {'n_layers': 3, 'fusion': 'none'}
    """
    found: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                "an option as key=value", repr(text), "write --set learning_rate=0.01"
            )
        try:
            found[key.strip()] = scalar(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ConfigError(
                f"a value for {key.strip()!r} that YAML can read", repr(value), "quote it"
            ) from error
    return found


def scalar(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of options.

    Raises:
        ConfigError: missing, unreadable, or not a mapping.
    """
    path = Path(path)
    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            "a readable YAML file", f"{path}: {error.strerror}", "check --config"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise ConfigError(f"YAML in {path}", where, "correct that line") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(
            f"a mapping of options in {path}", type(found).__name__, "write one `key: value` a line"
        )
    return {str(key): scalar(value) for key, value in found.items()}


def build(config: type[C], values: Mapping[str, Any], owner: str) -> C:
    """A configuration from a mapping.

    Args:
        config: the configuration class.
        values: options by name.
        owner: whose options they are, for messages ("model cm3").

    Raises:
        ConfigError: an unknown key, a wrong type, or a value out of its bounds.

    Example:
        >>> from modalign.core.interfaces import TrainedConfig
        >>> build(TrainedConfig, {"learning_rat": 1}, "model x")
        Traceback (most recent call last):
        ...
        modalign_serve.errors.ConfigError: Expected an option of model x: batch_size, \
embedding_size, epochs, eval_every, learning_rate, optimizer, patience, select_by, weight_decay, \
got 'learning_rat'. To fix: did you mean 'learning_rate'?
    """
    known = sorted(config.model_fields)
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            fix = f"did you mean {close[0]!r}?" if close else "leave it out, or use one of these"
            options = ", ".join(known) if known else "none (it has no options)"
            raise ConfigError(f"an option of {owner}: {options}", repr(key), fix)
    try:
        return config(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or owner
        wrong = first["msg"].removeprefix("Value error, ")
        wanted = wrong.removeprefix("Input should ")
        raise ConfigError(
            f"{name} of {owner} {'as:' if wanted == wrong else 'to'} {wanted}",
            repr(first.get("input")),
            f"its default is {_default(config, str(first['loc'][0]) if first['loc'] else '')}",
        ) from error


def from_signature(function: Callable[..., Any], skip: int = 0) -> type[BaseModel]:
    """The keyword options of a function as a configuration class, checked like any other.

    Args:
        function: annotated; what it takes after the first `skip` parameters are its options.
        skip: how many leading parameters are no options, such as the path that a source reads.
            Bounds are read from `Annotated[float, Field(gt=0)]`. A number where text is wanted
            becomes text, as YAML reads `2019` as a number.

    Example:
        >>> def read(path: str, first_year: int = 2000) -> None: ...
        >>> build(from_signature(read, skip=1), {"first_year": 1999}, "source x").first_year
        1999
    """
    hints = get_type_hints(function, include_extras=True)
    parameters = list(signature(function).parameters.values())[skip:]
    fields: dict[str, Any] = {
        one.name: (hints.get(one.name, Any), ... if one.default is one.empty else one.default)
        for one in parameters
        if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }
    strict = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, coerce_numbers_to_str=True
    )
    return create_model(function.__name__, __config__=strict, **fields)


def _default(config: type[BaseModel], name: str) -> str:
    field = config.model_fields.get(name)
    return (
        "not given"
        if field is None or field.is_required()
        else repr(field.get_default(call_default_factory=True))
    )
