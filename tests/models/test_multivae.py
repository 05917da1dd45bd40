"""MultiVAE against a dense reference; noise, annealing, exact resume."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Queries
from modalign.core.sparse import csr_tensor
from modalign.models._registry import get
from modalign.models.multivae import MultiVAE, MultiVAEConfig
from modalign.nn.bags import Bags
from modalign.testing.harness import batches, prepare, queries
from modalign.testing.toy import toy_dataset
from modalign.train.trainer import TrainOptions, fit
from oracles import bags_of

VIEW = toy_dataset().view()
BATCH = batches(get("multivae"), VIEW, 20)[0]
HISTORY = BATCH.history.to_dense()


def made(**options) -> MultiVAE:
    with seeds.torch_seed(1):
        return MultiVAE(MultiVAEConfig(embedding_size=4, hidden_size=6, **options), VIEW)


def reference(model: MultiVAE, history: torch.Tensor):
    """Ten dense lines of the paper's section 2, without noise."""
    x = functional.normalize(history, dim=1)
    hidden = torch.tanh(x @ model.encoder + model.encoder_bias)
    mean, log_variance = model.to_latent(hidden).chunk(2, 1)
    logits = torch.tanh(model.from_latent(mean)) @ model.items.T + model.item_bias
    nll = -(history * logits.log_softmax(1)).sum(1).mean()
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
    return logits, nll, kl


def test_without_noise_it_is_the_dense_reference():
    model = made(anneal_steps=10).eval()
    model.updates.fill_(1)
    logits, nll, kl = reference(model, HISTORY)
    assert_close(model.score(Queries(BATCH.users, BATCH.history)), logits)
    parts = model.loss(BATCH)
    assert_close(parts["reconstruction"], nll)
    assert_close(parts["divergence"], 0.1 * kl)


def test_the_mean_over_draws_is_spread_as_the_variance_says():
    model = made(dropout=0.0).train()
    mean, log_variance = model.encode(seen())
    captured = []
    model.decode = lambda latent: captured.append(latent) or torch.zeros(20, VIEW.n_items)
    for seed in range(400):
        model._seed = seed
        model.loss(BATCH)
    draws = torch.stack(captured).detach()
    assert_close(draws.mean(0), mean.detach(), atol=0.25, rtol=0)
    assert_close(draws.var(0).mean(), log_variance.exp().detach().mean(), atol=0.05, rtol=0)


def seen() -> Bags:
    return Bags.of(BATCH.history)


def csr(matrix: torch.Tensor) -> torch.Tensor:
    bags = bags_of(matrix)
    return csr_tensor(bags.starts, bags.columns, bags.weights, tuple(matrix.shape))


def test_dropout_hides_half_and_keeps_the_mean():
    model = made()
    hidden = []
    for seed in range(300):
        model._seed = seed
        hidden.append(model.train().encode(seen())[0])
    off = made(dropout=0.0).train().encode(seen())[0]
    assert_close(torch.stack(hidden).mean(0), off, atol=0.05, rtol=0)
    assert not torch.equal(hidden[0], hidden[1])


def test_scaling_a_history_changes_nothing():
    model = made().eval()
    tripled = Queries(BATCH.users, csr(3 * HISTORY))
    assert_close(model.score(tripled), model.score(Queries(BATCH.users, BATCH.history)))


def test_an_empty_history_has_finite_scores():
    model = made().eval()
    empty = Queries(torch.tensor([-1]), csr(torch.zeros(1, VIEW.n_items)))
    assert bool(model.score(empty).isfinite().all())


def test_updates_are_counted_by_training_alone():
    model = made(anneal_steps=100)
    fit(model, VIEW, TrainOptions(epochs=2, batch_size=20, device="cpu"))
    assert int(model.updates) == 6
    model.scorer().score(queries(get("multivae"), VIEW, torch.arange(3)))
    assert int(model.updates) == 6
    assert model.diagnostics() == {"divergence_weight": pytest.approx(0.06)}


def test_a_run_in_two_parts_is_the_run_in_one(tmp_path):
    def run(epochs, resume, model):
        options = TrainOptions(epochs=epochs, batch_size=20, device="cpu", checkpoint_every=0)
        fit(model, VIEW, options, checkpoint_path=tmp_path / "last.pt", resume=resume)
        return model.state_dict()

    whole = run(4, False, made())
    (tmp_path / "last.pt").unlink()
    run(2, False, made())
    again = run(4, True, made())
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_multidae_has_no_variance_and_no_divergence():
    model = made(variational=False)
    prepare(model, BATCH)
    assert set(model.loss(BATCH)) == {"reconstruction"}
    assert model.to_latent.out_features == 4


def test_a_query_without_history_is_refused():
    with pytest.raises(ValueError, match="histories"):
        made().score(Queries(torch.tensor([0])))
    with pytest.raises(ValueError, match="histories"):
        made().loss(dataclasses.replace(BATCH, history=None))
