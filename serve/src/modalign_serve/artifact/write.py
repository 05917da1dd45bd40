"""Write an artifact: to a temporary folder, then renamed, so a reader never sees a part of one."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from modalign_serve.artifact.artifact import Artifact, Category, Csr
from modalign_serve.artifact.leftovers import part_of, swap, tidy
from modalign_serve.artifact.manifest import NAME, Dtype, File
from modalign_serve.artifact.pictures import pack
from modalign_serve.artifact.strings import Strings
from modalign_serve.errors import ArtifactError

CHUNK = 2**22


def quantised(vectors: np.ndarray, dtype: Dtype) -> dict[str, np.ndarray]:
    """Vectors as they are stored, by the suffix of their names.

    int8 holds `round(127 v / max |v|)` of each row, and `max |v| / 127` as its scale.

    Example:
        >>> stored = quantised(np.array([[1.0, -2.0]], np.float32), "int8")
        >>> stored[""].tolist(), [round(one, 4) for one in stored[".scale"].tolist()]
        ([[64, -127]], [0.0157])
    """
    if dtype != "int8":
        return {"": np.ascontiguousarray(vectors, dtype=dtype)}
    peak = np.abs(vectors).max(axis=1, initial=0.0)
    scale = (np.where(peak > 0, peak, 1.0) / 127).astype(np.float32)
    return {"": np.rint(vectors / scale[:, None]).astype(np.int8), ".scale": scale}


def restored(stored: Mapping[str, np.ndarray]) -> np.ndarray:
    """The float32 vectors of the output of `quantised`, without a copy if they are float32."""
    values = stored[""]
    if ".scale" in stored:
        return np.asarray(values * stored[".scale"][:, None])
    return values if values.dtype == np.float32 else values.astype(np.float32)


def write_artifact(
    folder: str | Path,
    artifact: Artifact,
    files: Mapping[str, bytes | Path] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write `artifact` and further files; sizes and hashes go into the manifest.

    Args:
        folder: must not exist, or be empty, or hold an artifact that is replaced.
        artifact: its vectors are stored in `manifest.dtype`.
        files: contents of further files by name, or paths to copy them from. Pictures, whose names
            begin with `images/`, are packed into one file.
        overwrite: replace an artifact in the folder.

    Raises:
        ArtifactError: the folder holds something else, or an artifact without `overwrite`.
    """
    folder = Path(folder)
    tidy(folder)
    check_place(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = part_of(folder)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        for name, array in _arrays(artifact).items():
            path = aside / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array, allow_pickle=False)
        given = files or {}
        pictures = {name: one for name, one in given.items() if name.startswith("images/")}
        if pictures:
            for name, array in pack(pictures, aside).items():
                np.save(aside / f"{name}.npy", array, allow_pickle=False)
        for name, content in given.items():
            if name in pictures:
                continue
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, path)
            else:
                path.write_bytes(content)
        kinds = {name: _kind(column) for name, column in artifact.columns.items()}
        paths = sorted(path for path in aside.rglob("*") if path.is_file())
        listed = {path.relative_to(aside).as_posix(): described(path) for path in paths}
        manifest = replace(artifact.manifest, files=listed, columns=kinds)
        (aside / NAME).write_text(manifest.text())
        swap(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def described(path: Path) -> File:
    """Size and hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return File(path.stat().st_size, digest.hexdigest())


def check_place(folder: Path, overwrite: bool) -> None:
    """Check that an artifact may be written to a folder.

    Raises:
        ArtifactError: the folder holds something else, or an artifact without `overwrite`.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    ours = (folder / NAME).is_file()
    if not (ours and overwrite):
        got = f"{folder}, which is {'an artifact' if ours else 'something else'}"
        fix = "add --overwrite to replace it" if ours else "choose another folder"
        raise ArtifactError("a new or empty folder to export to", got, fix)


def _kind(column: object) -> str:
    if isinstance(column, Strings):
        return "text"
    return "category" if isinstance(column, Category) else "number"


def _arrays(artifact: Artifact) -> dict[str, np.ndarray]:
    """Every array by its name on disk, without the suffix."""
    found: dict[str, np.ndarray] = {"counts": artifact.counts}
    for name, vectors in (("users", artifact.users), ("items", artifact.items)):
        if vectors is not None:
            stored = quantised(vectors, artifact.manifest.dtype)
            found |= {f"{name}{ending}": array for ending, array in stored.items()}
    for name, ids in (("user_ids", artifact.user_ids), ("item_ids", artifact.item_ids)):
        found |= {f"{name}.{part}": array for part, array in ids.arrays().items()}
    for name in ("seen", "history", "neighbours"):
        csr: Csr | None = getattr(artifact, name)
        if csr is not None:
            parts = csr._asdict().items()
            found |= {f"{name}.{part}": array for part, array in parts if array is not None}
    for name, column in artifact.columns.items():
        if isinstance(column, Strings):
            texts = column.arrays()
        elif isinstance(column, Category):
            names = Strings.of(column.names).arrays()
            texts = {"codes": column.codes, **{f"names.{k}": v for k, v in names.items()}}
        else:
            texts = {"values": column}
        found |= {f"columns/{name}.{part}": array for part, array in texts.items()}
    for group in ("features", "bases", "fold_in", "adapter"):
        for name, array in (getattr(artifact, group) or {}).items():
            found[f"{group}/{name}"] = array
    return found
