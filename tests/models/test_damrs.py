"""DA-MRS against numbers computed by hand, loops, and LightGCN."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from test_mgcn import BATCH, ITEMS, T, V
from torch.testing import assert_close
from toys import OPTIONS, USERS, put, toy_view

from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.graph.propagate import SparseGraph
from modalign.models._shared.agreeing import agreeing_graphs, common_users
from modalign.models.damrs import DAMRS, DAMRSConfig, divergence, weights
from modalign.models.lightgcn import LightGCN, LightGCNConfig

AGREEING = [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]
COMMON = [[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]]


def made(view=None, **options) -> DAMRS:
    config = DAMRSConfig(**{**OPTIONS, "k": 2, "list_size": 1, **options})
    model = DAMRS(config, toy_view(V, T) if view is None else view)
    model.item_graphs[-1] = SparseGraph(sp.csr_array(np.array(COMMON)))
    return put(model, users=USERS, items=ITEMS)


def test_graphs_vectors_and_loss_of_the_toy():
    model = made()
    for graph in list(model.item_graphs)[:2]:
        assert graph.scipy().toarray() == pytest.approx(np.array(AGREEING), abs=1e-6)
    expected = [[0.245118, 0.282496], [0.087377, 0.411785], [0.625592, 0.028452]]
    assert_close(model.tables()[1], torch.tensor(expected), atol=1e-6, rtol=0)
    parts = {name: part.item() for name, part in model.loss(BATCH).items()}
    expected = {"bpr": 0.371029, "items": 1e-3 * 0.720684, "users": 1.566317e-6}
    assert parts == pytest.approx(expected, abs=1e-6)
    other = Batch(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([2, 2]))
    parts = model.loss(other)
    assert parts["bpr"].item() == pytest.approx(0.392053, abs=1e-6)
    assert sum(parts.values()).item() == pytest.approx(0.393355, abs=2e-6)


def test_weights_of_pairs_are_constants_in_bounds():
    positive = torch.tensor([[0.2, 0.9], [0.4, 0.8], [0.6, 0.7]], requires_grad=True)
    kept, turned = weights(positive.detach(), torch.tensor([[0.5, 0.5]] * 3))
    assert_close(kept, torch.tensor([0.4 * np.exp(-0.08), 0.8 * np.exp(-0.02)]).float())
    assert_close(turned, torch.tensor([0.1, 0.0]))
    found = divergence(torch.ones(1, 1), torch.tensor([[0.3]]), torch.tensor([[-0.2]]))
    assert found.item() == pytest.approx(0.062138, abs=1e-6)


def test_without_edges_it_is_lightgcn_with_half_of_its_loss():
    model = made(align_items_weight=0.0, align_users_weight=0.0)
    for at in range(3):
        model.item_graphs[at] = SparseGraph(sp.csr_array((3, 3)))
    light = LightGCN(LightGCNConfig(embedding_size=2, n_layers=2, reg=0.0), toy_view())
    light.embeddings.data = torch.tensor(USERS + ITEMS)
    for ours, theirs in zip(model.tables(), light.tables(), strict=True):
        assert_close(ours, theirs)
    assert_close(model.loss(BATCH)["bpr"], 0.5 * light.loss(BATCH)["bpr"])


def test_agreeing_neighbours_against_loops(monkeypatch):
    monkeypatch.setattr("modalign.models._shared.agreeing.BLOCK", 7)
    rng = seeds.numpy_generator(0, "agreeing")
    present = np.arange(20) != 5
    two = [
        Modality("v", np.float32(rng.normal(size=(20, 3))), np.ones(20, bool)),
        Modality("t", np.float32(rng.normal(size=(20, 4)) * present[:, None]), present),
    ]
    cosines = []
    for one in two:
        lengths = np.linalg.norm(one.features, axis=1, keepdims=True)
        x = one.features / np.where(lengths > 0, lengths, 1)
        cosines.append(x @ x.T)
    means = [c[np.ix_(m.present, m.present)].mean() for c, m in zip(cosines, two, strict=True)]
    for cosine, graph in zip(cosines, agreeing_graphs(two, 4), strict=True):
        for i in range(20):
            allowed = [
                j
                for j in range(20)
                if j != i
                and present[[i, j]].all()
                and all(c[i, j] >= m for c, m in zip(cosines, means, strict=True))
            ]
            nearest = sorted(allowed, key=lambda j, i=i, c=cosine: -c[i, j])[:3]
            assert set(graph[[i]].indices) == {i, *nearest}


def test_neighbours_by_common_users():
    users = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 3])
    items = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 0, 3])  # one user of item 3 is not enough
    graph = common_users(TrainView(4, 4, users, items), 1).toarray() > 0
    assert graph.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
