"""Read an artifact: check it, then map its arrays into memory; without torch and pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from modalign_serve.artifact.artifact import Artifact, Category, Column, Csr
from modalign_serve.artifact.leftovers import tidy
from modalign_serve.artifact.manifest import Manifest, read_manifest
from modalign_serve.artifact.strings import Ids, Strings
from modalign_serve.artifact.write import described, restored
from modalign_serve.errors import ArtifactError

Verify = Literal["auto", "full", "quick"]
FULL_UP_TO = 256 * 2**20
"""Size of an artifact in bytes up to which "auto" compares all hashes."""
SMALL = 2**20
"""Size of a file in bytes up to which "quick" compares its hash."""


def read_artifact(folder: str | Path, verify: Verify = "auto") -> Artifact:
    """Open an artifact.

    Args:
        folder: written by `modalign export`.
        verify: "full" compares the hash of every file; "quick" the size of every file and the
            hash of those up to 1 MB, without pictures, which is fast for any catalogue; "auto" is
            "full" up to 256 MB in all and "quick" above. `Artifact.verified` says which it was.

    Raises:
        ArtifactError: there is no artifact, it has another schema, or a file is missing, cut or
            changed. The first such file is named.
    """
    folder = Path(folder)
    if not folder.exists():
        tidy(folder)  # a killed export may have left the old artifact under another name
    manifest = read_manifest(folder)
    total = sum(file.size for file in manifest.files.values())
    mode: Literal["full", "quick"]
    mode = "full" if verify == "full" or (verify == "auto" and total <= FULL_UP_TO) else "quick"
    for name, file in manifest.files.items():
        if mode == "quick" and name.startswith("images/"):
            continue
        path = folder / name
        if not path.is_file():
            raise _damaged(path, "no such file")
        size = path.stat().st_size
        if size != file.size:
            raise _damaged(path, f"{size} bytes instead of {file.size}")
        if (mode == "full" or size <= SMALL) and described(path).sha256 != file.sha256:
            raise _damaged(path, "changed content: its checksum differs")
    return _Reader(folder, manifest).artifact(mode)


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"the file {path} as it was exported", what, "copy the artifact again, or export it again"
    )


class _Reader:
    """Arrays by name; a shape that contradicts the manifest is reported as damage."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.names = {name.removesuffix(".npy") for name in manifest.files if name.endswith(".npy")}

    def array(self, name: str, shape: tuple[int | None, ...] | None = None) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        if name not in self.names:
            raise _damaged(path, "no such name in the manifest")
        try:
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        except ValueError:
            # An empty array cannot be mapped.
            array = self._loaded(path)
        if shape is not None and (
            array.ndim != len(shape)
            or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True))
        ):
            raise _damaged(path, f"an array of shape {array.shape} instead of {shape}")
        return array

    def _loaded(self, path: Path) -> np.ndarray:
        try:
            found: np.ndarray = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise _damaged(path, str(error).split("\n")[0]) from error
        return found

    def vectors(self, name: str, n: int) -> np.ndarray | None:
        if name not in self.names:
            return None
        stored = {"": self.array(name, (n, self.manifest.width or None))}
        if self.manifest.dtype == "int8":
            stored[".scale"] = self.array(f"{name}.scale", (n,))
        return restored(stored)

    def csr(self, name: str, n: int) -> Csr | None:
        if f"{name}.indptr" not in self.names:
            return None
        values = self.array(f"{name}.values") if f"{name}.values" in self.names else None
        indptr, indices = self.array(f"{name}.indptr", (n + 1,)), self.array(f"{name}.indices")
        if len(indices) != indptr[-1] or (values is not None and len(values) != len(indices)):
            raise _damaged(
                self.folder / f"{name}.indices.npy", f"{len(indices)} entries, not {indptr[-1]}"
            )
        return Csr(indptr, indices, values)

    def strings(self, name: str, n: int | None) -> Strings:
        shape = (None if n is None else n + 1,)
        return Strings(self.array(f"{name}.bytes"), self.array(f"{name}.starts", shape))

    def ids(self, name: str, n: int, kind: str) -> Ids:
        texts = self.strings(name, n)
        hashes, order = self.array(f"{name}.hashes", (n,)), self.array(f"{name}.order", (n,))
        return Ids(texts.data, texts.starts, hashes, order, kind)

    def column(self, name: str, kind: str) -> Column:
        n, place = self.manifest.n_items, f"columns/{name}"
        if kind == "text":
            return self.strings(place, n)
        if kind == "category":
            names = self.strings(f"{place}.names", None)
            return Category(self.array(f"{place}.codes", (n,)), tuple(names))
        return self.array(f"{place}.values", (n,))

    def group(self, name: str) -> dict[str, np.ndarray]:
        inside = sorted(one for one in self.names if one.startswith(f"{name}/"))
        return {one.removeprefix(f"{name}/"): self.array(one) for one in inside}

    def artifact(self, mode: Literal["full", "quick"]) -> Artifact:
        m = self.manifest
        seen = self.csr("seen", m.n_users)
        if seen is None:
            raise _damaged(self.folder / "seen.indptr.npy", "no such name in the manifest")
        return Artifact(
            manifest=m,
            user_ids=self.ids("user_ids", m.n_users, "user"),
            item_ids=self.ids("item_ids", m.n_items, "item"),
            seen=seen,
            counts=self.array("counts", (m.n_items,)),
            users=self.vectors("users", m.n_users),
            items=self.vectors("items", m.n_items),
            history=self.csr("history", m.n_users),
            neighbours=self.csr("neighbours", m.n_items),
            columns={name: self.column(name, kind) for name, kind in m.columns.items()},
            features=self.group("features"),
            bases=self.group("bases"),
            fold_in=self.group("fold_in"),
            adapter=self.group("adapter") or None,
            folder=self.folder,
            verified=mode,
        )
