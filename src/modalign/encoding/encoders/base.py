"""What an encoder is, and the table of those that exist.

An encoder turns the raw thing of an item (a text, the path of a picture) into
numbers. `read` makes one raw thing ready and may find it unreadable; `encode` does a batch.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from modalign.errors import ConfigError, UnknownName

Kind = Literal["text", "image"]
M = TypeVar("M", bound=BaseModel)


class UnreadableInput(Exception):
    """One item's raw thing cannot be encoded; the message says why. The item counts as absent."""


class EncoderOptions(BaseModel):
    """Base of an encoder's options: frozen, typed, an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@runtime_checkable
class Encoder(Protocol):
    """Raw things in, float32 rows out.

    Attributes:
        name: as on the command line.
        kind: what it reads.
        batch_size: how many inputs it likes at a time.
    """

    name: str
    kind: Kind
    batch_size: int

    @property
    def dim(self) -> int:
        """Width of a row."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Encoder, revision, options, library versions, hash of the weights where there are any."""
        ...

    def read(self, raw: Any) -> Any:
        """One raw thing made ready for `encode`; raises `UnreadableInput`."""
        ...

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Rows of raw or read things, float32, shape (len(batch), dim).

        A row does not depend on what else is in the batch, up to rounding.
        """
        ...


@runtime_checkable
class FittedEncoder(Encoder, Protocol):
    """An encoder that must see all inputs once before it encodes any."""

    def fit(self, inputs: Sequence[Any]) -> None:
        """Learn from all inputs; a pure function of them and of the options."""
        ...


@runtime_checkable
class NamesColumns(Protocol):
    """An encoder whose columns have names: they are kept with the modality, for explanations."""

    @property
    def words(self) -> list[str]:
        """The name of each column."""
        ...


@dataclass(frozen=True)
class EncoderSpec:
    """One line of the table: where an encoder is and what it is.

    Attributes:
        kind: what it reads.
        module: imported on first use only, for its libraries are heavy.
        factory: name in the module; called with name, device and options.
        help: one line for people.
    """

    kind: Kind
    module: str
    factory: str
    help: str

    def load(self) -> Callable[..., Encoder]:
        """Import the factory."""
        return getattr(importlib.import_module(self.module), self.factory)  # type: ignore[no-any-return]


_HERE = "modalign.encoding.encoders"
ENCODERS: dict[str, EncoderSpec] = {
    "minilm": EncoderSpec(
        "text",
        f"{_HERE}.text",
        "SentenceEncoder",
        "all-MiniLM-L6-v2, 384 numbers, no download; the default for texts",
    ),
    "tfidf": EncoderSpec(
        "text",
        "modalign.encoding.tfidf",
        "TfidfEncoder",
        "tf-idf of the catalogue's own words, reduced by a truncated SVD",
    ),
    "words": EncoderSpec(
        "text",
        "modalign.encoding.tfidf",
        "WordsEncoder",
        "tf-idf with a column for each word, for models that read words (BANDVAE)",
    ),
    "efficientnet-lite0": EncoderSpec(
        "image",
        f"{_HERE}.image",
        "EfficientNetEncoder",
        "EfficientNet-Lite0 of ImageNet, 1,280 numbers, no download; the default for images",
    ),
}
"""Encoders by name."""

PREFIXED: dict[tuple[str, Kind], EncoderSpec] = {
    ("st:", "text"): EncoderSpec(
        "text",
        f"{_HERE}.text",
        "SentenceEncoder",
        "st:NAME, any sentence-transformers model by name or folder",
    ),
    ("hf:", "text"): EncoderSpec(
        "text",
        f"{_HERE}.text",
        "TransformerTextEncoder",
        "hf:NAME, any transformers text model by name or folder, mean pooling",
    ),
    ("hf:", "image"): EncoderSpec(
        "image",
        f"{_HERE}.image",
        "TransformerImageEncoder",
        "hf:NAME, any transformers vision model by name or folder",
    ),
}
"""Encoders whose name carries the name of a model."""

DEFAULTS: dict[Kind, str] = {"text": "minilm", "image": "efficientnet-lite0"}


def make_encoder(name: str | None, kind: Kind, device: str = "cpu", **options: Any) -> Encoder:
    """Build the encoder called `name`, or the default of a kind.

    Args:
        name: one of `ENCODERS`, `st:NAME` or `hf:NAME`; None takes the default of the kind.
        kind: what will be encoded.
        device: where the model runs; ignored by encoders without one.
        options: of this encoder.

    Raises:
        UnknownName: there is no such encoder; the nearest name is suggested.
        ConfigError: it reads another kind, an option is unknown or out of its bounds, or the
            extra `encoders` is not installed.
    """
    name = name or DEFAULTS[kind]
    for (prefix, of_kind), spec in PREFIXED.items():
        if name.startswith(prefix) and len(name) > len(prefix) and of_kind == kind:
            return spec.load()(name, device, **options)
    if name not in ENCODERS:
        examples = sorted({f"{prefix}NAME" for prefix, _ in PREFIXED})
        raise UnknownName("encoder", name, [*ENCODERS, *examples])
    if ENCODERS[name].kind != kind:
        fitting = sorted(one for one, spec in ENCODERS.items() if spec.kind == kind)
        raise ConfigError(
            f"an encoder of {kind}",
            f"{name!r}, which reads {ENCODERS[name].kind}",
            f"choose one of {', '.join(fitting)}",
        )
    return ENCODERS[name].load()(name, device, **options)


def parse_options(options: type[M], encoder: str, given: dict[str, Any]) -> M:
    """Check an encoder's options against their bounds.

    Raises:
        UnknownName: no such option; the nearest is suggested.
        ConfigError: a value is out of its bounds.
    """
    for key in given:
        if key not in options.model_fields:
            known = list(options.model_fields) or ["(none)"]
            raise UnknownName(f"option of encoder {encoder}", key, known)
    try:
        return options(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "options"
        value = first["input"] if first["loc"] else given
        raise ConfigError(
            f"option {where} of encoder {encoder}: {first['msg']}",
            repr(value),
            f"give {where} another value",
        ) from error


def missing_extra(library: str) -> ConfigError:
    """The error for a library of the extra `encoders` that is not installed."""
    return ConfigError(
        f"the library {library}, which this encoder runs on",
        "an installation without it",
        'pip install "modalign[encoders]"',
    )


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def file_hash(path: str | Path) -> str:
    """Hash of a file's bytes, 16 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
