"""SelfCF against numbers computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from modalign.core.interfaces import Queries
from modalign.models.directau import DirectAU, DirectAUConfig
from modalign.models.selfcf import SelfCF, SelfCFConfig
from oracles import SMALL, SMALL_TRIPLES, SMALL_VECTORS


def made(**options) -> SelfCF:
    model = SelfCF(SelfCFConfig(embedding_size=2, n_layers=1, **options), SMALL).double().eval()
    model.embeddings.data = SMALL_VECTORS.clone()
    model.predictor.weight.data = torch.tensor([[1, 1], [0, 1]]).double()
    model.predictor.bias.data = torch.tensor([0.5, 0.0]).double()
    return model


def total(model: SelfCF) -> torch.Tensor:
    return torch.stack(list(model.loss(SMALL_TRIPLES).values())).sum()


def test_loss_of_two_pairs_without_noise():
    parts = [part.item() for part in made(reg=0.01).loss(SMALL_TRIPLES).values()]
    users, items = (0.987085 + 0.508090) / 4, (0.866865 + 0.983481) / 4
    assert parts == pytest.approx([-users, -items, 0.01 * 2.489277], abs=2e-6)


def test_the_target_of_edge_pruning_is_one_step_further():
    assert total(made(noise="edges")).item() == pytest.approx(-0.902249, abs=2e-6)


def test_scores_have_both_directions():
    scores = made().score(Queries(torch.tensor([0, 1])))
    expected = [[4.319544, 4.392767, 3.112437], [3.539214, 3.493718, 2.621320]]
    assert_close(scores, torch.tensor(expected).double(), rtol=0, atol=2e-6)


def test_at_identity_the_gradient_is_a_quarter_of_that_of_alignment():
    model = made()
    model.predictor.weight.data = torch.eye(2).double()
    model.predictor.bias.data.zero_()
    other = DirectAU(
        DirectAUConfig(embedding_size=2, n_layers=1, uniformity_weight=0.0), SMALL
    ).double()
    other.embeddings.data = SMALL_VECTORS.clone()
    total(model).backward()
    sum(other.loss(SMALL_TRIPLES).values()).backward()
    assert other.embeddings.grad.abs().max() > 0.1
    assert_close(model.embeddings.grad, other.embeddings.grad / 4)


def test_noise_is_of_training_only_and_drawn_for_each_step():
    quiet = total(made(dropout=0.5))
    found = set()
    for seed in range(4):
        model = made(dropout=0.5, encoder_edge_drop=0.0).train()
        model._seed = seed
        found.add(total(model).item())
    assert len(found) > 1
    assert_close(total(made(dropout=0.0)), quiet)
    pruned = made(dropout=0.0, encoder_edge_drop=0.9).train()
    assert total(pruned).item() != quiet.item()


def test_mean_cosine_is_that_of_all_pairs():
    x = SMALL_VECTORS[2:] / SMALL_VECTORS[2:].norm(dim=1, keepdim=True)
    model = made()
    model.graph.values.zero_()
    expected = ((x @ x.T).sum() - 3) / 6  # the two users are orthogonal
    assert model.diagnostics()["mean_cosine"] == pytest.approx(float(expected) / 2)
