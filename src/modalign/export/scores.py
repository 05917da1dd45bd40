"""The form in which a model is served: products of vectors, sums over a history, or ONNX."""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.extmath import randomized_svd
from torch import nn

from modalign.core import seeds
from modalign.core.interfaces import Encodes, Queries, Recommender, Segmented
from modalign.core.sparse import from_scipy, place_in_row, row_of_entries
from modalign.errors import ConfigError
from modalign.export.fidelity import best_of_cells, csr_of, hide, overlap
from modalign_serve.artifact.artifact import Csr
from modalign_serve.artifact.manifest import Kind
from modalign_serve.ranker.foldin import session

K = 20
BLOCK = 256
KEPT = (64, 128, 256, 512)
"""Numbers of entries per row of an item-item matrix, tried in this order."""
ENOUGH = 0.99
"""Minimum overlap of the lists with those of the whole matrix."""
SAMPLE, ENCODED = 500, 50
"""Numbers of users for the comparison of an item-item matrix, and of an encoder."""
SIMILAR = 64
"""Width of the vectors for the similarity of items, for models without item vectors."""


@dataclass(frozen=True)
class ScoringParts:
    """The parts of an artifact that scores are computed from.

    Attributes:
        kind: see `Manifest`.
        users, items: vectors; for a kind other than "factors" only those of items, for similarity.
        loss: differences from the whole matrix.
        segments: named parts of the vectors.
    """

    kind: Kind
    users: np.ndarray | None = None
    items: np.ndarray | None = None
    neighbours: Csr | None = None
    loss: dict[str, Any] | None = None
    encoder: nn.Module | None = None
    segments: tuple[tuple[str, int, int], ...] = ()


def scored(model: Recommender, history: sp.csr_array, seed: int) -> ScoringParts:
    """The form in which a model is served, by the interfaces that it implements.

    A product of tables is served as such, an `Encodes` model by its encoder. For any other model
    that reads histories, the scores of single items are the rows of an item-item matrix, if their
    sums equal the model's scores for a sample of users.

    Args:
        model: a trained model.
        history: the items that it reads of each user, (n_users, n_items).
        seed: seed of the sample.

    Raises:
        ConfigError: the model has none of these forms.
    """
    model.eval()
    with torch.inference_mode():
        if model.factorised:
            users, items = (table.cpu().numpy() for table in model.tables())
            segments = model.vector_segments() if isinstance(model, Segmented) else ()
            return ScoringParts("factors", users, items, segments=segments)
        if isinstance(model, Encodes):
            return _encoded(model, history, seed)
        return _summed(model, history, seed)


def _encoded(model: Encodes, history: sp.csr_array, seed: int) -> ScoringParts:
    encoder, items = model.history_encoder().eval(), model.history_items()
    if items is None:
        return ScoringParts("encoder", items=similar_vectors(history, seed), encoder=encoder)
    edges, width = history.indptr, items.shape[1]
    users = np.zeros((history.shape[0], width), np.float32)
    for row in np.flatnonzero(np.diff(edges)):
        mine = torch.from_numpy(history.indices[edges[row] : edges[row + 1]].astype(np.int64))
        users[row] = encoder(mine).cpu().numpy()
    return ScoringParts("factors", users, items.cpu().numpy(), encoder=encoder)


def similar_vectors(history: sp.csr_array, seed: int) -> np.ndarray:
    """Vectors (n_items, at most 64) of a truncated decomposition of the interactions."""
    rank = max(1, min(SIMILAR, *(n - 1 for n in history.shape)))
    state = seeds.derive(seed, "export", "similar") % 2**32
    _, values, right = randomized_svd(history, n_components=rank, n_iter=3, random_state=state)
    return np.ascontiguousarray((right * values[:, None]).T, np.float32)


def _scores(model: Recommender, rows: sp.csr_array) -> np.ndarray:
    queries = Queries(torch.full((rows.shape[0],), -1), from_scipy(rows))
    return np.asarray(model.score(queries).cpu().numpy(), np.float32)


def encoder_loss(
    model: Recommender, encoder: bytes, history: sp.csr_array, seed: int
) -> dict[str, Any]:
    """Differences of lists and scores between an ONNX encoder and its model, on a few users.

    Args:
        model: the trained model.
        encoder: its encoder as ONNX.
        history: the items that it reads of each user, (n_users, n_items).
        seed: seed of the sample of users.

    Returns:
        Overlap of the lists, mean absolute difference of the scores, and number of users.
    """
    having = np.flatnonzero(np.diff(history.indptr))
    rng = seeds.numpy_generator(seed, "export", "encoder")
    sample = sp.csr_array(history[np.sort(rng.permutation(having)[:ENCODED])])
    with torch.inference_mode():
        true = _scores(model, sample)
    runner, edges = session(encoder), sample.indptr
    rows = [sample.indices[a:b].astype(np.int64) for a, b in pairwise(edges)]
    found = np.stack([runner.run(None, {"items": one})[0] for one in rows])
    error = float(np.abs(found - true).mean())
    for cells in (true, found):
        hide(cells, sample)
    lists = best_of_cells(true, K), best_of_cells(found, K)
    return {f"overlap@{K}": overlap(*lists), "score_error": error, "users": len(rows)}


def _summed(model: Recommender, history: sp.csr_array, seed: int) -> ScoringParts:
    if not model.unseen_users:
        raise _unservable(model)
    n_items = history.shape[1]
    having = np.flatnonzero(np.diff(history.indptr))
    rng = seeds.numpy_generator(seed, "export", "summed")
    sample = sp.csr_array(history[np.sort(rng.permutation(having)[:SAMPLE])])
    whole = _rows_of_matrix(model, n_items)
    true = _scores(model, sample)
    if np.abs(sample @ whole - true).max() > 1e-3 * max(1e-12, float(np.abs(true).max())):
        raise _unservable(model)
    hide(true, sample)
    lists = best_of_cells(true, K)
    for n in KEPT:
        cut = _largest(whole, n)
        cells = np.asarray((sample @ cut).todense(), np.float32)
        hide(cells, sample)
        found = overlap(lists, best_of_cells(cells, K))
        if found >= ENOUGH or cut.nnz == whole.nnz:
            break
    share = float(np.abs(cut.data).sum() / max(1e-12, np.abs(whole.data).sum()))
    loss = {"entries_per_item": n, f"overlap@{K}": found, "weight_kept": share}
    return ScoringParts(
        "neighbours",
        items=similar_vectors(history, seed),
        neighbours=csr_of(cut, values=True),
        loss=loss,
    )


def _unservable(model: Recommender) -> ConfigError:
    return ConfigError(
        "a model whose scores are products of vectors, or sums over the items of a history, or "
        "that has an encoder",
        f"{type(model).__name__}, which has none of these",
        "distil it into a student: modalign distill --teacher RUN --data DATA --out FOLDER",
    )


def _rows_of_matrix(model: Recommender, n_items: int) -> sp.csr_array:
    """Scores for histories of one item each, sparse, (n_items, n_items)."""
    blocks = []
    for start in range(0, n_items, BLOCK):
        stop = min(start + BLOCK, n_items)
        ones, columns = np.ones(stop - start, np.float32), np.arange(start, stop)
        single = sp.csr_array((ones, (columns - start, columns)), shape=(stop - start, n_items))
        blocks.append(sp.csr_array(_scores(model, single)))
    return sp.csr_array(sp.vstack(blocks))


def _largest(matrix: sp.csr_array, n: int) -> sp.csr_array:
    """The n entries of each row with the largest absolute values, the first ones among equals."""
    owner = row_of_entries(matrix)
    order = np.lexsort((-np.abs(matrix.data), owner))
    kept = np.sort(order[place_in_row(np.diff(matrix.indptr)) < n])
    cut = sp.csr_array((matrix.data[kept], (owner[kept], matrix.indices[kept])), shape=matrix.shape)
    cut.sort_indices()
    return cut


def onnx_bytes(encoder: nn.Module, kind: Kind) -> bytes:
    """An encoder as an ONNX model with the input `items`, int64, (n,), for any n of at least 1.

    Args:
        encoder: maps rows of items to a vector or to scores.
        kind: kind of the artifact; "encoder" names the output "scores", others "vector".

    Raises:
        ConfigError: the packages that write ONNX are not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        got = f"no package {error.name}"
        fix = "run pip install 'modalign[export]'"
        raise ConfigError("onnx and onnxscript, to export an encoder", got, fix) from error
    example = torch.tensor([0, 1, 0])
    output = "scores" if kind == "encoder" else "vector"
    n = torch.export.Dim("n", min=1)
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The exporter warns of its own deprecations, which do not concern the caller.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                encoder,
                (example,),
                input_names=["items"],
                output_names=[output],
                dynamic_shapes=({0: n},),
                dynamo=True,
                verbose=False,
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "encoder.onnx"
        program.save(path, include_initializers=True)
        return path.read_bytes()
