"""Encoded rows on disk, by the hash of what they were made from, so that nothing is encoded twice.

They lie in the user's cache folder, or where `MODALIGN_CACHE` says (`off` keeps none): one folder
for each encoder with its options and weights, and in it files of rows with the hashes of their
inputs. Rows are written while an encoding runs, so that an interrupted one goes on where it was.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from modalign.core.files import write_aside
from modalign.encoding.encoders.encoder import facts_hash

LOG = logging.getLogger(__name__)
LARGEST = 10 * 2**30
"""Bytes of all rows together; beyond, the files that were not read for longest are removed."""
KEY = np.dtype("S32")
"""A hash of an input: 32 hexadecimal digits."""
_SMALL = 4096
"""Files with fewer rows are brought together at the end of an encoding."""


def cache_folder() -> Path | None:
    """The folder of all encoded rows; None where the user wants none."""
    named = os.environ.get("MODALIGN_CACHE")
    if named is not None and named.lower() in ("", "0", "off", "none"):
        return None
    if named is not None:
        return Path(named) / "encoded"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "modalign" / "encoded"


class RowCache:
    """Rows of one encoder on disk.

    Args:
        root: the folder of all encoders.
        facts: all that a row depends on besides its input: the encoder, its weights, options.

    Example:
        >>> import tempfile
        >>> cache = RowCache(Path(tempfile.mkdtemp()), {"encoder": "mine"})
        >>> cache.keep(np.array([b"a" * 32]), np.ones((1, 3), np.float32))
        >>> [(place.tolist(), rows.tolist()) for place, rows in
        ...  cache.known(np.array([b"b" * 32, b"a" * 32]), 3)]
        [([1], [[1.0, 1.0, 1.0]])]
    """

    def __init__(self, root: Path, facts: Mapping[str, Any]) -> None:
        name = re.sub(r"[^A-Za-z0-9-]+", "-", str(facts.get("encoder", "encoder")))[:40]
        self.root, self.folder = root, root / f"{name}-{facts_hash(facts)}"
        self._broken = False

    def known(self, keys: np.ndarray, dim: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places in `keys` with their rows, file by file; a place comes once.

        Args:
            keys: distinct hashes, sorted.
            dim: width of a row; files of another width are removed.
        """
        open_places = np.ones(len(keys), bool)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for path in self._files():
            if not open_places.any():
                return
            held = np.empty(0, KEY)
            try:
                with safe_open(path, framework="numpy") as file:
                    held = np.ascontiguousarray(file.get_tensor("keys")).view(KEY).ravel()
                    place = np.searchsorted(ordered, held).clip(max=len(ordered) - 1)
                    hits = ordered[place] == held
                    hits[hits] = open_places[order[place[hits]]]
                    if not hits.any():
                        continue
                    rows = file.get_tensor("rows")
            except (OSError, SafetensorError, ValueError, IndexError):
                # Cut off, or being brought together by another process: encoded again.
                rows = np.empty((0, 0), np.float32)
            if rows.shape != (len(held), dim):
                path.unlink(missing_ok=True)
                continue
            where = order[place[hits]]
            open_places[where] = False
            self._touch(path)
            yield where, rows[hits]

    def keep(self, keys: np.ndarray, rows: np.ndarray) -> None:
        """Write rows; where the disk refuses, a warning is logged once and nothing is kept."""
        if self._broken or not len(keys):
            return
        path = self.folder / f"{time.time_ns():020d}-{os.getpid()}.rows"
        try:
            self._write(path, keys, rows)
        except (OSError, SafetensorError) as error:
            self._broken = True
            LOG.warning("encoded rows are not kept in %s: %s", self.folder, error)

    def tidy(self) -> None:
        """Bring small files together, and remove the oldest ones where all are too large."""
        small = []
        for path in self._files():
            try:
                with safe_open(path, framework="numpy") as file:
                    if file.get_slice("keys").get_shape()[0] < _SMALL:
                        small.append((path, file.get_tensor("keys"), file.get_tensor("rows")))
            except (OSError, SafetensorError):
                path.unlink(missing_ok=True)
        widths = {rows.shape[1] for _, _, rows in small}
        if len(small) > 1 and len(widths) == 1 and not self._broken:
            keys = np.concatenate([one[1] for one in small])
            rows = np.concatenate([one[2] for one in small])
            distinct, first = np.unique(
                np.ascontiguousarray(keys).view(KEY).ravel(), return_index=True
            )
            self.keep(distinct, rows[first])
            if not self._broken:
                for path, _, _ in small:
                    path.unlink(missing_ok=True)
        self._trim()

    def _trim(self) -> None:
        try:
            found = [(path, path.stat()) for path in self.root.glob("*/*.rows")]
        except OSError:
            return
        total = sum(stat.st_size for _, stat in found)
        for path, stat in sorted(found, key=lambda one: one[1].st_mtime):
            if total <= LARGEST:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.rows"))

    @staticmethod
    def _write(path: Path, keys: np.ndarray, rows: np.ndarray) -> None:
        plain = np.ascontiguousarray(keys.astype(KEY)).view(np.uint8).reshape(len(keys), -1)
        with write_aside(path) as aside:
            save_file({"keys": plain, "rows": np.ascontiguousarray(rows, np.float32)}, aside)

    @staticmethod
    def _touch(path: Path) -> None:
        try:
            path.touch()
        except OSError:
            return
