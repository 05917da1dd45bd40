"""A modality as one safetensors file that knows which items its rows are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from modalign.data.files import write_aside
from modalign.data.modality import Modality
from modalign.errors import DataError

if TYPE_CHECKING:
    from modalign.data.dataset import Dataset


def write_modality(folder: Path, modality: Modality, dataset: Dataset) -> Path:
    """Write `folder/NAME.safetensors` with the hash of the ids its rows stand for."""
    vocabulary = dataset.items if modality.entity == "item" else dataset.users
    meta = {
        "name": modality.name,
        "entity": modality.entity,
        "ids": vocabulary.fingerprint,
        "fingerprint": modality.fingerprint,
        "provenance": json.dumps(dict(modality.provenance), default=str),
    }
    path = folder / f"{modality.name}.safetensors"
    tensors: dict[str, np.ndarray] = {
        "features": np.ascontiguousarray(modality.features, dtype=np.float32),
        "present": np.ascontiguousarray(modality.present, dtype=np.uint8),
    }
    with write_aside(path) as aside:
        save_file(tensors, aside, metadata=meta)
    return path


def read_modality(path: Path, dataset: Dataset) -> Modality:
    """Read a modality and check that its rows are this data set's items (or users).

    Raises:
        DataError: unreadable file, or rows of another vocabulary.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            meta: dict[str, Any] = file.metadata() or {}
            features, present = file.get_tensor("features"), file.get_tensor("present")
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"a modality file {path}", str(error), "encode this modality again"
        ) from error
    entity = meta.get("entity", "item")
    vocabulary = dataset.items if entity == "item" else dataset.users
    if meta.get("ids") != vocabulary.fingerprint or len(features) != len(vocabulary):
        raise DataError(
            f"features of this data set's {len(vocabulary)} {entity}s in {path}",
            f"features of {len(features)} other {entity}s",
            "encode this modality again for this data set, or remove the file",
        )
    provenance = json.loads(meta.get("provenance", "{}"))
    return Modality(meta.get("name", path.stem), features, present.astype(bool), entity, provenance)
