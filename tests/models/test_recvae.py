"""RecVAE against numbers computed by hand, a dense encoder, and its limit, MultiVAE's objective."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import layer_norm, normalize
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Queries
from modalign.models._registry import get
from modalign.models.recvae import RecVAE, RecVAEConfig
from modalign.nn.losses.vae import composite_divergence, normal_kl
from modalign.testing.harness import batches, prepare
from modalign.testing.toy import toy_dataset

VIEW = toy_dataset().view()
BATCH = batches(get("recvae"), VIEW, 20)[0]


def made(**options) -> RecVAE:
    with seeds.torch_seed(1):
        return RecVAE(RecVAEConfig(embedding_size=4, hidden_size=6, **options), VIEW)


def test_the_divergence_computed_by_hand():
    z, mean, log_variance = torch.tensor([[[0.5, -1]], [[0.2, -0.5]], [[-1, 0]]]).double()
    earlier = tuple(torch.tensor([[[0.1, 0.0]], [[-0.5, 0.5]]]).double())
    found = composite_divergence(z, (mean, log_variance), earlier, (0.15, 0.75, 0.1))
    assert found.item() == pytest.approx(0.924136, abs=2e-6)


def test_with_the_standard_normal_alone_the_mean_over_draws_is_that_of_multivae():
    rng = seeds.torch_generator(1)
    mean, log_variance = (torch.randn(3, 4, generator=rng).double() for _ in range(2))
    noise = torch.randn(20_000, 3, 4, generator=rng).double()
    drawn = mean + noise * (0.5 * log_variance).exp()
    broad = tuple(one.expand_as(drawn) for one in (mean, log_variance))
    found = composite_divergence(drawn, broad, broad, (1.0, 0.0, 0.0)).mean(0)
    assert_close(found, normal_kl(mean, log_variance), rtol=0, atol=0.1)


def test_scores_and_loss_equal_dense_layers():
    model = made(dropout=0.0).eval()
    history = BATCH.history.to_dense()
    e = model.encoder
    swish = torch.nn.SiLU()
    hidden = [layer_norm(swish(normalize(history) @ e.table + e.bias), (6,), eps=0.1)]
    for layer in e.layers:
        below = layer(hidden[-1]) + sum(hidden)
        hidden.append(layer_norm(swish(below), (6,), eps=0.1))
    mean, log_variance = e.mean(hidden[-1]), e.log_variance(hidden[-1])
    scores = model.decoder(mean)
    assert_close(model.score(Queries(BATCH.users, BATCH.history)), scores)
    parts = model.loss(BATCH, "encoder")
    nll = -(history * scores.log_softmax(1)).sum(1)
    assert_close(parts["reconstruction"], nll.mean())
    # Without noise the draw is the mean, and the earlier posterior is the encoder's own.
    both = (mean, log_variance)
    divergence = composite_divergence(mean, both, both, (0.15, 0.75, 0.1))
    assert_close(parts["divergence"], (0.005 * history.sum(1) * divergence).mean())
    assert_close(model.loss(BATCH, "decoder")["decoded"], nll.mean())


def test_the_prior_is_copied_every_third_epoch():
    model = made()
    with torch.no_grad():
        model.encoder.bias.add_(1.0)
    for epoch, same in ((1, False), (2, False), (3, True)):
        model.on_epoch(epoch, seeds.torch_generator(epoch))
        assert torch.equal(model.old.bias, model.encoder.bias) is same


def test_the_decoder_reads_the_history_without_dropout():
    model = made(dropout=0.9)
    with torch.no_grad():
        model.encoder.log_variance.weight.zero_()
        model.encoder.log_variance.bias.fill_(-60.0)  # no noise of the draw either
    prepare(model, BATCH)
    noisy = model.loss(BATCH, "encoder")["reconstruction"]
    still = model.loss(BATCH, "decoder")["decoded"]
    scores = model.score(Queries(BATCH.users, BATCH.history))
    nll = -(BATCH.history.to_dense() * scores.log_softmax(1)).sum(1).mean()
    assert_close(still, nll)
    assert noisy != still


def test_the_encoder_of_one_history_gives_the_scores():
    model = made()
    row = VIEW.rows().history(torch.tensor([5]))
    vector = model.history_encoder()(row.col_indices())
    scores = model.score(Queries(torch.tensor([-1]), row))[0]
    assert_close(vector @ model.history_items().T, scores)
