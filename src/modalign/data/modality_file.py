"""A modality as one safetensors file that stores which items (or users) its rows stand for.

The file holds `present` flags and `features` (n, d). If most features are zero, as for bags of
words, it holds the `values` and `columns` of the others row by row, the `starts` of the rows in
them, and the `width` d instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from modalign.core.files import write_aside
from modalign.core.modality import Modality
from modalign.data.vocabulary import Vocabulary
from modalign.errors import DataError, UnknownName

PARTS = ("values", "columns", "starts", "width")


def write_modality(folder: Path, modality: Modality, vocabulary: Vocabulary) -> Path:
    """Write `folder/NAME.safetensors` with the hash of the ids of its rows.

    Args:
        folder: where to write; the `modalities` folder of a prepared data set.
        modality: what to write.
        vocabulary: ids of its rows; `Dataset.vocabulary` gives those of an entity.
    """
    meta = {
        "name": modality.name,
        "entity": modality.entity,
        "ids": vocabulary.fingerprint,
        "fingerprint": modality.fingerprint,
        "provenance": json.dumps(dict(modality.provenance), default=str),
    }
    path = folder / f"{modality.name}.safetensors"
    features = np.ascontiguousarray(modality.features, dtype=np.float32)
    tensors = _without_zeros(features) or {"features": features}
    tensors["present"] = np.ascontiguousarray(modality.present, dtype=np.uint8)
    with write_aside(path) as aside:
        save_file(tensors, aside, metadata=meta)
    return path


def drop_modalities(folder: Path, names: Sequence[str]) -> list[str]:
    """Remove modalities of a prepared folder, all of them or none.

    The files get another name first; if one cannot be renamed, the others get their names back.

    Args:
        folder: the prepared folder.
        names: of the modalities.

    Returns:
        The names of those that are left.

    Raises:
        DataError: it is not a prepared folder.
        UnknownName: there is no such modality.
        OSError: a file cannot be removed.
    """
    if not (folder / "dataset.json").is_file():
        fix = "make it with `modalign data import`"
        raise DataError("a prepared data folder", f"{folder} without a dataset.json", fix)
    files = {path.stem: path for path in sorted((folder / "modalities").glob("*.safetensors"))}
    for name in names:
        if name not in files:
            raise UnknownName("modality", name, files)
    dropped = [files.pop(name) for name in dict.fromkeys(names)]
    aside = [path.with_suffix(".dropped") for path in dropped]
    renamed: list[tuple[Path, Path]] = []
    try:
        for path, other in zip(dropped, aside, strict=True):
            path.replace(other)
            renamed.append((path, other))
    except BaseException:
        for path, other in renamed:
            other.replace(path)
        raise
    for other in aside:
        other.unlink()
    return list(files)


def read_modality(path: Path, items: Vocabulary, users: Vocabulary) -> Modality:
    """Read a modality and check that its rows are these items (or users).

    Args:
        path: the file.
        items: vocabulary of the items of the data set.
        users: vocabulary of its users.

    Raises:
        DataError: unreadable file, or rows of another vocabulary.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            meta: dict[str, Any] = file.metadata() or {}
            present = file.get_tensor("present")
            names = file.keys()
            features = features_in({name: file.get_tensor(name) for name in names})
        if features is None:
            raise ValueError("it holds no features")
    except (OSError, SafetensorError, ValueError, IndexError) as error:
        raise DataError(
            f"a modality file {path}", str(error), "encode this modality again"
        ) from error
    entity = meta.get("entity", "item")
    vocabulary = items if entity == "item" else users
    if meta.get("ids") != vocabulary.fingerprint or len(features) != len(vocabulary):
        expected = f"features of this data set's {len(vocabulary)} {entity}s in {path}"
        fix = "encode this modality again for this data set, or remove the file"
        raise DataError(expected, f"features of {len(features)} other {entity}s", fix)
    provenance = json.loads(meta.get("provenance", "{}"))
    return Modality(meta.get("name", path.stem), features, present.astype(bool), entity, provenance)


def features_in(tensors: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The features (n, d) among the tensors of a file, in either form; None if there are none.

    Raises:
        ValueError, IndexError: parts that do not fit together.
    """
    if not set(PARTS) <= set(tensors):
        return tensors.get("features")
    values, columns, starts, (width,) = (tensors[name] for name in PARTS)
    features = np.zeros((len(starts) - 1, width), np.float32)
    features[np.repeat(np.arange(len(features)), np.diff(starts)), columns] = values
    return features


def _without_zeros(features: np.ndarray) -> dict[str, np.ndarray] | None:
    """The features without their zeros, or None if that takes as much space."""
    bits = features.view(np.int32)  # keeps negative zeros, so that reading gives the same bits
    # Counted first: the positions of all features would take four times as much memory.
    if 8 * (np.count_nonzero(bits) + len(features) + 1) >= features.nbytes:
        return None
    rows, columns = np.nonzero(bits)
    starts = np.searchsorted(rows, np.arange(len(features) + 1))
    width = np.array([features.shape[1]])
    parts = features[rows, columns], columns.astype(np.int32), starts, width
    return dict(zip(PARTS, parts, strict=True))
