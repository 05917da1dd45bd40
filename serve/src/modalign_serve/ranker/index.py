"""Approximate search for catalogues of a million items: a faiss HNSW graph of inner products.

Inner products of vectors of different lengths are not a metric. The graph is therefore built on
vectors with one more coordinate, `sqrt(L^2 - |v|^2)` with L the maximum length, for which the
largest inner products with `(u, 0)` are exactly the nearest neighbours (Bachrach et al., RecSys
2014).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from modalign_serve.artifact.artifact import Artifact
from modalign_serve.errors import ArtifactError, not_installed
from modalign_serve.ranker.catalogue import Catalogue
from modalign_serve.ranker.people import Block

Search = Literal["auto", "exact", "hnsw"]

LINKS = 32
BUILD = 120
"""Neighbours of a node, and candidates considered while the graph is built."""
SEARCH = (64, 128, 256, 512, 768, 1024, 2048)
"""Candidates considered in a search; the first number that suffices is taken. Items in tight
clusters need far more than items that are spread."""
ENOUGH = 0.985
"""Recall against exact search at which tuning stops."""
MAX_CANDIDATES = 4096
"""Maximum number of candidates; if more items are hidden, every item is scored instead."""
FROM = 1_000_000
"""Number of items from which an export builds an index by default."""


def faiss_module() -> Any:
    """The module faiss.

    Raises:
        ArtifactError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise ArtifactError(
            *not_installed("faiss", "to search the index of this artifact", "index")
        ) from error
    return faiss


def lifted(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, d) with one more coordinate that makes all of them equally long, (n, d + 1).

    Example:
        >>> lifted(np.array([[3.0, 0.0], [0.0, 5.0]])).tolist()
        [[3.0, 0.0, 4.0], [0.0, 5.0, 0.0]]
    """
    squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    rest = np.sqrt(np.maximum(squares.max(initial=0.0) - squares, 0.0))
    return np.concatenate([vectors, rest[:, None]], axis=1).astype(np.float32)


class Hnsw:
    """A graph over the trained items.

    Args:
        index: of faiss.
        search: candidates considered in a search.
    """

    def __init__(self, index: Any, search: int = SEARCH[-1]) -> None:
        self._index, self._faiss, self.search = index, faiss_module(), search

    @classmethod
    def build(cls, vectors: np.ndarray, links: int = LINKS, build: int = BUILD) -> Hnsw:
        """Build a graph; this takes minutes for a million items.

        Args:
            vectors: of the items, (n, d).
            links: neighbours of each item.
            build: candidates considered for each item.
        """
        faiss = faiss_module()
        index = faiss.IndexHNSWFlat(vectors.shape[1] + 1, links)
        index.hnsw.efConstruction = build
        index.add(lifted(vectors))
        return cls(index)

    @classmethod
    def read(cls, path: Path, search: int = SEARCH[-1]) -> Hnsw:
        """Open a file.

        Raises:
            ArtifactError: it is not an index.
        """
        faiss = faiss_module()
        try:
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), search)
        except RuntimeError as error:
            raise ArtifactError(
                f"an index in {path}", str(error).split("\n")[0][:200], "export the run again"
            ) from error

    def write(self, path: Path) -> None:
        """Write a file."""
        self._faiss.write_index(self._index, str(path))

    def tune(self, users: np.ndarray, exact: np.ndarray) -> float:
        """Find the number of candidates that suffices; the share of the exact lists it finds.

        Args:
            users: vectors (B, d).
            exact: rows of the best items of each, (B, k).
        """
        found = 0.0
        for self.search in SEARCH:
            near = self.candidates(users, exact.shape[1])
            found = float((near[:, :, None] == exact[:, None, :]).any(axis=2).mean())
            if found >= ENOUGH:
                break
        return found

    def candidates(self, users: np.ndarray, n: int, search: int | None = None) -> np.ndarray:
        """Rows of approximately the n best items of each user, (B, n); -1 if fewer were found.

        Args:
            users: vectors (B, d).
            n: length of the lists.
            search: candidates considered, at least n; None takes the tuned number.
        """
        looked = max(n, search or self.search)
        padded = np.zeros((len(users), users.shape[1] + 1), np.float32)
        padded[:, :-1] = users
        parameters = self._faiss.SearchParametersHNSW(efSearch=looked)
        found: np.ndarray = self._index.search(padded, n, params=parameters)[1]
        return found


def index_of(artifact: Artifact, search: Search) -> Hnsw | None:
    """The index to search, or None for exact search.

    Raises:
        ArtifactError: "hnsw" is asked for and the artifact has no index, or faiss is missing.
    """
    path = artifact.file("index.faiss")
    if search == "hnsw" and path is None:
        raise ArtifactError(
            "an artifact with an index", "one without", "export it again with --index hnsw"
        )
    if search == "exact" or path is None:
        return None
    return Hnsw.read(path, int(artifact.manifest.index.get("search", SEARCH[-1])))


def looked_up(
    index: Hnsw, block: Block, owner: np.ndarray, hidden: np.ndarray, k: int, catalogue: Catalogue
) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows and scores (B, k) of what the index finds, best first; None if it finds too few.

    Candidates are scored again, so scores equal those of exact search. Added items, which are not
    in the index, are candidates for all users.

    Args:
        index: over the trained items.
        block: users with vectors.
        owner: of each hidden item, its place in the block.
        hidden: rows of items not to be listed.
        k: length of the lists, at most the size of the catalogue.
        catalogue: the items.
    """
    if block.vectors is None:
        return None
    most = int(np.bincount(owner, minlength=block.n).max(initial=0))
    n = min(k + most, catalogue.n_trained)
    if n > MAX_CANDIDATES:
        return None
    found = index.candidates(block.vectors, n)
    added = np.arange(catalogue.n_trained, len(catalogue))
    rows = np.concatenate([found, np.broadcast_to(added, (block.n, len(added)))], axis=1)
    vectors = catalogue.vectors(np.maximum(rows, 0))
    scores = (vectors @ block.vectors[:, :, None])[:, :, 0]
    width = len(catalogue)
    gone = np.isin(np.arange(block.n)[:, None] * width + rows, owner * width + hidden)
    scores[gone | (rows < 0)] = -np.inf
    order = np.lexsort((rows, -scores))[:, :k]
    best = np.take_along_axis(scores, order, axis=1)
    if best.shape[1] < k or np.isneginf(best).any():
        return None
    return np.take_along_axis(rows, order, axis=1), best
