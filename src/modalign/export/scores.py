"""How a trained model can be served: as products of vectors, as sums over a history, or as ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn

from modalign.core import seeds
from modalign.core.interfaces import Encodes, Queries, Recommender, Segmented
from modalign.core.sparse import csr_tensor, place_in_row, row_of_entries
from modalign.errors import ConfigError
from modalign.export.fidelity import best_of_cells, csr_of, hide, overlap
from modalign_serve.artifact.artifact import Csr
from modalign_serve.artifact.manifest import Kind
from modalign_serve.ranker.foldin import session

K = 20
BLOCK = 256
KEPT = (64, 128, 256, 512)
"""Entries of a row of an item-item matrix that are tried, the fewest that suffice first."""
ENOUGH = 0.99
"""Overlap of lists with the whole matrix that suffices."""
SAMPLE, ENCODED = 500, 50
"""Users that an item-item matrix, and an encoder, are compared on."""
SIMILAR = 64
"""Width of the vectors that say how alike two items are, for models that have none."""


@dataclass(frozen=True)
class ScoringParts:
    """What the artifact scores with.

    Attributes:
        kind: see `Manifest`.
        users, items: vectors; of a kind other than "factors" the items' alone, for similarity.
        neighbours: the item-item matrix.
        loss: what cutting it costs.
        encoder: to be exported as ONNX.
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
    """How to serve a model, by what it can do.

    A product of tables is served as such, an `Encodes` model by its encoder. Of any other model
    that reads histories the scores of single items are taken as the rows of an item-item matrix,
    if on a sample of users their sums are the model's scores.

    Args:
        model: trained.
        history: what it reads of each user, (n_users, n_items).
        seed: of the sample.

    Raises:
        ConfigError: none of these.
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


def _history(rows: sp.csr_array) -> Tensor:
    indptr, indices = (torch.from_numpy(a.astype(np.int64)) for a in (rows.indptr, rows.indices))
    return csr_tensor(indptr, indices, torch.ones(len(indices)), rows.shape)


def _scores(model: Recommender, rows: sp.csr_array) -> np.ndarray:
    queries = Queries(torch.full((rows.shape[0],), -1), _history(rows))
    return np.asarray(model.score(queries).cpu().numpy(), np.float32)


def encoder_loss(
    model: Recommender, encoder: bytes, history: sp.csr_array, seed: int
) -> dict[str, Any]:
    """How far the lists and scores of an ONNX encoder are from the model's, on a few users."""
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
        f"{type(model).__name__}, which is none of these",
        "distil it into a student: modalign distill --teacher RUN --data DATA --out FOLDER",
    )


def _rows_of_matrix(model: Recommender, n_items: int) -> sp.csr_array:
    """Scores of one item each, sparse; of dense rows the largest entries alone are kept."""
    blocks = []
    for start in range(0, n_items, BLOCK):
        stop = min(start + BLOCK, n_items)
        ones, columns = np.ones(stop - start, np.float32), np.arange(start, stop)
        single = sp.csr_array((ones, (columns - start, columns)), shape=(stop - start, n_items))
        blocks.append(sp.csr_array(_scores(model, single)))
    return sp.csr_array(sp.vstack(blocks))


def _largest(matrix: sp.csr_array, n: int) -> sp.csr_array:
    """The n largest entries of each row by size, the first ones of equals."""
    owner = row_of_entries(matrix)
    order = np.lexsort((-np.abs(matrix.data), owner))
    kept = np.sort(order[place_in_row(np.diff(matrix.indptr)) < n])
    cut = sp.csr_array((matrix.data[kept], (owner[kept], matrix.indices[kept])), shape=matrix.shape)
    cut.sort_indices()
    return cut
