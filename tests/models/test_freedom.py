"""FREEDOM against dense matrices and loops, and what its pruning may and may not touch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import oracles
from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.errors import DataError
from modalign.models._registry import get
from modalign.models.freedom import FREEDOM, FREEDOMConfig
from modalign.testing.harness import score_all
from modalign.testing.toy import toy_dataset

VIEW = toy_dataset().view()
SMALL = {"embedding_size": 4, "k": 5}


def made(view=VIEW, **options) -> FREEDOM:
    with seeds.torch_seed(3):
        model = FREEDOM(FREEDOMConfig(**{**SMALL, **options}), view)
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.5)
    return model


def batch_of(size: int) -> Batch:
    rng = seeds.torch_generator(1)
    users = torch.randint(VIEW.n_users, (size,), generator=rng)
    positives, negatives = torch.randint(VIEW.n_items, (2, size), generator=rng)
    return Batch(users, positives, negatives)


def by_definition(model: FREEDOM, view, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Final user and item vectors over the given edges."""
    config = model.config
    users, items = (t.detach().double().numpy() for t in (model.users, model.items))
    both = oracles.light_propagation(edges, np.concatenate([users, items]), config.n_layers)
    smooth = oracles.item_graph(view, {"image": 0.1, "text": 0.9}, config.k)
    for _ in range(config.n_item_layers):
        items = smooth @ items
    return both[: view.n_users], both[view.n_users :] + items


def kept_edges(model: FREEDOM) -> np.ndarray:
    edges = np.zeros((VIEW.n_users, VIEW.n_items))
    users, items = model.pruned.edges()
    edges[users.numpy(), items.numpy()] = 1.0
    return edges


@pytest.mark.parametrize(("n_layers", "n_item_layers"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_scores_are_those_of_the_definition(n_layers: int, n_item_layers: int) -> None:
    model = made(n_layers=n_layers, n_item_layers=n_item_layers)
    users, items = by_definition(model, VIEW, oracles.interaction_matrix(VIEW))
    torch.testing.assert_close(
        score_all(get("freedom"), model, VIEW).double(),
        torch.from_numpy(users @ items.T),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("size", [5, 50])  # some of the items, and nearly all
@pytest.mark.parametrize("n_item_layers", [0, 1, 2])
def test_loss_is_bpr_on_the_edges_of_the_epoch_and_of_the_content(
    size: int, n_item_layers: int
) -> None:
    model, batch = made(n_item_layers=n_item_layers, content_weight=0.3), batch_of(size)
    model.on_epoch(0, seeds.torch_generator(5))
    users, items = by_definition(model, VIEW, kept_edges(model))

    def bpr(of_items: np.ndarray) -> float:
        scores = users @ of_items.T
        who = batch.users.tolist()
        chosen = [scores[u, i] for u, i in zip(who, batch.positives.tolist(), strict=True)]
        other = [scores[u, i] for u, i in zip(who, batch.negatives.tolist(), strict=True)]
        return oracles.bpr(chosen, other)

    content = 0.0
    for name, projection in zip(("image", "text"), model.projections, strict=True):
        modality = VIEW.modalities[name]
        x = modality.features.astype(float)
        x[~modality.present] = x[modality.present].mean(axis=0)
        weight, bias = (p.detach().double().numpy() for p in projection.parameters())
        content += bpr(x @ weight.T + bias)
    parts = {name: float(value.detach()) for name, value in model.loss(batch).items()}
    assert parts == pytest.approx({"bpr": bpr(items), "content": 0.3 * content}, rel=1e-4)


def test_pruning_keeps_the_asked_share_and_leaves_scores_alone() -> None:
    model = made(dropout=0.75)
    before = score_all(get("freedom"), model, VIEW)
    model.on_epoch(0, seeds.torch_generator(5))
    kept = kept_edges(model)
    assert kept.sum() == len(VIEW.users) / 4
    assert (kept <= oracles.interaction_matrix(VIEW)).all()
    torch.testing.assert_close(score_all(get("freedom"), model, VIEW), before, rtol=0, atol=0)


def test_popular_edges_go_first() -> None:
    model = made(dropout=0.5)
    degrees = oracles.interaction_matrix(VIEW).sum(axis=0)
    kept = np.zeros(VIEW.n_items)
    for seed in range(200):
        model.on_epoch(0, seeds.torch_generator(seed))
        kept += kept_edges(model).sum(axis=0)
    share = kept[degrees > 0] / (200 * degrees[degrees > 0])
    assert np.corrcoef(np.log(degrees[degrees > 0]), share)[0, 1] < -0.9


def test_without_dropout_every_epoch_has_all_edges() -> None:
    model = made(dropout=0.0)
    model.on_epoch(0, seeds.torch_generator(5))
    assert kept_edges(model).sum() == len(VIEW.users)


def test_without_content_loss_nothing_of_it_is_kept_or_computed() -> None:
    model = made(content_weight=0.0)
    assert list(model.loss(batch_of(5))) == ["bpr"]
    assert {name for name, _ in model.named_parameters()} == {"users", "items"}


def test_data_without_modalities_is_refused() -> None:
    with pytest.raises(DataError, match="modalign encode"):
        made(dataclasses.replace(VIEW, modalities={}))


def test_a_batch_without_negatives_is_refused() -> None:
    with pytest.raises(ValueError, match="negatives"):
        made().loss(Batch(torch.tensor([0]), torch.tensor([0])))
