"""Teachers: what they say, mixtures against a table by hand, low-rank vectors against an SVD."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from modalign.core import seeds
from modalign.distillation.source import (
    MixedSource,
    ScoreSource,
    VectorSource,
    factors,
    source_of,
    standardised,
)
from modalign.errors import ConfigError
from modalign.models import _registry as registry
from modalign.testing.toy import toy_dataset

VIEW = toy_dataset().view()


def vectors(d: int = 6, seed: int = 0) -> VectorSource:
    rng = torch.Generator().manual_seed(seed)
    sizes = (VIEW.n_users, VIEW.n_items)
    return VectorSource(*(torch.randn(n, d, generator=rng) for n in sizes))


def ease() -> ScoreSource:
    spec = registry.get("ease")
    with seeds.torch_seed(1):
        model = spec.cls(spec.config(), VIEW)
    model.solve(VIEW)
    source = source_of(model, VIEW, "ease")
    assert isinstance(source, ScoreSource)
    return source


@pytest.mark.parametrize("source", [vectors(), ease(), MixedSource([vectors(), ease()], [1, 3])])
def test_scores_of_pairs_are_entries_of_the_rows(source):
    users, items = torch.tensor([3, 0, 3]), torch.tensor([[1, 2], [0, 5], [7, 1]])
    rows = source.score(torch.tensor([0, 3]))
    expected = torch.stack([rows[1, items[0]], rows[0, items[1]], rows[1, items[2]]])
    assert_close(source.at(users, items), expected)


def test_given_vectors_of_a_model_in_training_are_constants():
    tables = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    source = VectorSource(*tables)
    scores = source.score(torch.arange(4)), source.at(torch.arange(4), torch.zeros(4, 1).long())
    assert not any(one.requires_grad for one in (*source.vectors, *scores))


def test_a_teacher_with_vectors_is_asked_once_and_keeps_no_gradient():
    spec = registry.get("lightgcn")
    with seeds.torch_seed(1):
        model = spec.cls(spec.config(embedding_size=4), VIEW)
    source = source_of(model, VIEW)
    before = [one.clone() for one in source.vectors]
    with torch.no_grad():
        model.embeddings += 1.0
    assert_close(source.vectors, tuple(before))
    assert not any(one.requires_grad or one.is_inference() for one in source.vectors)
    assert not model.training


def test_ease_scores_from_the_users_training_items():
    source = ease()
    scores = source._scorer
    history = torch.zeros(1, VIEW.n_items)
    history[0, VIEW.items[VIEW.users == 5]] = 1.0
    assert_close(source.score(torch.tensor([5])), history @ scores.weights)


def test_a_mixture_follows_its_table():
    a = VectorSource(torch.tensor([[1.0]]), torch.tensor([[0.0], [2.0], [4.0]]))
    b = VectorSource(torch.tensor([[10.0]]), torch.tensor([[3.0], [0.0], [0.0]]))
    mixed = MixedSource([a, b], [3.0, 1.0]).score(torch.tensor([0]))
    of_a = torch.tensor([-1.0, 0.0, 1.0]) / (2 / 3) ** 0.5
    of_b = torch.tensor([2.0, -1.0, -1.0]) / 2**0.5
    assert_close(mixed, (0.75 * of_a + 0.25 * of_b).unsqueeze(0))


def test_a_mixture_does_not_feel_a_teachers_scale():
    users = torch.arange(5)
    a, b = vectors(), vectors(seed=1)
    scaled = VectorSource(7.0 * a.vectors[0], a.vectors[1])
    assert_close(
        MixedSource([a, b], [1, 1]).score(users), MixedSource([scaled, b], [2, 2]).score(users)
    )


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [-1.0, 2.0]])
def test_weights_that_make_no_mixture_are_refused(weights):
    with pytest.raises(ConfigError, match="one weight for each teacher"):
        MixedSource([vectors(), vectors()], weights)


def test_a_constant_row_is_standardised_to_zeros():
    assert_close(standardised(torch.full((1, 4), 3.0)), torch.zeros(1, 4))


@pytest.mark.parametrize("size", [2, 4])
def test_fewer_dimensions_keep_the_best_of_the_scores(size):
    source = vectors()
    scores = source.score(torch.arange(VIEW.n_users))
    left, values, right = torch.linalg.svd(scores, full_matrices=False)
    best = left[:, :size] * values[:size] @ right[:size]
    users, items = factors(source, size)
    assert_close(users @ items.T, best, rtol=1e-4, atol=1e-4)
    assert_close(users.T @ users, items.T @ items, rtol=1e-3, atol=1e-3)  # evenly split


def test_more_dimensions_are_padded_and_equal_ones_kept():
    source = vectors()
    users, items = factors(source, 9)
    assert users.shape[1] == items.shape[1] == 9
    assert_close(users @ items.T, source.score(torch.arange(VIEW.n_users)), rtol=1e-4, atol=1e-4)
    assert factors(source, 6)[0] is source.vectors[0]


def test_scores_without_vectors_are_factorised_by_blocks():
    source = ease()
    scores = source.score(torch.arange(VIEW.n_users))
    left, values, right = torch.linalg.svd(scores, full_matrices=False)
    best = (left[:, :5] * values[:5] @ right[:5] - scores).norm()
    users, items = factors(source, 5)
    assert users.shape == (VIEW.n_users, 5)
    assert (users @ items.T - scores).norm() <= 1.001 * best


@pytest.mark.parametrize(
    ("n_users", "n_items", "width", "size"), [(4, 9, 6, 8), (9, 4, 6, 5), (3, 3, 8, 7)]
)
def test_factors_wider_than_the_data_are_exact_and_padded(
    n_users: int, n_items: int, width: int, size: int
) -> None:
    rng = torch.Generator().manual_seed(0)
    source = VectorSource(
        torch.randn(n_users, width, generator=rng), torch.randn(n_items, width, generator=rng)
    )
    users, items = factors(source, size)
    assert (users.shape, items.shape) == ((n_users, size), (n_items, size))
    assert_close(users @ items.T, source.score(torch.arange(n_users)))
