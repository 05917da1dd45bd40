"""What an encoder is, and the table of encoders.

An encoder turns the raw input of an item (a text, the path of a picture) into numbers: `read`
prepares one input and may find it unreadable; `encode` takes a batch. Other packages add theirs
with an entry point of the group `modalign.encoders` whose module calls `ENCODERS.register`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from modalign.core.registry import Registry
from modalign.errors import ConfigError

InputKind = Literal["text", "image", "audio", "video"]


class UnreadableInput(Exception):
    """The input of one item cannot be encoded; the message says why. The item counts as absent."""


@runtime_checkable
class Encoder(Protocol):
    """Raw inputs in, float32 rows out.

    Attributes:
        name: as on the command line.
        kind: what it reads.
        batch_size: preferred number of inputs at a time.
    """

    name: str
    kind: InputKind
    batch_size: int

    @property
    def dim(self) -> int:
        """Width of a row."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Encoder, revision, options, library versions, hash of the weights if there are any."""
        ...

    def read(self, raw: Any) -> Any:
        """One raw input prepared for `encode`; raises `UnreadableInput`."""
        ...

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Rows of raw or prepared inputs, float32, shape (len(batch), dim).

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
class MakesBags(Protocol):
    """An encoder that declares whether its columns are words and its numbers their weights.

    Vectors of an encoder that does not declare it are dense.
    """

    bag: bool


@runtime_checkable
class NamesColumns(Protocol):
    """An encoder whose columns have names, which are stored with the modality for explanations."""

    @property
    def words(self) -> list[str]:
        """The name of each column."""
        ...


ENCODERS: Registry[Mapping[InputKind, str]] = Registry("encoder", "modalign.encoders")
"""Encoders by name; `PREFIX:NAME` stands for all names with this prefix.

For each kind of input that an encoder reads, `module:name` of its factory. It is imported on first
use, since libraries are heavy, and called with the encoder's name, the device and the options.
"""
_HERE = "modalign.encoding"
_OWN: dict[str, Mapping[InputKind, str]] = {
    "minilm": {"text": f"{_HERE}.encoders.text:SentenceEncoder"},
    "tfidf": {"text": f"{_HERE}.tfidf:TfidfEncoder"},
    "words": {"text": f"{_HERE}.tfidf:WordsEncoder"},
    "efficientnet-lite0": {"image": f"{_HERE}.encoders.image:EfficientNetEncoder"},
    "spectra": {"audio": f"{_HERE}.encoders.audio:SpectraEncoder"},
    "frames": {"video": f"{_HERE}.encoders.video:FramesEncoder"},
    "st:NAME": {
        "text": f"{_HERE}.encoders.text:SentenceEncoder",
        "audio": f"{_HERE}.encoders.audio:SentenceAudioEncoder",
    },
    "hf:NAME": {
        "text": f"{_HERE}.encoders.text:TransformerTextEncoder",
        "image": f"{_HERE}.encoders.image:TransformerImageEncoder",
        "audio": f"{_HERE}.encoders.audio:TransformerAudioEncoder",
    },
}
for _name, _factories in _OWN.items():
    ENCODERS.register(_name, _factories)

DEFAULTS: dict[InputKind, str] = {
    "text": "minilm", "image": "efficientnet-lite0", "audio": "spectra", "video": "frames",
}  # fmt: skip


def kinds_of(encoder: str | Encoder | None) -> tuple[InputKind, ...]:
    """The kinds of input that an encoder reads; all where none is named.

    Raises:
        UnknownName: there is no such encoder.

    Example:
        >>> kinds_of("minilm"), kinds_of("hf:NAME")
        (('text',), ('text', 'image', 'audio'))
    """
    if encoder is None:
        return get_args(InputKind)
    if not isinstance(encoder, str):
        return (encoder.kind,)
    return tuple(_factories_of(encoder))


def check_kind(encoder: str | Encoder | None, kind: InputKind) -> None:
    """Check that an encoder reads a kind of input.

    Raises:
        UnknownName: there is no such encoder.
        ConfigError: it reads other kinds.
    """
    kinds = kinds_of(encoder)
    if kind in kinds or encoder is None:
        return
    fitting = [one for one, other in ENCODERS.items() if kind in other]
    name = encoder if isinstance(encoder, str) else encoder.name
    got = f"{name!r}, which reads {' and '.join(kinds)}"
    raise ConfigError(f"an encoder of {kind}", got, f"choose one of {', '.join(fitting)}")


def _factories_of(name: str) -> Mapping[InputKind, str]:
    prefix, colon, model = name.partition(":")
    return ENCODERS[f"{prefix}:NAME" if colon and model else name]


def make_encoder(name: str | None, kind: InputKind, device: str = "cpu", **options: Any) -> Encoder:
    """Build the encoder called `name`, or the default of a kind.

    Args:
        name: one of `ENCODERS`, such as `tfidf` or `st:MODEL`; None takes the default of the
            kind.
        kind: what will be encoded.
        device: where the model runs; ignored by encoders without one.
        options: of this encoder.

    Raises:
        UnknownName: there is no such encoder; the nearest name is suggested.
        ConfigError: it reads another kind of input, an option is unknown or out of its bounds,
            or the extra `encoders` is not installed.
    """
    name = name or DEFAULTS[kind]
    check_kind(name, kind)
    module, _, factory = _factories_of(name)[kind].partition(":")
    made: Encoder = getattr(import_module(module), factory)(name, device, **options)
    return made


def missing_extra(library: str, extra: str = "encoders") -> ConfigError:
    """The error for a library of an extra that is not installed."""
    got = "an installation without it"
    fix = f'run pip install "modalign[{extra}]"'
    return ConfigError(f"the library {library}, which this encoder uses", got, fix)


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def facts_hash(facts: Mapping[str, Any]) -> str:
    """Hash of plain values, 16 hexadecimal digits."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path: str | Path) -> str:
    """Hash of a file's bytes, 16 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
