"""Read an artifact: check it, then map its arrays into memory; without torch and pickle."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import numpy as np

from modalign_serve.artifact.artifact import Artifact, Category, Column, Csr
from modalign_serve.artifact.leftovers import tidy
from modalign_serve.artifact.manifest import Manifest, read_manifest
from modalign_serve.artifact.pictures import FILE, NAMES, STARTS, PackedPictures
from modalign_serve.artifact.strings import Ids, Strings
from modalign_serve.artifact.write import described, restored
from modalign_serve.errors import ArtifactError

Verify = Literal["auto", "full", "quick"]
FULL_UP_TO = 256 * 2**20
"""Size of an artifact in bytes up to which "auto" compares all hashes."""
SMALL = 2**20
"""Size of a file in bytes up to which "quick" compares its hash."""
SAMPLED = 64
"""Number of ids that are looked up to see whether their hashes are theirs."""
_CHUNK = 2**22
_NUMBERS: Final = "f"
_INTEGERS: Final = "iu"


def read_artifact(folder: str | Path, verify: Verify = "auto") -> Artifact:
    """Open an artifact.

    Args:
        folder: written by `modalign export`.
        verify: "full" compares the hash of every file; "quick" the size of every file and the
            hash of those up to 1 MB, which is fast for any catalogue; "auto" is "full" up to 256 MB
            in all and "quick" above. `Artifact.verified` says which it was.

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
        path = folder / name
        if not path.is_file():
            raise _damaged(path, "no such file")
        size = path.stat().st_size
        if size != file.size:
            raise _damaged(path, f"{size} bytes instead of {file.size}")
        if (mode == "full" or size <= SMALL) and described(path).sha256 != file.sha256:
            raise _damaged(path, "changed content: its checksum differs")
    return _Reader(folder, manifest, mode).artifact()


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"the file {path} as it was exported", what, "copy the artifact again, or export it again"
    )


class _Reader:
    """Arrays by name; a shape that contradicts the manifest is reported as damage."""

    def __init__(self, folder: Path, manifest: Manifest, mode: Literal["full", "quick"]) -> None:
        self.folder, self.manifest, self.mode = folder, manifest, mode
        self.names = {name.removesuffix(".npy") for name in manifest.files if name.endswith(".npy")}

    def array(self, name: str, shape: tuple[int | None, ...], kinds: str = _INTEGERS) -> np.ndarray:
        """One array.

        Args:
            name: without the suffix.
            shape: that it must have; None for any length.
            kinds: letters of numpy for the kinds of numbers it may hold.

        Raises:
            ArtifactError: it does not exist, cannot be read, or is of another shape or kind.
        """
        path = self.folder / f"{name}.npy"
        if name not in self.names:
            raise _damaged(path, "no such name in the manifest")
        try:
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        except Exception:  # noqa: BLE001 - the header of a damaged file raises what it likes
            # An empty array cannot be mapped.
            array = self._loaded(path)
        if array.ndim != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, array.shape, strict=True)
        ):
            raise _damaged(path, f"an array of shape {array.shape} instead of {shape}")
        if array.dtype.kind not in kinds:
            wanted = "integers" if kinds == _INTEGERS else "numbers"
            raise _damaged(path, f"{array.dtype} instead of {wanted}")
        return array

    def _loaded(self, path: Path) -> np.ndarray:
        try:
            found: np.ndarray = np.load(path, allow_pickle=False)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise _damaged(path, what.split("\n", maxsplit=1)[0]) from error
        return found

    def vectors(self, name: str, n: int) -> np.ndarray | None:
        if name not in self.names:
            return None
        kinds = "i" if self.manifest.dtype == "int8" else _NUMBERS
        stored = {"": self.array(name, (n, self.manifest.width or None), kinds)}
        if self.manifest.dtype == "int8":
            stored[".scale"] = self.array(f"{name}.scale", (n,), _NUMBERS)
        return restored(stored)

    def csr(self, name: str, n: int) -> Csr | None:
        if f"{name}.indptr" not in self.names:
            return None
        indptr, indices = (
            self.array(f"{name}.indptr", (n + 1,)),
            self.array(f"{name}.indices", (None,)),
        )
        self.check_offsets(f"{name}.indptr", indptr, len(indices))
        self.check_range(f"{name}.indices", indices, 0, self.manifest.n_items)
        if f"{name}.values" not in self.names:
            return Csr(indptr, indices)
        return Csr(indptr, indices, self.array(f"{name}.values", (len(indices),), _NUMBERS))

    def check_range(self, name: str, values: np.ndarray, low: int, end: int) -> None:
        """Refuse numbers below `low`, or not below `end`."""
        if len(values) and (values.min() < low or values.max() >= end):
            raise _damaged(self.folder / f"{name}.npy", f"numbers outside of {low} to {end - 1}")

    def check_offsets(self, name: str, starts: np.ndarray, end: int) -> None:
        """Refuse offsets that do not ascend from 0 to `end`."""
        ascend = len(starts) and starts[0] == 0 and (starts[1:] >= starts[:-1]).all()
        if not ascend or starts[-1] != end:
            what = f"offsets that do not ascend from 0 to {end}"
            raise _damaged(self.folder / f"{name}.npy", what)

    def strings(self, name: str, n: int | None) -> Strings:
        data = self.array(f"{name}.bytes", (None,), "u")
        starts = self.array(f"{name}.starts", (None if n is None else n + 1,))
        self.check_offsets(f"{name}.starts", starts, len(data))
        if data.itemsize != 1 or (self.mode == "full" and not _is_text(data, starts)):
            raise _damaged(self.folder / f"{name}.bytes.npy", "bytes that are no texts in UTF-8")
        return Strings(data, starts)

    def ids(self, name: str, n: int, kind: str) -> Ids:
        texts = self.strings(name, n)
        hashes = self.array(f"{name}.hashes", (n,), "u")
        order = self.array(f"{name}.order", (n,))
        self.check_range(f"{name}.order", order, 0, n)
        found = Ids(texts.data, texts.starts, hashes, order, kind)
        some = np.linspace(0, n - 1, min(n, SAMPLED)).astype(np.int64)
        ascend = hashes.itemsize == 8 and (hashes[1:] >= hashes[:-1]).all()
        if not ascend or (found.find(found.take(some)) != some).any():
            path = self.folder / f"{name}.hashes.npy"
            raise _damaged(path, "hashes that are not those of the ids")
        return found

    def column(self, name: str, kind: str) -> Column:
        n, place = self.manifest.n_items, f"columns/{name}"
        if kind == "text":
            return self.strings(place, n)
        if kind == "category":
            names = self.strings(f"{place}.names", None)
            codes = self.array(f"{place}.codes", (n,))
            self.check_range(f"{place}.codes", codes, -1, len(names))
            return Category(codes, tuple(names))
        return self.array(f"{place}.values", (n,), _NUMBERS)

    def group(self, name: str) -> list[str]:
        """Names of the arrays of one folder, without the folder."""
        inside = sorted(one for one in self.names if one.startswith(f"{name}/"))
        return [one.removeprefix(f"{name}/") for one in inside]

    def pictures(self) -> PackedPictures | None:
        if FILE not in self.manifest.files:
            return None
        path = self.folder / FILE
        size = self.manifest.files[FILE].size
        data = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)

        def index() -> tuple[Ids, np.ndarray]:
            starts = self.array(STARTS, (None,))
            self.check_offsets(STARTS, starts, size)
            return self.ids(NAMES, len(starts) - 1, "picture"), starts

        found = PackedPictures(data.view(np.ndarray), index)
        if self.mode == "full":
            found.index()
        return found

    def features(self) -> dict[str, np.ndarray]:
        shape = (self.manifest.n_items, None)
        return {
            name: self.array(f"features/{name}", shape, _NUMBERS) for name in self.group("features")
        }

    def bases(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {}
        for name in self.group("bases"):
            known = self.manifest.modalities.get(name, {}).get("width")
            width = features[name].shape[1] if name in features else None
            found[name] = self.array(f"bases/{name}", (known, width), _NUMBERS)
        return found

    def fold_in(self) -> dict[str, np.ndarray]:
        width = self.manifest.width
        shapes = {"map": (width, width), "gram": (width, width), "scale": (1,)}
        return {
            name: self.array(f"fold_in/{name}", shapes[name], _NUMBERS)
            for name in self.group("fold_in")
            if name in shapes
        }

    def adapter(self) -> dict[str, np.ndarray] | None:
        names = self.group("adapter")
        if not names:
            return None
        width, of = self.manifest.width, self.manifest.adapter.get("modalities", ())
        found = {
            f"centre.{one}": self.array(f"adapter/centre.{one}", (None,), _NUMBERS) for one in of
        }
        inputs = sum(len(one) + 1 for one in found.values())
        found["hidden"] = self.array("adapter/hidden", (inputs, None), _NUMBERS)
        hidden = found["hidden"].shape[1]
        shapes = {
            "linear": (inputs, width),
            "bias": (width,),
            "hidden_bias": (hidden,),
            "out": (hidden, width),
        }
        for name, shape in shapes.items():
            found[name] = self.array(f"adapter/{name}", shape, _NUMBERS)
        return found

    def artifact(self) -> Artifact:
        m = self.manifest
        seen = self.csr("seen", m.n_users)
        if seen is None:
            raise _damaged(self.folder / "seen.indptr.npy", "no such name in the manifest")
        features = self.features()
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
            features=features,
            bases=self.bases(features),
            fold_in=self.fold_in(),
            adapter=self.adapter(),
            pictures=self.pictures(),
            folder=self.folder,
            verified=self.mode,
        )


def _is_text(data: np.ndarray, starts: np.ndarray) -> bool:
    """Whether bytes are UTF-8, and every text begins at a character."""
    inner = starts[(starts > 0) & (starts < len(data))]
    if (data[inner] & 0xC0 == 0x80).any():
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _CHUNK):
            decoder.decode(data[start : start + _CHUNK].tobytes())
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
