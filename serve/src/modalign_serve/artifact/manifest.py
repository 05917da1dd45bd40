"""The description of an artifact, `manifest.json`: it is read and checked before anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from modalign_serve.errors import ArtifactError

SCHEMA = 1
NAME = "manifest.json"
Kind = Literal["factors", "neighbours", "encoder"]
Dtype = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class File:
    """One file of the artifact: its size in bytes and the hash of its content."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The artifact's description.

    Attributes:
        kind: how items are scored: "factors" multiplies the vectors of users and items;
            "neighbours" sums an item-item matrix over the history; "encoder" runs the ONNX model
            on the history.
        metrics: by split, as measured by the run.
        mask: what its test ranking left out, "strict" or "train".
        fingerprints: of the "data", the "users" and the "items".
        synthetic: the data are generated, not observed.
        width: of the vectors, 0 if there are none.
        dtype: in which the vectors are stored.
        loss: measured cost of that dtype (or of shortening the item-item matrix).
        fold_in: the default method from items to a user's vector, and measurements of each.
        index: the approximate index, if there is one, and its recall against exact search.
        adapter: how the content adapter was trained and its measurements, if there is one.
        modalities: by modality, the width of its features and the encoder they come from.
        segments: named parts of the vectors, each (name, start, end), if the model has them.
        columns: kind of each column of item metadata: "text", "category" or "number".
        files: every file except the manifest itself.
    """

    kind: Kind
    model: str
    n_users: int
    n_items: int
    width: int
    dtype: Dtype = "float32"
    seed: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    mask: str = "strict"
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""
    synthetic: bool = False
    loss: Mapping[str, Any] = field(default_factory=dict)
    fold_in: Mapping[str, Any] = field(default_factory=dict)
    index: Mapping[str, Any] = field(default_factory=dict)
    adapter: Mapping[str, Any] = field(default_factory=dict)
    modalities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    segments: tuple[tuple[str, int, int], ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, File] = field(default_factory=dict)
    schema: int = SCHEMA

    def text(self) -> str:
        """The content of the file."""
        return json.dumps(asdict(self), indent=2) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        ArtifactError: it does not exist, is damaged, or has a schema this version cannot read.
    """
    path = folder / NAME
    again = "export the run again: modalign export RUN --out FOLDER"
    if not path.is_file():
        raise ArtifactError(
            f"an artifact with a {NAME}",
            f"{folder} without one"
            if folder.is_dir()
            else f"{folder}, which {'is a file' if folder.is_file() else 'does not exist'}",
            again,
        )
    try:
        found = json.loads(path.read_text())
        schema = int(found["schema"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"a readable {path}", f"{type(error).__name__}: {error}".split("\n")[0], again
        ) from error
    if schema != SCHEMA:
        newer = schema > SCHEMA
        fix = "install the version of modalign that wrote it" if newer else again
        raise ArtifactError(f"an artifact of schema {SCHEMA}", f"schema {schema} in {path}", fix)
    try:
        return _from(found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"a complete {path}", f"{type(error).__name__}: {error}".split("\n")[0], again
        ) from error


def _from(found: dict[str, Any]) -> Manifest:
    files = {
        name: File(int(one["size"]), str(one["sha256"])) for name, one in found["files"].items()
    }
    for name in files:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts:
            raise ValueError(f"file {name!r} lies outside the artifact")
    for key, known in (("kind", get_args(Kind)), ("dtype", get_args(Dtype))):
        if found[key] not in known:
            raise ValueError(f"{key} is {found[key]!r}, not one of {', '.join(known)}")
    segments = tuple((str(name), int(a), int(b)) for name, a, b in found["segments"])
    return Manifest(**{**found, "files": files, "segments": segments})
