import pytest
import torch
from tiny import tiny_view

from modalign.core.view import TrainView
from modalign.errors import DataError
from modalign.train.batches import PairBatches, UserBatches

CPU = torch.device("cpu")


def test_an_epoch_has_every_pair_once_with_an_unseen_negative():
    view = tiny_view()
    pairs = set(zip(view.users.tolist(), view.items.tolist(), strict=True))
    data = PairBatches(view, 64, negatives=True)
    batches = list(data.epoch(torch.Generator().manual_seed(1), CPU))
    assert [len(b) for b in batches] == [64, 64, 64, 8]
    assert len(data) == 4
    found = [p for b in batches for p in zip(b.users.tolist(), b.positives.tolist(), strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == pairs
    drawn = {p for b in batches for p in zip(b.users.tolist(), b.negatives.tolist(), strict=True)}
    assert not drawn & pairs


def test_two_epochs_have_two_orders():
    data = PairBatches(tiny_view(), 64, negatives=False)
    one = next(data.epoch(torch.Generator().manual_seed(1), CPU))
    two = next(data.epoch(torch.Generator().manual_seed(2), CPU))
    assert one.negatives is None
    assert not one.users.equal(two.users)


def test_pairs_of_a_user_with_everything_have_no_negative_and_are_left_out():
    view = TrainView(2, 2, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]))
    (batch,) = PairBatches(view, 8, negatives=True).epoch(torch.Generator(), CPU)
    assert batch.users.tolist() == [1]
    everything = TrainView(1, 2, torch.tensor([0, 0]), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="training interactions to learn from"):
        PairBatches(everything, 8, negatives=True)


def test_user_batches_carry_each_users_own_items():
    view = TrainView(4, 5, torch.tensor([0, 0, 2, 3]), torch.tensor([1, 4, 0, 3]))
    data = UserBatches(view, 2)
    batches = list(data.epoch(torch.Generator().manual_seed(0), CPU))
    assert len(data) == len(batches) == 2
    dense = torch.zeros(4, 5)
    for batch in batches:
        dense[batch.users] = batch.history.to_dense()
    expected = torch.zeros(4, 5)
    expected[view.users, view.items] = 1.0
    torch.testing.assert_close(dense, expected)
