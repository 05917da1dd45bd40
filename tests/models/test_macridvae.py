"""MacridVAE against numbers computed by hand and dense arithmetic; its limit of one concept."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Batch, Queries
from modalign.core.sparse import csr_tensor
from modalign.models import macridvae
from modalign.models._registry import get
from modalign.models.macridvae import MacridVAE, MacridVAEConfig
from modalign.testing.harness import batches, prepare
from modalign.testing.toy import toy_dataset
from oracles import SMALL, SMALL_VECTORS

VIEW = toy_dataset().view()
BATCH = batches(get("macridvae"), VIEW, 20)[0]


def made(view=VIEW, **options) -> MacridVAE:
    options = {"embedding_size": 4, "hidden_size": 6, "temperature": 0.5, **options}
    with seeds.torch_seed(1):
        return MacridVAE(MacridVAEConfig(**options), view)


def small() -> MacridVAE:
    model = made(SMALL, embedding_size=2, n_factors=2).double().eval()
    model.concepts.table.data = SMALL_VECTORS[2:].clone()
    model.concepts.prototypes.data = torch.tensor([[1, 0.5], [1, -1]]).double()
    return model


def test_shares_and_likelihood_computed_by_hand():
    model = small()
    expected = [[0.869593, 0.130407], [0.909590, 0.090410], [0.332396, 0.667604]]
    shares = macridvae._shares(model)
    assert_close(shares, torch.tensor(expected).double(), rtol=0, atol=2e-6)
    # An encoder whose factors are (1, 0) and (0, 1) whatever the concept reads.
    model.concepts.first.data.zero_()
    model.concepts.second.weight.data.zero_()
    found = []
    for factor in torch.eye(2):
        model.concepts.second.bias.data = torch.cat([factor, torch.zeros(2)]).double()
        history = csr_tensor(
            torch.tensor([0, 2]), torch.tensor([0, 1]), torch.ones(2).double(), (1, 3)
        )
        found.append(model.score(Queries(torch.tensor([-1]), history))[0])
    # Both factors alike: the mixture is that factor's cosine over the temperature.
    units = normalize(SMALL_VECTORS[2:], dim=1) / 0.5
    assert_close(torch.stack(found), units.T)


def dense(model: MacridVAE, history: torch.Tensor):
    """Scores and divergence without noise, from the equations."""
    c, t = model.concepts, model.config.temperature
    items, prototypes = normalize(c.table, dim=1), normalize(c.prototypes, dim=1)
    shares = (items @ prototypes.T / t).softmax(1)
    total, divergence = 0.0, 0.0
    for k in range(model.config.n_factors):
        hidden = torch.tanh(normalize(history * shares[:, k]) @ c.first + c.first_bias)
        mean, o = c.second(hidden).chunk(2, dim=1)
        total = total + shares[:, k] * (normalize(mean) @ items.T / t).exp()
        divergence = divergence + 0.5 * (o + (-o).exp() - 1).sum(1)
    return total.log(), divergence


@pytest.mark.parametrize("n_factors", [1, 3])
def test_without_noise_it_is_the_dense_arithmetic(n_factors):
    model = made(n_factors=n_factors).eval()
    model.updates.fill_(4)
    history = BATCH.history.to_dense()
    scores, divergence = dense(model, history)
    assert_close(model.score(Queries(BATCH.users, BATCH.history)), scores)
    parts = model.loss(BATCH)
    nll = -(history * scores.log_softmax(1)).sum(1).mean()
    assert_close(parts["reconstruction"], nll)
    assert_close(parts["divergence"], 0.2 * divergence.mean())


def test_with_one_concept_the_share_is_one_and_scores_are_cosines():
    model = made(n_factors=1)
    prepare(model, BATCH)
    assert_close(macridvae._shares(model), torch.ones(40, 1))
    row = VIEW.rows().history(torch.tensor([2]))
    table = normalize(model.concepts.table, dim=1)
    factor = model.concepts(macridvae.Bags.of(row), table, None).factors[0, 0]
    assert_close(model.score(Queries(torch.tensor([2]), row))[0], table @ factor / 0.5)
    assert_close(factor.norm(), torch.tensor(1.0))


def test_gumbel_noise_can_be_left_out():
    losses = {}
    for gumbel in (True, False):
        model = made(gumbel=gumbel, dropout=0.0, prior_std=1e-9)
        prepare(model, BATCH)
        losses[gumbel] = model.loss(BATCH)["reconstruction"]
    quiet = made(dropout=0.0).eval().loss(BATCH)["reconstruction"]
    assert_close(losses[False], quiet)
    assert losses[True] != quiet


def test_the_encoder_and_the_explanation_agree_with_the_scores():
    model = made(n_factors=3)
    row = VIEW.rows().history(torch.tensor([5]))
    scores, cells = model.history_encoder()(row.col_indices())
    assert_close(scores, model.score(Queries(torch.tensor([-1]), row))[0])
    found = model.explain(row, n_items=4)
    best = cells.T.topk(4)
    assert torch.equal(found.ratings.index[0], best.indices)
    assert_close(found.ratings.scores[0], best.values.log() + 2.0)


def test_a_batch_is_the_mean_of_its_users():
    model = made().eval()
    one = [Batch(BATCH.users[:1], history=VIEW.rows().history(u[None])) for u in BATCH.users[:2]]
    two = Batch(BATCH.users[:2], history=VIEW.rows().history(BATCH.users[:2]))
    expected = torch.stack([model.loss(b)["reconstruction"] for b in one]).mean()
    assert_close(model.loss(two)["reconstruction"], expected)
