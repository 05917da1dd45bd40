"""All pictures of an artifact in one file, so that opening it does not depend on their number."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from modalign_serve.artifact.strings import Ids

FILE = "pictures.bin"
NAMES = "pictures.names"
STARTS = "pictures.starts"
"""The pictures one after the other, their names, and where each of them starts."""


class PackedPictures:
    """Pictures by name. The index is read when the first picture is asked for.

    Args:
        data: bytes of all pictures.
        index: gives the names, and the place where each picture starts, int64, (n + 1,).
    """

    def __init__(self, data: np.ndarray, index: Callable[[], tuple[Ids, np.ndarray]]) -> None:
        self._data, self._open = data, index
        self._index: tuple[Ids, np.ndarray] | None = None

    def index(self) -> tuple[Ids, np.ndarray]:
        """Names and starts."""
        if self._index is None:
            self._index = self._open()
        return self._index

    def __contains__(self, name: str) -> bool:
        return bool(name) and self.index()[0].row(name) >= 0

    def __len__(self) -> int:
        return len(self.index()[0])

    def read(self, name: str) -> bytes:
        """The content of a picture.

        Raises:
            UnknownIds: there is none of this name.
        """
        names, starts = self.index()
        row = int(names.rows([name])[0])
        return self._data[int(starts[row]) : int(starts[row + 1])].tobytes()


def pack(pictures: Mapping[str, bytes | Path], folder: Path) -> dict[str, np.ndarray]:
    """Write pictures into the file of a folder; returns the arrays of its index by name.

    Args:
        pictures: contents by name, or paths to copy them from.
        folder: of the artifact.
    """
    names = sorted(pictures)
    starts = np.zeros(len(names) + 1, np.int64)
    with (folder / FILE).open("wb") as out:
        for place, name in enumerate(names):
            content = pictures[name]
            if isinstance(content, Path):
                with content.open("rb") as file:
                    shutil.copyfileobj(file, out)
            else:
                out.write(content)
            starts[place + 1] = out.tell()
    parts = Ids.pack(names, "picture").arrays().items()
    return {STARTS: starts, **{f"{NAMES}.{part}": array for part, array in parts}}
