"""SLMRec against numbers computed by hand, and its propagation of one side at a time."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from toys import BATCH, ITEMS, OPTIONS, USERS, W_T, W_V, T, V, linear, put, toy_view

from modalign.core import seeds
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.models.slmrec import SLMRec, SLMRecConfig

FUSE_USERS = [[1, 0], [0, 1], [0.5, 0], [0, 0.5], [0.5, 0.5], [0, 1]]
FUSE_ITEMS = [[1, 0], [0, 1], [0.5, 0.5], [0, 1], [1, 0], [0.5, -0.5]]


def unit_rows(rows):
    rows = torch.tensor(rows, dtype=torch.float32)
    return (rows / rows.norm(dim=1, keepdim=True)).tolist()


def fused(model, channels, **values):
    zeros = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.ndim == 1}
    put(model, **{name.replace(".", "__"): value for name, value in zeros.items()})
    put(channels, users=USERS, items=ITEMS)
    for layer, weight in zip(channels.content.layers, (W_V, W_T), strict=False):
        layer.weight.data = torch.tensor(linear(weight))
    put(channels, fuse_users__weight=linear(FUSE_USERS), fuse_items__weight=linear(FUSE_ITEMS))
    return put(model, **values)


def made(view=None, **options) -> SLMRec:
    config = SLMRecConfig(**{**OPTIONS, "n_layers": 1, **options})
    model = SLMRec(config, toy_view(unit_rows(V), unit_rows(T)) if view is None else view)
    return fused(
        model,
        model.channels,
        steps__0__0__weight=linear([[1, 0.5], [0, 1]]),
        heads__0__weight=linear([[0.5, 0], [0.5, 1]]),
        steps__1__0__weight=linear([[1, 0], [1, 1]]),
        steps__1__1__weight=linear([[1], [2]]),
        heads__1__weight=linear([[2], [1]]),
    )


def test_vectors_and_loss_of_the_toy():
    model = made()
    users, items = model.tables()
    expected = [[0.286745, 0.546507], [0.483901, 0.326989]]
    assert_close(users, torch.tensor(expected), atol=1e-6, rtol=0)
    expected = [[0.425750, 0.170875], [0.404380, 0.334200], [0.503389, 0.329508]]
    assert_close(items, torch.tensor(expected), atol=1e-6, rtol=0)
    parts = {name: part.item() for name, part in model.loss(BATCH).items()}
    expected = {"main": 0.826396, "channels": 0.1 * (0.681670 + 0.764298)}
    assert parts == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_channels_are_those_of_a_plain_propagation(n_layers):
    with seeds.torch_seed(0):
        channels = SLMRec(
            SLMRecConfig(**{**OPTIONS, "n_layers": n_layers}), toy_view(V, T)
        ).channels
    both = channels.channels(channels.propagate())
    some = channels.channels(channels.propagate(torch.tensor([1]), torch.tensor([2, 0])))
    light = LightGCN(LightGCNConfig(embedding_size=2, n_layers=n_layers), toy_view())
    for at, start in enumerate([channels.items, *channels.content()]):
        light.embeddings.data = torch.cat([channels.users, start]).detach()
        columns = slice(2 * at, 2 * at + 2)
        for ours, theirs in zip(both, light.tables(), strict=True):
            assert_close(ours[:, columns], theirs)
        assert_close(some[0][:, columns], light.tables()[0][[1]])
        assert_close(some[1][:, columns], light.tables()[1][[2, 0]])


def test_an_item_that_lacks_a_modality_leaves_its_step():
    view = toy_view(unit_rows(V), unit_rows(T), missing=(1, 2))
    found = made(view).loss(BATCH)["channels"].item()
    assert found == pytest.approx(0.1 * 0.681670, abs=1e-6)  # one row is left of the second step
