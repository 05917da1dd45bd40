"""DirectAU against numbers computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from modalign.core.interfaces import Batch, Queries
from modalign.core.view import TrainView
from modalign.models.directau import DirectAU, DirectAUConfig

VIEW = TrainView(2, 3, users=torch.tensor([0, 0, 1, 1]), items=torch.tensor([0, 1, 1, 2]))
VECTORS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 2.0], [2.0, -1.0]])
PAIRS = Batch(torch.tensor([0, 1]), positives=torch.tensor([0, 1]))


def made(**options) -> DirectAU:
    model = DirectAU(DirectAUConfig(embedding_size=2, **options), VIEW).double()
    model.embeddings.data = VECTORS.double()
    return model


def parts_of(model: DirectAU, batch: Batch) -> list[float]:
    return [part.item() for part in model.loss(batch).values()]


# Users (1, 0), (0, 1) are orthogonal: exp(-4). Items (1, 1) / sqrt 2, (0, 1): exp(-2 (2 - sqrt 2)).
@pytest.mark.parametrize(
    ("n_layers", "expected"),
    [(0, (0.292893, (-4 - 1.171573) / 2)), (1, (0.226080, (-0.004011 - 1.340584) / 2))],
)
def test_loss_of_two_pairs(n_layers, expected):
    found = parts_of(made(n_layers=n_layers), PAIRS)
    assert found == pytest.approx(expected, abs=2e-6)


def test_a_user_twice_in_a_batch_counts_twice():
    batch = Batch(torch.tensor([0, 0, 1]), positives=torch.tensor([0, 1, 1]))
    expected = (0.861929, (-1.062636 - 0.616335) / 2)
    assert parts_of(made(), batch) == pytest.approx(expected, abs=2e-6)


def test_lengths_change_scores_and_not_the_loss():
    model = made()
    scores = model.score(Queries(torch.tensor([0, 1])))
    assert_close(scores, torch.tensor([[1.0, 0.0, 2.0], [1.0, 2.0, -1.0]]).double())
    before = parts_of(model, PAIRS)
    sum(model.loss(PAIRS).values()).backward()
    gradient = model.embeddings.grad
    assert gradient.abs().sum() > 0
    assert_close(torch.linalg.vecdot(gradient, model.embeddings.data), torch.zeros(5).double())
    model.embeddings.data[3] *= 7
    assert parts_of(model, PAIRS) == pytest.approx(before)
    assert not torch.equal(model.score(Queries(torch.tensor([0, 1]))), scores)


def test_a_batch_of_one_pair_has_no_uniformity():
    batch = Batch(torch.tensor([0]), positives=torch.tensor([0]))
    assert parts_of(made(), batch) == pytest.approx([0.585786, 0.0], abs=1e-6)
