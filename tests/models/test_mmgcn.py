"""MMGCN against numbers computed by hand, and its laws."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from toys import BATCH, ITEMS, OPTIONS, USERS, T, V, linear, put, toy_view

from modalign.models.mmgcn import MMGCN, MMGCNConfig

PREFERENCES = [[0.5, 0.5], [1, -0.5]]
JOIN = [[0.5, 0.1], [-0.2, 0.3]]


def made(view=None, join=(*JOIN, [1, 0], [0, 1]), **options) -> MMGCN:
    config = MMGCNConfig(**{**OPTIONS, "modalities": None, "reg": 1.0, **options})
    model = MMGCN(config, toy_view(T) if view is None else view)
    for tower in model.towers:
        tower.preferences.data = torch.tensor(PREFERENCES)
        for layers, weight in (
            (tower.around, [[1, 0], [0.5, 1]]),
            (tower.own, [[0.5, -0.5], [1, 0.5]]),
            (tower.join, join),
        ):
            for layer in layers:
                layer.weight.data = torch.tensor(linear(weight), dtype=torch.float32)
                if layer.bias is not None:
                    layer.bias.data.zero_()
    return put(model, ids=USERS + ITEMS)


EXPECTED = [[2.697691, 0.554878], [2.288523, 0.229931]]
EXPECTED += [[2.952394, 0.486062], [2.087118, 0.614538], [2.660053, 0.432097]]


def test_vectors_and_loss_of_the_toy():
    model = made()
    assert_close(torch.cat(model.tables()), torch.tensor(EXPECTED), atol=2e-6, rtol=0)
    assert_close(
        model._vectors(torch.tensor([3, 0])), torch.tensor(EXPECTED)[[3, 0]], atol=2e-6, rtol=0
    )
    parts = {name: part.item() for name, part in model.loss(BATCH).items()}
    assert parts == pytest.approx({"bpr": 0.728098, "reg": 0.1 + 0.4375}, abs=2e-6)


def test_the_sum_is_a_concatenation_with_an_identity_below():
    summed = made(combine="sum", join=JOIN)
    assert_close(summed._vectors(), made()._vectors())


def test_scale_and_copies_of_a_modality_change_nothing():
    scaled = [[7 * x for x in row] for row in T]
    assert_close(made(toy_view(scaled))._vectors(), made()._vectors())
    assert_close(made(toy_view(T, T))._vectors(), made()._vectors())
    assert not torch.equal(
        made(toy_view(T, [[1, 0], [0, 1], [1, 1]]))._vectors(), made()._vectors()
    )


@pytest.mark.parametrize("frozen", [False, True])
def test_ids_and_preferences_are_trained_unless_frozen(frozen):
    model = made(frozen_ids=frozen)
    sum(model.loss(BATCH).values()).backward()
    tables = [model.ids, model.towers[0].preferences]
    for table in tables:
        assert (table.grad is None) == frozen
        assert frozen or (table.grad != 0).all()


def test_wide_features_are_projected():
    model = MMGCN(MMGCNConfig(widest=2, content_size=5), toy_view(V, T))
    assert [tower.project is not None for tower in model.towers] == [False, True]
    assert model.towers[1].preferences.shape == (2, 5)
