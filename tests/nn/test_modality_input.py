import numpy as np
import pytest
import torch
from torch import nn

from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.nn.modality_input import ModalityInput, apart

POLICIES = ["zero", "mean", "neighbours", "learned"]


def make(policy, missing=(1, 4)):
    rng = np.random.default_rng(0)
    present = np.ones(6, bool)
    present[list(missing)] = False
    features = rng.normal(size=(6, 3)).astype(np.float32) * present[:, None]
    text = Modality("text", features, present)
    image = Modality("image", rng.normal(size=(6, 2)).astype(np.float32), np.ones(6, bool))
    rows = torch.arange(6)
    return ModalityInput(
        text, policy, TrainView(2, 6, rows % 2, rows, {"text": text, "image": image})
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_products_equal_those_of_the_filled_table(policy):
    module = make(policy)
    torch.manual_seed(0)
    linear = nn.Linear(3, 5)
    table = module.rows(torch.arange(6))
    torch.testing.assert_close(module(), table)
    torch.testing.assert_close(module.matmul(linear.weight.T), table @ linear.weight.T)
    torch.testing.assert_close(module.linear(linear), linear(table))


def test_the_learned_vector_starts_at_the_mean_and_gets_the_dense_gradient():
    module = make("learned")
    mean = module.features[module.present].mean(dim=0)
    torch.testing.assert_close(module.vector.data, mean)
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    parameters = (module.vector, weight)
    fast = torch.autograd.grad(module.matmul(weight).square().sum(), parameters)
    slow = torch.autograd.grad((module() @ weight).square().sum(), parameters)
    torch.testing.assert_close(fast, slow)


def test_features_are_not_saved_and_nothing_is_trained_in_vain():
    assert list(make("learned").state_dict()) == ["vector"]
    assert not list(make("mean").parameters())
    assert not list(make("learned", missing=()).parameters())


@pytest.mark.parametrize("missing", [(), (1,)])
def test_rows_a_page_long_stand_apart_and_keep_their_numbers(missing):
    rng = np.random.default_rng(0)
    present = ~np.isin(np.arange(4), missing)
    rows = rng.normal(size=(4, 1024)).astype(np.float32) * present[:, None]
    image = Modality("image", rows.copy(), present)
    row = torch.arange(4)
    module = ModalityInput(image, "zero", TrainView(2, 4, row % 2, row, {"image": image}))
    assert module.features.stride(0) % 1024
    assert torch.equal(module(), torch.from_numpy(rows))
    assert torch.equal(module.rows(row[2:]), torch.from_numpy(rows[2:]))
    linear = nn.Linear(1024, 3)
    module.linear(linear).square().sum().backward()
    other = nn.Linear(1024, 3)
    other.load_state_dict(linear.state_dict())
    other(torch.from_numpy(rows)).square().sum().backward()
    torch.testing.assert_close(linear.weight.grad, other.weight.grad)


@pytest.mark.parametrize("writeable", [True, False])
def test_other_rows_share_memory_where_torch_may_write(writeable):
    rows = np.ones((4, 1000), np.float32)
    rows.flags.writeable = writeable
    assert np.shares_memory(apart(rows).numpy(), rows) == writeable
