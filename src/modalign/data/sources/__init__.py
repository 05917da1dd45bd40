"""Readers of files from elsewhere, one module each, all returning the same `RawData`.

A reader is imported when it is first used. Each module has a function
`read(path, **options) -> RawData`; its keyword parameters are the options of the source, or the
fields of the configuration class that the module names `TableOptions`.

Another package adds a source with an entry point of the group `modalign.sources`, whose module
calls `SOURCES.register(name, SourceSpec(module, help))`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from modalign.core import settings
from modalign.core.registry import Registry
from modalign.data.raw import RawData


@dataclass(frozen=True)
class SourceSpec:
    """One kind of input: the module that reads it, and one line of help."""

    module: str
    help: str

    def reader(self) -> Callable[..., RawData]:
        """The module's `read`, imported now."""
        return cast(Callable[..., RawData], importlib.import_module(self.module).read)

    @property
    def options(self) -> type[BaseModel]:
        """The options of `read` by name, with defaults and types; the path is none of them."""
        declared = getattr(importlib.import_module(self.module), "TableOptions", None)
        return declared or settings.from_signature(self.reader(), skip=1)


SOURCES: Registry[SourceSpec] = Registry("kind of source", "modalign.sources")
for _name, _module, _help in (
    ("table", "flat_table", "a CSV, TSV or Parquet file: user, item, optional rating and time"),
    ("movielens", "movielens", "a MovieLens folder as downloaded (100K to 32M), with posters/"),
    ("split", "given_split", "a folder with train, valid and test files; the split is kept"),
    ("amazon", "amazon", "Amazon reviews of 2014, 2018 or 2023, gzipped or not, with metadata"),
    ("citeulike", "citeulike", "a CiteULike folder: users.dat, mult.dat, vocabulary.dat"),
    ("mmrec", "mmrec", "an MMRec folder: NAME.inter and NAME_feat.npy; the split is kept"),
    ("recbole", "recbole", "RecBole atomic files: .inter, and .item and .user if present"),
):
    SOURCES.register(_name, SourceSpec(f"modalign.data.sources.{_module}", _help))


def read(kind: str, path: str | Path, **options: Any) -> RawData:
    """Read `path` with the source called `kind`.

    Args:
        kind: a name of `SOURCES`.
        path: file or folder.
        options: options of that source.

    Raises:
        UnknownName: there is no such source.
        ConfigError: the source has no such option, or a value is of the wrong type.
        DataError: the files are not what the source expects.
    """
    source = SOURCES[kind]
    checked = settings.build(source.options, options, f"the source {kind!r}")
    given = {name: getattr(checked, name) for name in options}
    return source.reader()(path, **given)
