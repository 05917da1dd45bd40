"""Ranking against a full stable sort: ties, masks, candidates, blocks, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modalign.core.interfaces import Factors, Queries
from modalign.core.topk import CHUNK, MASKED
from modalign.errors import ConfigError, DataError, TrainingError
from modalign.evaluate.ranking import Ranking, rank


@dataclass(frozen=True)
class Given:
    """A scorer that has all scores ready."""

    scores: Tensor

    def score(self, queries: Queries) -> Tensor:
        return self.scores[queries.user]


def oracle(
    scores: np.ndarray, k: int, seen: np.ndarray | None = None, open_: np.ndarray | None = None
) -> np.ndarray:
    """Full sort of each row: score descending, then item ascending; masked items never."""
    items = np.arange(scores.shape[1])
    out = np.full((len(scores), k), -1)
    for user, row in enumerate(scores):
        order = np.lexsort((items, -row))
        kept = [
            item
            for item in order
            if (seen is None or not seen[user, item])
            and (open_ is None or item in open_)
            and row[item] > MASKED
        ][:k]
        out[user, : len(kept)] = kept
    return out


def ranked(scores: np.ndarray, k: int, **options) -> Ranking:
    given = Given(torch.from_numpy(scores.astype(np.float32)))
    if (seen := options.pop("seen", None)) is not None:
        options["seen"] = sp.csr_array(seen.astype(np.float32))
    return rank(given, np.arange(len(scores)), k, **options)


def check(found: Ranking, scores: np.ndarray, k: int, **options) -> None:
    expected = oracle(scores, k, **options)
    np.testing.assert_array_equal(found.items, expected)
    values = np.take_along_axis(scores, np.maximum(expected, 0), 1).astype(np.float32)
    np.testing.assert_array_equal(found.scores, np.where(expected < 0, MASKED, values))


# Widths about and far above CHUNK, so that both ways of the partial sort are taken.
SHAPES = {
    "seed": st.integers(0, 2**32 - 1),
    "n_items": st.sampled_from([1, 5, CHUNK, CHUNK + 1, 61, 20 * CHUNK, 20 * CHUNK + 7]),
    "k": st.sampled_from([1, 2, 3, 10, 19, 20, 21, 70, 400]),
    "n_values": st.sampled_from([1, 2, 3, 30]),
}


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(**SHAPES, masked=st.sampled_from([0.0, 0.3, 0.95, 1.0]), block=st.sampled_from([1, 3, 64]))
def test_ties_and_masks_equal_a_full_stable_sort(
    seed: int, n_items: int, k: int, n_values: int, masked: float, block: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(n_values, size=(7, n_items)).astype(float)
    seen = rng.random(scores.shape) < masked
    check(ranked(scores, k, seen=seen, block=block), scores, k, seen=seen)


@settings(deadline=None, max_examples=60)
@given(**SHAPES)
def test_candidates_alone_are_ranked(seed: int, n_items: int, k: int, n_values: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(n_values, size=(5, n_items)).astype(float)
    seen = rng.random(scores.shape) < 0.3
    # In any order, and some twice.
    chosen = rng.integers(n_items, size=rng.integers(1, 2 * n_items + 1))
    check(ranked(scores, k, seen=seen, candidates=chosen), scores, k, seen=seen, open_=chosen)


@settings(deadline=None, max_examples=60)
@given(**SHAPES)
def test_items_scored_minus_infinity_are_never_listed(
    seed: int, n_items: int, k: int, n_values: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(n_values, size=(5, n_items)).astype(float)
    scores[rng.random(scores.shape) < 0.5] = -np.inf
    check(ranked(scores, k), scores, k)


@pytest.mark.parametrize("n_items", [20, 200])
def test_tie_at_the_kth_place_goes_to_the_smaller_rows(n_items: int) -> None:
    scores = np.zeros((1, n_items))
    scores[0, n_items // 2] = 1.0
    assert ranked(scores, 4).items.tolist() == [[n_items // 2, 0, 1, 2]]
    seen = np.zeros(scores.shape, bool)
    seen[0, [0, 2]] = True
    assert ranked(scores, 4, seen=seen).items.tolist() == [[n_items // 2, 1, 3, 4]]


def test_zeros_of_both_signs_tie() -> None:
    scores = np.array([[-0.0, 0.0, -0.0, 0.0]])
    assert ranked(scores, 3).items.tolist() == [[0, 1, 2]]


def test_fewer_candidates_than_k_leave_minus_one() -> None:
    found = ranked(np.array([[3.0, 1.0, 2.0]]), 5, candidates=np.array([1, 2]))
    assert found.items.tolist() == [[2, 1, -1, -1, -1]]
    assert found.scores.tolist() == [[2.0, 1.0, MASKED, MASKED, MASKED]]
    assert (found.items.dtype, found.scores.dtype, found.k) == (np.int32, np.float32, 5)


def test_a_user_who_has_seen_everything_has_an_empty_list() -> None:
    scores = np.random.default_rng(0).random((3, 100))
    seen = np.zeros(scores.shape, bool)
    seen[1] = True
    found = ranked(scores, 4, seen=seen)
    assert found.items[1].tolist() == [-1] * 4
    check(found, scores, 4, seen=seen)


def test_no_user_is_no_list() -> None:
    assert ranked(np.zeros((0, 9)), 4).items.shape == (0, 4)


# ------------------------------------------------------------------ laws


def tables(seed: int = 0, n_users: int = 23, n_items: int = 333) -> Factors:
    rng = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(n_users, 8, generator=rng), torch.randn(n_items, 8, generator=rng))


@pytest.mark.parametrize("k", [1, 10, 21, 333, 500])
def test_factors_rank_as_their_product_does(k: int) -> None:
    factors = tables()
    users = np.array([5, 5, 0, 22])
    scores = (factors.users[users] @ factors.items.T).numpy()
    found = rank(factors, users, k)
    check(found, scores, k)
    assert found.users.tolist() == users.tolist()


def test_scoring_leaves_the_tables_alone() -> None:
    # A scorer may hand out what it keeps; the mask must not be written into it.
    class Keeper:
        kept = torch.randn(4, 40, generator=torch.Generator().manual_seed(0))

        def score(self, queries: Queries) -> Tensor:
            return self.kept

    before = Keeper.kept.clone()
    rank(Keeper(), np.arange(4), 5, seen=sp.csr_array(np.ones((4, 40), np.float32)))
    torch.testing.assert_close(Keeper.kept, before, rtol=0, atol=0)


@pytest.mark.parametrize("block", [1, 2, 7, 22, 23, 24, 1000])
@pytest.mark.parametrize("factorised", [True, False])
def test_the_block_changes_nothing(block: int, factorised: bool) -> None:
    factors = tables()
    scores = (factors.users @ factors.items.T).numpy()
    scorer = factors if factorised else Given(torch.from_numpy(scores))
    seen = np.random.default_rng(0).random(scores.shape) < 0.2
    found = rank(scorer, np.arange(23), 10, seen=sp.csr_array(seen.astype("f4")), block=block)
    np.testing.assert_array_equal(found.items, oracle(scores, 10, seen))


@pytest.mark.parametrize("memory", [1, 64, 300, 4 * 23 * CHUNK, 4 * 23 * CHUNK * 3, 1 << 20])
@pytest.mark.parametrize("factorised", [True, False])
@pytest.mark.parametrize("k", [1, 10, 130])
def test_the_memory_changes_nothing_and_is_kept(monkeypatch, memory, factorised, k) -> None:
    """Scores are small whole numbers, so that many tie, also over the edges of blocks of items."""
    rng = np.random.default_rng(k)
    vectors = [torch.from_numpy(rng.integers(-1, 2, (n, 3)).astype("f4")) for n in (23, 120)]
    factors = Factors(*vectors)
    scores = (factors.users @ factors.items.T).numpy()
    seen = rng.random(scores.shape) < 0.3
    seen[4] = True
    some = rng.permutation(120)[:50]
    made = []
    full = torch.full
    monkeypatch.setattr(
        torch, "full", lambda size, *a, **o: made.append(size) or full(size, *a, **o)
    )
    scorer = factors if factorised else Given(torch.from_numpy(scores))
    options = {"seen": sp.csr_array(seen.astype("f4")), "memory": memory}
    found = rank(scorer, np.arange(23), k, **options)
    check(found, scores, k, seen=seen)
    check(rank(scorer, np.arange(23), k, candidates=some, **options), scores, k, seen=seen,
          open_=set(some.tolist()))  # fmt: skip
    least = 23 * CHUNK if factorised else 23 * 128  # the first block shows the number of items
    assert max(n * width for n, width in made) <= max(memory // 4, least)


def test_one_user_takes_one_row(monkeypatch) -> None:
    made = []
    full = torch.full
    monkeypatch.setattr(
        torch, "full", lambda size, *a, **o: made.append(size) or full(size, *a, **o)
    )
    rank(tables(), np.array([3]), 5)
    assert [n for n, _ in made] == [1]


def test_permuted_items_give_permuted_lists() -> None:
    scores = np.random.default_rng(0).random((9, 200))  # no ties
    order = np.random.default_rng(1).permutation(200)
    np.testing.assert_array_equal(
        order[ranked(scores[:, order], 20).items], ranked(scores, 20).items
    )


def test_a_constant_for_each_user_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(-40, 40, size=(9, 200)).astype(float)
    shifted = scores + rng.integers(-9, 9, size=(9, 1))
    np.testing.assert_array_equal(ranked(shifted, 30).items, ranked(scores, 30).items)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_scores_are_compared_as_float32(dtype: torch.dtype) -> None:
    factors = tables()
    other = Factors(factors.users.to(dtype), factors.items.to(dtype))
    scores = other.score(Queries(torch.arange(23))).float().numpy()
    check(rank(other, np.arange(23), 10), scores, 10)


# ------------------------------------------------------------------ histories and unseen users


def test_histories_go_to_the_scorer_block_by_block_and_unseen_users_as_minus_one() -> None:
    told: list[tuple[list[int], list[list[float]]]] = []

    class Reader:
        def score(self, queries: Queries) -> Tensor:
            assert queries.history is not None
            dense = queries.history.to_dense()
            told.append((queries.user.tolist(), dense.tolist()))
            return -dense

    history = np.eye(4, 5, dtype=np.float32)
    rank(
        Reader(),
        np.array([3, 1, 0]),
        2,
        history=sp.csr_array(history),
        unseen=np.array([True, False, False]),
        block=2,
    )
    assert told == [([-1, 1], history[[3, 1]].tolist()), ([0], history[[0]].tolist())]


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize("n_items", [10, 400])
@pytest.mark.parametrize("column", [0, 9])
def test_not_a_number_is_refused_and_the_user_named(n_items: int, column: int) -> None:
    scores = np.zeros((6, n_items))
    scores[4, column] = np.nan
    with pytest.raises(TrainingError, match=r"1 users.*row 4"):
        ranked(scores, 2, block=3)


def test_infinite_scores_rank_first() -> None:
    scores = np.array([[0.0, np.inf, 1.0, np.inf]])
    assert ranked(scores, 3).items.tolist() == [[1, 3, 2]]


@pytest.mark.parametrize("options", [{"k": 0}, {"k": 3, "block": 0}])
def test_sizes_below_one_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="of at least 1"):
        rank(tables(), np.arange(3), **options)


def test_no_candidate_is_refused() -> None:
    with pytest.raises(DataError, match="at least one candidate"):
        rank(tables(), np.arange(3), 5, candidates=np.empty(0, np.int64))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_cuda_ranks_as_the_cpu_does() -> None:
    scores = torch.randint(4, (40, 500), generator=torch.Generator().manual_seed(0)).float()
    seen = sp.csr_array((np.random.default_rng(0).random((40, 500)) < 0.3).astype(np.float32))
    cpu = rank(Given(scores), np.arange(40), 20, seen=seen)
    gpu = rank(Given(scores.cuda()), np.arange(40), 20, seen=seen, device="cuda")
    np.testing.assert_array_equal(gpu.items, cpu.items)
    np.testing.assert_array_equal(gpu.scores, cpu.scores)
