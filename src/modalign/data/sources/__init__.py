"""Readers of other people's files, one module each, all returning the same `RawData`.

A reader is imported when it is first used. Each module has a function
`read(path, **options) -> RawData`; its options are those of its own documentation.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from modalign.data.raw import RawData
from modalign.errors import ConfigError, UnknownName


@dataclass(frozen=True)
class Source:
    """One kind of input: the module that reads it, and a line for people."""

    module: str
    help: str

    def reader(self) -> Callable[..., RawData]:
        """The module's `read`, imported now."""
        return cast(Callable[..., RawData], importlib.import_module(self.module).read)

    def options(self) -> dict[str, inspect.Parameter]:
        """The options of `read` by name, without the path."""
        return dict(list(inspect.signature(self.reader()).parameters.items())[1:])


SOURCES: dict[str, Source] = {
    "table": Source(
        "modalign.data.sources.table",
        "one CSV, TSV or Parquet file: a row for each user, item and optional rating and time",
    ),
    "movielens": Source(
        "modalign.data.sources.movielens",
        "a MovieLens folder as it is downloaded (100K, 1M, 10M, 20M and later), posters welcome",
    ),
    "split": Source(
        "modalign.data.sources.given_split",
        "a folder with train, valid and test files; the split is kept",
    ),
    "amazon": Source(
        "modalign.data.sources.amazon",
        "Amazon reviews of 2014, 2018 or 2023: JSON lines, gzipped or not, with metadata",
    ),
    "citeulike": Source(
        "modalign.data.sources.citeulike",
        "a CiteULike folder: users.dat, mult.dat, vocabulary.dat",
    ),
    "mmrec": Source(
        "modalign.data.sources.mmrec",
        "an MMRec folder: a .inter file with its split and a NAME_feat.npy for each modality",
    ),
    "recbole": Source(
        "modalign.data.sources.recbole",
        "RecBole atomic files: .inter, and .item and .user where there are any",
    ),
}


def read(kind: str, path: str | Path, **options: Any) -> RawData:
    """Read `path` with the source called `kind`.

    Raises:
        UnknownName: there is no such source.
        ConfigError: the source has no such option.
        DataError: the files are not what the source expects.
    """
    if kind not in SOURCES:
        raise UnknownName("kind of source", kind, SOURCES)
    source = SOURCES[kind]
    known = source.options()
    for name in options:
        if name not in known:
            raise ConfigError(
                f"options of the source {kind!r}: {', '.join(known) or 'none'}",
                repr(name),
                "leave it out or use one of those",
            )
    fitting = {name: _fitting(kind, known[name], value) for name, value in options.items()}
    return source.reader()(path, **fitting)


def _fitting(kind: str, parameter: inspect.Parameter, value: Any) -> Any:
    """An option's value as the source wants it: the command line reads 2019 as a number."""
    wanted = str(parameter.annotation)
    if wanted.startswith("str") and isinstance(value, int | float):
        return str(value)
    if wanted == "int" and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(
            f"a whole number as {parameter.name} of the source {kind!r}",
            repr(value),
            f"its default is {parameter.default}",
        )
    return value
