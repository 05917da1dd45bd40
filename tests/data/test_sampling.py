import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.data.sampling import NegativeSampler
from modalign.errors import DataError


def sampler_of(pairs, n_users, n_items, pool=None):
    users, items = torch.tensor(sorted(pairs), dtype=torch.int64).T
    return NegativeSampler(users.contiguous(), items.contiguous(), n_users, n_items, pool)


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=30),
    seed=st.integers(0, 1000),
)
def test_never_a_training_positive_and_always_from_the_pool(pairs, seed):
    sampler = sampler_of(pairs, 6, 8)
    pool = {item for _, item in pairs}
    users = torch.arange(6).repeat(50)
    users = users[sampler.n_free[users] > 0]
    drawn = sampler.sample(users, torch.Generator().manual_seed(seed))
    assert drawn.shape == users.shape
    for user, item in zip(users.tolist(), drawn.tolist(), strict=True):
        assert (user, item) not in pairs
        assert item in pool


def test_draws_are_uniform_over_what_is_left():
    pairs = {(0, 1), (0, 3), (1, 0), (1, 2), (1, 4), (1, 5)}
    sampler = sampler_of(pairs, 2, 6)
    drawn = sampler.sample(torch.zeros(40000, dtype=torch.int64), torch.Generator().manual_seed(1))
    share = torch.bincount(drawn, minlength=6) / 40000
    expected = torch.tensor([0.25, 0.0, 0.25, 0.0, 0.25, 0.25])
    torch.testing.assert_close(share, expected, atol=0.01, rtol=0)


def test_pool_can_be_given():
    sampler = sampler_of({(0, 0), (1, 1)}, 2, 5, pool=torch.ones(5, dtype=torch.bool))
    drawn = sampler.sample(torch.zeros(500, dtype=torch.int64), torch.Generator().manual_seed(1))
    assert set(drawn.tolist()) == {1, 2, 3, 4}


def test_a_user_who_has_everything_is_named():
    sampler = sampler_of({(0, 0), (0, 1), (1, 0)}, 2, 2)
    with pytest.raises(DataError, match="user row 0, who has all 2 items"):
        sampler.sample(torch.tensor([1, 0]), torch.Generator())


def test_same_generator_same_draws():
    sampler = sampler_of({(0, 0), (1, 1), (1, 2)}, 2, 3)
    users = torch.tensor([0, 1, 0, 0, 1])
    one = sampler.sample(users, torch.Generator().manual_seed(3))
    assert one.equal(sampler.sample(users, torch.Generator().manual_seed(3)))
