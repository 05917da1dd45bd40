"""MLPRec against a plain evaluation of its network, and what it must not depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.models.bpr import BPR, BPRConfig
from modalign.models.mlprec import MLPRec, MLPRecConfig
from modalign.nn.losses.pairwise import bpr_loss, l2_penalty
from modalign.testing.toy import tiny_view

BATCH = Batch(torch.tensor([0, 1, 0]), torch.tensor([0, 2, 1]), torch.tensor([3, 0, 0]))


def made(**options) -> MLPRec:
    with seeds.torch_seed(1):
        return MLPRec(MLPRecConfig(embedding_size=3, **options), tiny_view())


def test_tables_are_the_network_of_the_vectors_row_by_row():
    model = made()
    first, second = model.network.maps
    users, items = model.tables()
    for raw, final in ((model.users, users), (model.items, items)):
        for x, y in zip(raw, final, strict=True):
            hidden = (first.weight @ x + first.bias).clamp_min(0)
            assert_close(y, second.weight @ hidden + second.bias)


def test_loss_is_that_of_the_tables():
    model = made(reg=0.3)
    users, items = model.tables()
    u, i, j = BATCH.users, BATCH.positives, BATCH.negatives
    scores = [(users[u] * items[k]).sum(1) for k in (i, j)]
    parts = model.loss(BATCH)
    assert_close(parts["bpr"], bpr_loss(*scores))
    raw = [model.users[u], model.items[i], model.items[j]]
    assert_close(parts["reg"], 0.3 * l2_penalty(*raw, batch_size=3))


def test_without_layers_it_is_matrix_factorisation():
    model = made(n_layers=0)
    with seeds.torch_seed(1):
        plain = BPR(BPRConfig(embedding_size=3), tiny_view())
    assert_close(model.loss(BATCH)["bpr"], plain.loss(BATCH)["bpr"])


def test_with_residual_it_starts_as_the_product_of_its_tables_and_all_layers_learn():
    model = made(residual=True)
    assert_close(model.tables(), (model.users, model.items))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        sum(model.loss(BATCH).values()).backward()
        optimizer.step()
    first, second = model.network.maps
    assert all(one.weight.grad.abs().max() > 0 for one in (first, second))
    for raw, final in zip((model.users, model.items), model.tables(), strict=True):
        assert_close(final, raw + second(first(raw).relu()))


def test_users_and_items_can_have_networks_of_their_own():
    model = made(shared=False)
    before = model.tables()
    with torch.no_grad():
        model.item_network.maps[0].bias += 1.0
    after = model.tables()
    assert_close(after[0], before[0])
    assert (after[1] - before[1]).abs().max() > 1e-3


def test_neither_features_nor_interactions_reach_it():
    view = tiny_view()
    other = replace(view, users=view.users.flip(0), items=(view.items + 1) % view.n_items)
    models = []
    for one in (view, replace(other, modalities={})):
        with seeds.torch_seed(1):
            models.append(MLPRec(MLPRecConfig(embedding_size=3), one))
    assert_close(models[0].tables(), models[1].tables())


@pytest.mark.parametrize(("n_layers", "count"), [(2, 3_910_912), (1, 3_906_752)])
def test_parameters_are_counted_as_in_the_papers_table(n_layers, count):
    view = replace(tiny_view(), n_users=43_739, n_items=17_239)
    model = MLPRec(MLPRecConfig(n_layers=n_layers), view)
    assert sum(p.numel() for p in model.parameters()) == count


def test_a_batch_without_negatives_is_refused():
    with pytest.raises(ValueError, match="negatives"):
        made().loss(Batch(BATCH.users, BATCH.positives))
