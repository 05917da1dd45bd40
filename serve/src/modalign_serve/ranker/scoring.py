"""From users to scores of all items, for each kind of artifact."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from modalign_serve.artifact.artifact import Artifact, Csr
from modalign_serve.errors import ArtifactError
from modalign_serve.ranker.catalogue import Catalogue
from modalign_serve.ranker.foldin import session
from modalign_serve.ranker.people import Block


class Scores(Protocol):
    """How a kind of artifact scores.

    Attributes:
        reads_history: whether it needs what users had, rather than their vectors.
    """

    reads_history: bool

    def fill(self, block: Block, catalogue: Catalogue, out: np.ndarray) -> None:
        """Compute the scores of all items of the catalogue.

        Args:
            block: the users.
            catalogue: the items.
            out: written to, float32, (block.n, len(catalogue)).
        """
        ...


class _FactorScores:
    """Inner products of user and item vectors."""

    reads_history = False

    def __init__(self, items: np.ndarray) -> None:
        self._columns = items.T

    def fill(self, block: Block, catalogue: Catalogue, out: np.ndarray) -> None:
        """`vectors @ items.T`, for trained and added items."""
        if block.vectors is None:
            return
        trained = catalogue.n_trained
        np.matmul(block.vectors, self._columns, out=out[:, :trained])
        if len(catalogue) > trained:
            np.matmul(block.vectors, catalogue.added.vectors.T, out=out[:, trained:])


class _NeighbourScores:
    """Sums of the rows of the item-item matrix over a history."""

    reads_history = True

    def __init__(self, neighbours: Csr) -> None:
        if neighbours.values is None:
            raise ArtifactError("weights of the item-item matrix", "none", "export the run again")
        self._neighbours, self._values = neighbours, neighbours.values

    def fill(self, block: Block, catalogue: Catalogue, out: np.ndarray) -> None:
        """`history @ matrix`; an added item adds nothing and scores 0."""
        owner, items = block.history
        known = items < catalogue.n_trained
        owner, items = owner[known], items[known]
        entry, at = self._neighbours.places(items)
        width = out.shape[1]
        flat = owner[entry] * width + self._neighbours.indices[at]
        sums = np.bincount(flat, weights=self._values[at], minlength=out.size)
        out[:] = sums.reshape(out.shape)


class _EncoderScores:
    """The model itself, as ONNX, from a history to the scores of all items."""

    reads_history = True

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def fill(self, block: Block, catalogue: Catalogue, out: np.ndarray) -> None:
        """One run for each user; an added item scores minus infinity."""
        owner, items = block.history
        known = items < catalogue.n_trained
        owner, items = owner[known], items[known].astype(np.int64)
        edges = np.searchsorted(owner, np.arange(block.n + 1))
        out[:, catalogue.n_trained :] = -np.inf
        for place in range(block.n):
            mine = items[edges[place] : edges[place + 1]]
            if len(mine):
                out[place, : catalogue.n_trained] = self._runner.run(["scores"], {"items": mine})[0]


def scores_of(artifact: Artifact) -> Scores:
    """How this artifact scores.

    Raises:
        ArtifactError: a part that its kind needs is missing.
    """
    kind = artifact.manifest.kind
    if kind == "factors" and artifact.items is not None and artifact.users is not None:
        return _FactorScores(artifact.items)
    if kind == "neighbours" and artifact.neighbours is not None:
        return _NeighbourScores(artifact.neighbours)
    path = artifact.file("encoder.onnx")
    if kind == "encoder" and path is not None:
        return _EncoderScores(session(path))
    needs = {"factors": "users and items", "neighbours": "neighbours", "encoder": "encoder.onnx"}
    raise ArtifactError(
        f"{needs[kind]} in an artifact of the kind {kind!r}", "none", "export the run again"
    )
