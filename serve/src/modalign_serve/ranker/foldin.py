"""Fold-in: from a list of items to a user's vector, for users the model was not trained on.

There are three methods, measured at export against the trained vectors of known users; the
manifest names the default and records what each of them reached:

- "map": `u = W^T mean(v_i)`, W a ridge regression from the mean vector of a user's items to the
  trained vector, fitted on known users;
- "ridge": the vector that fits the items best, `u = s (V_h^T V_h + G)^-1 V_h^T 1` with
  `G = weight V^T V + reg I` over the whole catalogue: one step of alternating least squares for
  implicit feedback (Hu, Koren and Volinsky 2008);
- "encoder": the model's own encoder, as ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from modalign_serve.artifact.artifact import Artifact
from modalign_serve.errors import ArtifactError, UnknownName, not_installed

Fold: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From rows of a history and their vectors (n, width) to a user's vector (width,)."""


def folded_by_map(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`mean(vectors) @ weights`, (width,).

    Args:
        vectors: of the history, (n, width), n at least 1.
        weights: W, (width, width).
    """
    found: np.ndarray = vectors.mean(axis=0) @ weights
    return found


def folded_by_ridge(
    vectors: np.ndarray, gram: np.ndarray, inverse: np.ndarray, scale: float = 1.0
) -> np.ndarray:
    """`scale (V_h^T V_h + G)^-1 V_h^T 1`, (width,).

    If the history is shorter than the vectors are wide, the equal
    `G^-1 V_h^T (I + V_h G^-1 V_h^T)^-1 1` is solved instead.

    Args:
        vectors: of the history, V_h, (n, width), n at least 1.
        gram: G, positive definite, (width, width).
        inverse: of G, (width, width).
        scale: that gives the result the length of trained vectors.

    Example:
        >>> one = np.eye(2, dtype=np.float32)
        >>> folded_by_ridge(one[:1], one, one).tolist()
        [0.5, 0.0]
    """
    n, width = vectors.shape
    if n < width:
        spread = vectors @ inverse
        small = spread @ vectors.T
        small.flat[:: n + 1] += 1.0
        found = np.linalg.solve(small, np.ones(n, small.dtype)) @ spread
    else:
        found = np.linalg.solve(vectors.T @ vectors + gram, vectors.sum(axis=0))
    return np.asarray(scale * found, np.float32)


def fold_in_of(artifact: Artifact, method: str | None = None) -> Fold | None:
    """The artifact's fold-in by name, or its default; None if it has none.

    Raises:
        UnknownName: the artifact has no fold-in of this name.
        ArtifactError: a matrix is missing.
    """
    known = _ways(artifact)
    chosen = method if method is not None else artifact.manifest.fold_in.get("default")
    if chosen is None:
        return None
    if chosen not in known:
        raise UnknownName("fold-in", chosen, known or ["(none)"])
    try:
        return known[chosen]()
    except KeyError as error:
        raise ArtifactError(
            f"the matrix of the fold-in {chosen!r}", f"none called {error}", "export the run again"
        ) from error


def _ways(artifact: Artifact) -> Mapping[str, Callable[[], Fold]]:
    ways: dict[str, Callable[[], Fold]] = {}
    held = artifact.fold_in
    if "map" in held:
        ways["map"] = lambda: _map(held["map"])
    if "gram" in held:
        ways["ridge"] = lambda: _ridge(held["gram"], float(held["scale"][0]))
    path = artifact.file("encoder.onnx")
    if path is not None:
        ways["encoder"] = lambda: encoder_fold(session(path))
    return ways


def _map(weights: np.ndarray) -> Fold:
    return lambda rows, vectors: folded_by_map(vectors, weights)


def _ridge(gram: np.ndarray, scale: float) -> Fold:
    inverse = np.linalg.inv(gram.astype(np.float64)).astype(np.float32)
    return lambda rows, vectors: folded_by_ridge(vectors, gram, inverse, scale)


def encoder_fold(runner: Any) -> Fold:
    """The fold-in of an ONNX session: input `items`, output a vector."""

    def fold(rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        found: np.ndarray = runner.run(None, {"items": rows.astype(np.int64)})[0]
        return found

    return fold


def session(model: Path | bytes) -> Any:
    """An onnxruntime session with one thread, from a file or its content.

    Raises:
        ArtifactError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ArtifactError(
            *not_installed("onnxruntime", "to run the encoder of this artifact", "onnx")
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class InterestEncoder:
    """What each interest of a user adds to the scores of all items.

    A model such as BANDVAE scores an item by `log sum_k c_ik` over K interests inferred from a
    user's history. Its encoder returns the cells `c_ik` beside the scores.

    Args:
        path: of the ONNX encoder.
    """

    def __init__(self, path: Path) -> None:
        self._runner: Any = session(path)
        outputs = self._runner.get_outputs()
        self._output = outputs[1].name if len(outputs) > 1 else ""

    @property
    def known(self) -> bool:
        """Whether the encoder returns cells."""
        return bool(self._output)

    def cells(self, history: np.ndarray) -> np.ndarray:
        """Cells c of all items, (n_items, K), not negative.

        Args:
            history: rows of items, at least one.
        """
        found: np.ndarray = self._runner.run([self._output], {"items": history.astype(np.int64)})[0]
        return found


def interests_of(artifact: Artifact) -> InterestEncoder | None:
    """The interests of an artifact's users; None if its model has none."""
    path = artifact.file("encoder.onnx")
    if artifact.manifest.kind != "encoder" or path is None:
        return None
    made = InterestEncoder(path)
    return made if made.known else None
