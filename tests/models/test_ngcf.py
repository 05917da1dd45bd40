"""NGCF against a slow loop over nodes and neighbours, and its linear limit."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import leaky_relu, logsigmoid
from torch.testing import assert_close

from modalign.core import seeds
from modalign.models.ngcf import NGCF, NGCFConfig
from oracles import SMALL, SMALL_TRIPLES

EDGES = {(0, 2), (0, 3), (1, 3), (1, 4)}
NEIGHBOURS = [[j for j in range(5) if {(i, j), (j, i)} & EDGES] for i in range(5)]


def made(**options) -> NGCF:
    with seeds.torch_seed(1):
        return NGCF(
            NGCFConfig(embedding_size=4, n_layers=2, dropout=0.0, **options), SMALL
        ).double()


def slow(model: NGCF) -> torch.Tensor:
    """Final vectors, one message at a time, from equations 3 to 7 or from the release."""
    printed = model.config.form == "paper"
    rows = list(model.embeddings)
    found = [torch.stack(rows)]
    for first, second in zip(model.of_sums, model.of_products, strict=True):
        w, v = first.weight.T, second.weight.T
        new = []
        for i, x in enumerate(rows):
            around = NEIGHBOURS[i]
            if printed:
                message = x @ w
                for j in around:
                    p = (len(around) * len(NEIGHBOURS[j])) ** -0.5
                    message = message + p * (rows[j] @ w + (rows[j] * x) @ v)
                new.append(leaky_relu(message, 0.2))
            else:
                mean = sum((rows[j] for j in around), x) / (len(around) + 1)
                one = leaky_relu(mean @ w + first.bias, 0.2)
                new.append(one + leaky_relu((x * mean) @ v + second.bias, 0.2))
        rows = new
        layer = torch.stack(rows)
        found.append(layer if printed else layer / layer.norm(dim=1, keepdim=True))
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("form", ["release", "paper"])
def test_tables_loss_and_gradient_equal_the_slow_loop(form):
    model, other = made(form=form, reg=0.3), made(form=form, reg=0.3)
    expected = slow(other)
    assert_close(torch.cat(model.tables()), expected)
    u, i, j = SMALL_TRIPLES.users, SMALL_TRIPLES.positives + 2, SMALL_TRIPLES.negatives + 2
    margin = (expected[u] * (expected[i] - expected[j])).sum(1)
    reg = 0.3 / 4 * sum(expected[rows].square().sum() for rows in (u, i, j))
    (reg - logsigmoid(margin).mean()).backward()
    parts = model.loss(SMALL_TRIPLES)
    assert_close(parts["reg"], reg)
    sum(parts.values()).backward()
    for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert_close(mine.grad, theirs.grad, msg=name)


def test_without_products_it_is_a_linear_propagation():
    model = made()
    model.embeddings.data.abs_()
    for first, second in zip(model.of_sums, model.of_products, strict=True):
        first.weight.data = torch.eye(4).double()
        for parameter in (first.bias, second.weight, second.bias):
            parameter.data.zero_()
    mean = torch.eye(5).double()
    for i, around in enumerate(NEIGHBOURS):
        mean[i, around] = 1.0
    mean /= mean.sum(1, keepdim=True)
    x = model.embeddings.detach()
    layers = [x, mean @ x, mean @ mean @ x]
    found = torch.cat(model.tables()).split(4, dim=1)
    for layer, mine in zip(layers[1:], found[1:], strict=True):
        assert_close(mine, layer / layer.norm(dim=1, keepdim=True))
    assert_close(found[0], x)


def test_dropout_acts_in_training_only():
    model = NGCF(NGCFConfig(embedding_size=8, dropout=0.5), SMALL)
    quiet = sum(model.eval().loss(SMALL_TRIPLES).values())
    assert_close(sum(model.loss(SMALL_TRIPLES).values()), quiet)
    assert sum(model.train().loss(SMALL_TRIPLES).values()) != quiet
