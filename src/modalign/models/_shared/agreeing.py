"""Item graphs that several sources must agree on: candidates of all modalities, common users."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from modalign.core.modality import Modality
from modalign.core.topk import MASKED, top
from modalign.core.view import TrainView
from modalign.graph.normalize import normalise
from modalign.models._shared.unit import unit

BLOCK = 512
"""Items whose similarities to all others are held at a time."""


def agreeing_graphs(modalities: Sequence[Modality], k: int) -> list[sp.csr_array]:
    """For each modality the graph of an item's k nearest among those that all modalities allow.

    Items j are allowed for i where their cosine reaches the mean cosine in every modality. Blocks
    of rows are compared at a time, in time n^2 (sum of widths).

    Args:
        modalities: of the items.
        k: neighbours, the item itself included.
    """
    n = len(modalities[0])
    whole = torch.from_numpy(np.logical_and.reduce([one.present for one in modalities]))
    directions = []
    for one in modalities:
        x = torch.from_numpy(np.ascontiguousarray(one.features, np.float32))
        directions.append(unit(x) * torch.from_numpy(one.present)[:, None])
    lowest = []
    for x, one in zip(directions, modalities, strict=True):
        total = x.double().sum(0)
        lowest.append(float(total @ total) / max(1, int(one.present.sum())) ** 2)
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in modalities]
    for start in range(0, n, BLOCK):
        rows = torch.arange(start, min(start + BLOCK, n))
        cosines = [x[rows] @ x.T for x in directions]
        allowed = whole[rows, None] & whole
        for cosine, least in zip(cosines, lowest, strict=True):
            allowed &= cosine >= least
        for at, cosine in enumerate(cosines):
            cosine = cosine.masked_fill(~allowed, MASKED)
            cosine[torch.arange(len(rows)), rows] = torch.inf
            values, columns = top(cosine, k)
            there = values > MASKED
            found[at].append((rows[:, None].expand_as(columns)[there], columns[there]))
    return [_binary(edges, n) for edges in found]


def common_users(view: TrainView, k: int) -> sp.csr_array:
    """The graph from an item to the k items that share most users with it, and to itself.

    Only items with two common users or more count; among equal ones the smaller row comes first.
    """
    pairs = view.users.cpu().numpy(), view.items.cpu().numpy()
    matrix = sp.csr_array((np.ones(len(pairs[0]), np.float32), pairs), (view.n_users, view.n_items))
    of_items, n = sp.csr_array(matrix.T), view.n_items
    edges = [(torch.arange(n), torch.arange(n))]
    for start in range(0, n if k else 0, BLOCK):
        rows = torch.arange(start, min(start + BLOCK, n))
        counts = torch.from_numpy((of_items[start : start + BLOCK] @ matrix).toarray())
        counts[torch.arange(len(rows)), rows] = 0
        values, columns = top(counts, k)
        there = values >= 2
        edges.append((rows[:, None].expand_as(columns)[there], columns[there]))
    return _binary(edges, n)


def _binary(edges: Sequence[tuple[Tensor, Tensor]], n: int) -> sp.csr_array:
    rows, columns = (torch.cat(side).numpy() for side in zip(*edges, strict=True))
    ones = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    return normalise(ones, "symmetric")
