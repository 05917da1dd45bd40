"""The rules of an evaluation: who is asked, what is masked, what counts; on small data."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

import oracles
from modalign.core.interfaces import Config, Need, Queries, Recommender
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.data.prepare import prepare
from modalign.data.sources.flat_table import read
from modalign.data.vocabulary import Vocabulary
from modalign.errors import ConfigError, DataError, InputError, TrainingError, UnknownName
from modalign.evaluate import protocol
from modalign.evaluate.protocol import Evaluation, Evaluator, frozen, validation_metric
from modalign.evaluate.ranking import Ranking
from modalign.models.ease import EASE, EASEConfig
from modalign.testing.toy import toy_dataset

TOY = toy_dataset()


def evaluate(model: Recommender, dataset: Dataset, *args, **options) -> Evaluation:
    return Evaluator(dataset, *args, **options).run(model)


class Fixed(Recommender):
    """Known users have a row of scores each; keeps what it was asked."""

    needs: ClassVar[tuple[Need, ...]] = ("history",)
    factorised: ClassVar[bool] = False

    def __init__(self, dataset: Dataset, scores: np.ndarray) -> None:
        super().__init__(Config(), dataset.view())
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("table", torch.from_numpy(np.asarray(scores, np.float32)))
        self.asked: list[tuple[list[int], np.ndarray | None]] = []

    def score(self, queries: Queries) -> Tensor:
        history = None if queries.history is None else queries.history.to_dense().numpy()
        self.asked.append((queries.user.tolist(), history))
        return self.dropout(self.table[queries.user])


class ByTables(Recommender):
    """Product of two tables; users it does not know are the mean of their items."""

    unseen_users: ClassVar[bool] = True

    def __init__(self, dataset: Dataset, width: int = 5) -> None:
        super().__init__(Config(), dataset.view())
        rng = torch.Generator().manual_seed(0)
        self.user_table = nn.Parameter(torch.randn(self.n_users, width, generator=rng))
        self.item_table = nn.Parameter(torch.randn(self.n_items, width, generator=rng))

    def tables(self) -> tuple[Tensor, Tensor]:
        return self.user_table, self.item_table

    def user_vectors(self, queries: Queries) -> Tensor:
        assert queries.history is not None
        history = queries.history.to_dense()
        means = history @ self.item_table / history.sum(1, keepdim=True)
        return torch.where((queries.user < 0)[:, None], means, self.user_table[queries.user])


def dataset_of(n_users: int, n_items: int, **parts: list[tuple[int, int]]) -> Dataset:
    """A data set of pairs (user, item) by part."""
    empty = Interactions.empty()
    found = {
        name: Interactions(*np.array(pairs, np.int64).reshape(-1, 2).T)
        for name, pairs in parts.items()
    }
    return Dataset(
        "hand",
        Vocabulary([f"u{row}" for row in range(n_users)], "user"),
        Vocabulary([f"i{row}" for row in range(n_items)], "item"),
        **{"train": empty, "valid": empty, "test": empty, **found},
    )


def matrix(dataset: Dataset, *parts: str) -> np.ndarray:
    """Users x items, bool: what any of the parts holds."""
    out = np.zeros((dataset.n_users, dataset.n_items), bool)
    for name in parts:
        part = dataset.part(name)
        out[part.users, part.items] = True
    return out


def random_scores(dataset: Dataset, seed: int = 0) -> np.ndarray:
    """With many ties."""
    shape = (dataset.n_users, dataset.n_items)
    return np.random.default_rng(seed).integers(12, size=shape).astype(float)


def usual(split: str) -> Dataset:
    """The toy's interactions split anew."""
    parts = [TOY.train, TOY.valid, TOY.test]
    users, items = (
        np.concatenate([getattr(p, side) for p in parts]) for side in ("users", "items")
    )
    table = pl.DataFrame({"user_id": [f"u{u}" for u in users], "item_id": [f"i{i}" for i in items]})
    return prepare(read(table), split=split, seed=3)


# Rows 0 to 3 are users of training, 4 has validation and test items only. Item 5 is never seen.
HAND = dataset_of(
    5,
    6,
    train=[(0, 0), (0, 1), (1, 1), (2, 2), (3, 0)],
    valid=[(0, 2), (1, 0), (4, 1)],
    test=[(0, 3), (0, 5), (1, 2), (2, 4), (4, 0)],
)
DOWNWARDS = np.tile(-np.arange(6.0), (5, 1))


# ------------------------------------------------------------------ masks


@pytest.mark.parametrize(
    ("split", "mask", "lists"),
    [
        ("valid", "strict", [[2, 3, 4, 5, -1, -1], [0, 2, 3, 4, 5, -1]]),
        ("valid", "train", [[2, 3, 4, 5, -1, -1], [0, 2, 3, 4, 5, -1]]),
        (
            "test",
            "strict",
            [[3, 4, 5, -1, -1, -1], [2, 3, 4, 5, -1, -1], [0, 1, 3, 4, 5, -1]],
        ),
        (
            "test",
            "train",
            [[2, 3, 4, 5, -1, -1], [0, 2, 3, 4, 5, -1], [0, 1, 3, 4, 5, -1]],
        ),
    ],
)
def test_what_each_mask_hides_by_hand(split, mask, lists) -> None:
    found = evaluate(Fixed(HAND, DOWNWARDS), HAND, split, mask, ks=[6])
    assert found.ranking.items.tolist() == lists
    assert (found.split, found.mask, found.candidates) == (split, mask, "all")


def test_values_by_hand() -> None:
    found = evaluate(Fixed(HAND, DOWNWARDS), HAND, "test", "strict", ks=[1, 3])
    frame = found.per_user
    assert frame["user_id"].to_list() == ["u0", "u1", "u2"]
    assert frame["user"].to_list() == [0, 1, 2]
    assert frame["n_train"].to_list() == [2, 1, 1]
    assert frame["n_relevant"].to_list() == [2, 1, 1]
    assert frame["recall@1"].to_list() == [0.5, 1, 0]
    assert frame["recall@3"].to_list() == [1, 1, 0]
    assert frame["precision@3"].to_list() == pytest.approx([2 / 3, 1 / 3, 0])
    assert frame["map@3"].to_list() == pytest.approx([(1 + 2 / 3) / 2, 1, 0])
    # Lists [3 4 5], [2 3 4], [0 1 3]; items 0 and 1 have two training interactions, 2 has one.
    assert frame["popularity@3"].to_list() == pytest.approx([0, 1 / 3, 4 / 3])
    assert frame["novelty@1"].to_list() == pytest.approx([2, 2, 1])  # of 4 users
    assert found.metrics["coverage@3"] == 1.0
    assert found.metrics["coverage@1"] == 0.5
    assert found.metrics["recall@3"] == pytest.approx(2 / 3)


def test_users_with_nothing_to_find_are_left_out_and_unknown_ones_counted() -> None:
    found = evaluate(Fixed(HAND, DOWNWARDS), HAND, "test")
    assert found.ranking.users.tolist() == [0, 1, 2]
    assert (found.n_users, found.n_skipped) == (3, 1)
    assert evaluate(Fixed(HAND, DOWNWARDS), HAND, "valid").n_skipped == 1


@pytest.mark.parametrize("mask", ["strict", "train"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_split_never_hides_its_own_items(split: str, mask: str) -> None:
    truth = matrix(TOY, split).astype(float)
    found = evaluate(Fixed(TOY, truth), TOY, split, mask, ks=[2])
    assert found.metrics["recall@2"] == found.metrics["ndcg@2"] == 1.0


@pytest.mark.parametrize("mask", ["strict", "train"])
def test_an_item_of_training_and_of_the_truth_counts_as_missed(mask: str) -> None:
    data = dataset_of(1, 4, train=[(0, 0)], valid=[(0, 1)], test=[(0, 0), (0, 2)])
    found = evaluate(Fixed(data, DOWNWARDS[:1, :4]), data, "test", mask, ks=[4])
    assert found.metrics["recall@4"] == 0.5


@pytest.mark.parametrize("mask", ["strict", "train"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_equals_the_slow_oracle(split: str, mask: str) -> None:
    scores = random_scores(TOY)
    hidden = ["train", "valid"] if (split, mask) == ("test", "strict") else ["train"]
    recall, ndcg = oracles.recall_and_ndcg(scores, matrix(TOY, *hidden), matrix(TOY, split), 10)
    found = evaluate(Fixed(TOY, scores), TOY, split, mask, ks=[10])
    assert found.metrics["recall@10"] == pytest.approx(recall, abs=1e-12)
    assert found.metrics["ndcg@10"] == pytest.approx(ndcg, abs=1e-12)


def test_a_pair_told_twice_counts_once() -> None:
    twice = dataset_of(1, 4, train=[(0, 0), (0, 0)], test=[(0, 2), (0, 2), (0, 3)])
    frame = evaluate(Fixed(twice, DOWNWARDS[:1, :4]), twice, ks=[2]).per_user
    assert (frame["n_train"][0], frame["n_relevant"][0], frame["recall@2"][0]) == (1, 2, 0.5)


@pytest.mark.parametrize("block", [1, 7, 58, 59, 60])
def test_the_block_changes_nothing(block: int) -> None:
    model = Fixed(TOY, random_scores(TOY))
    one, other = evaluate(model, TOY), evaluate(model, TOY, block=block)
    assert one.metrics == other.metrics
    assert one.per_user.equals(other.per_user)


# ------------------------------------------------------------------ histories


def test_histories_are_training_items_under_both_masks() -> None:
    for mask in ("strict", "train"):
        model = Fixed(TOY, random_scores(TOY))
        evaluate(model, TOY, "test", mask)
        ((users, history),) = model.asked
        np.testing.assert_array_equal(history, matrix(TOY, "train")[users])


def test_histories_are_handed_over_where_the_model_needs_them() -> None:
    class WithoutHistory(Fixed):
        needs: ClassVar[tuple[Need, ...]] = ()

    def given(kind: type[Fixed]) -> bool:
        model = kind(TOY, random_scores(TOY))
        evaluate(model, TOY)
        return model.asked[0][1] is not None

    assert given(Fixed)
    assert not given(WithoutHistory)


def test_a_history_reading_model_equals_its_dense_formula() -> None:
    model = EASE(EASEConfig(reg=20.0), TOY.view())
    model.solve(TOY.view())
    x = matrix(TOY, "train").astype(float)
    scores = (x @ oracles.ease_weights(x, 20.0)).astype(np.float32)
    recall, ndcg = oracles.recall_and_ndcg(
        scores, matrix(TOY, "train", "valid"), matrix(TOY, "test"), 10
    )
    found = evaluate(model, TOY, ks=[10]).metrics
    assert (found["recall@10"], found["ndcg@10"]) == pytest.approx((recall, ndcg), abs=1e-9)


# ------------------------------------------------------------------ unseen users


@pytest.mark.parametrize("split", ["valid", "test"])
def test_unseen_users_are_scored_from_their_history_end_to_end(split: str) -> None:
    data = usual("unseen-users")
    model = EASE(EASEConfig(reg=20.0), data.view())
    model.solve(data.view())
    found = evaluate(model, data, split, ks=[10])
    asked = np.unique(data.part(split).users)
    assert found.ranking.users.tolist() == asked.tolist()
    assert found.per_user["n_train"].to_list() == [0] * len(asked)
    assert found.n_skipped == 0

    known = matrix(data, f"{split}_history")
    weights = oracles.ease_weights(matrix(data, "train").astype(float), 20.0)
    scores = (known @ weights).astype(np.float32)
    recall, ndcg = oracles.recall_and_ndcg(scores, known, matrix(data, split), 10)
    assert found.metrics["recall@10"] == pytest.approx(recall, abs=1e-9)
    assert found.metrics["ndcg@10"] == pytest.approx(ndcg, abs=1e-9)
    for user, row in zip(asked, found.ranking.items, strict=True):
        assert not known[user, row[row >= 0]].any()  # what is known of them is not listed


# User 0 is known from training, 1 and 2 from their history alone, of 3 nothing is known.
MIXED = dataset_of(
    4,
    6,
    train=[(0, 0), (0, 1)],
    test=[(0, 2), (1, 3), (2, 4), (3, 5)],
    test_history=[(1, 0), (2, 1), (2, 5)],
    valid_history=[(3, 0)],
)


def test_known_and_unseen_users_side_by_side() -> None:
    model = ByTables(MIXED)
    asked: list[tuple[list[int], list[list[float]]]] = []
    original = model.user_vectors

    def spy(queries: Queries) -> Tensor:
        asked.append((queries.user.tolist(), queries.history.to_dense().tolist()))
        return original(queries)

    model.user_vectors = spy
    found = evaluate(model, MIXED, ks=[6])
    histories = matrix(MIXED, "train", "test_history").astype(float)
    assert asked == [([0, -1, -1], histories[:3].tolist())]
    assert (found.ranking.users.tolist(), found.n_skipped) == ([0, 1, 2], 1)

    with torch.no_grad():
        users, items = model.user_table.numpy(), model.item_table.numpy()
    vectors = np.stack([users[0], items[0], (items[1] + items[5]) / 2])
    expected = np.argsort(-(vectors @ items.T), axis=1, kind="stable")
    for row, listed, seen in zip(expected, found.ranking.items, histories[:3], strict=True):
        assert listed[listed >= 0].tolist() == [item for item in row if not seen[item]]


def test_a_factorised_model_uses_its_tables_where_all_users_are_known() -> None:
    model = ByTables(TOY)
    with torch.no_grad():
        scores = (model.user_table @ model.item_table.T).numpy()
    recall, _ = oracles.recall_and_ndcg(
        scores, matrix(TOY, "train", "valid"), matrix(TOY, "test"), 10
    )
    assert evaluate(model, TOY, ks=[10]).metrics["recall@10"] == pytest.approx(recall, abs=1e-12)


def test_a_history_says_nothing_of_users_known_from_training() -> None:
    data = replace(MIXED, test_history=Interactions(np.array([0, 1]), np.array([5, 0])))
    model = ByTables(data)
    evaluator = Evaluator(data, ks=[6])
    found = evaluator.run(model)
    assert 5 in found.ranking.items[0].tolist()  # neither read nor masked
    assert found.ranking.users.tolist() == [0, 1]


def test_a_model_that_cannot_score_unseen_users_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        evaluate(Fixed(MIXED, np.zeros((4, 6))), MIXED)
    assert caught.value.expected.startswith("a model that scores users from their history")
    assert caught.value.got.startswith("Fixed")
    assert "scores unseen users" in caught.value.fix


# ------------------------------------------------------------------ cold items


@pytest.mark.parametrize("mask", ["strict", "train"])
def test_cold_items_among_cold_candidates_only(mask: str) -> None:
    data = usual("cold-items")
    scores = random_scores(data)
    cold = ~matrix(data, "train").any(0)
    hidden = matrix(data, "train", "valid") if mask == "strict" else matrix(data, "train")
    truth = matrix(data, "test")
    assert cold[data.test.items].all()
    found = evaluate(Fixed(data, scores), data, "test", mask, ks=[3], candidates="cold")
    listed = found.ranking.items
    assert cold[listed[listed >= 0]].all()
    recall, ndcg = oracles.recall_and_ndcg(scores, hidden | ~cold, truth, 3)
    assert found.metrics["recall@3"] == pytest.approx(recall, abs=1e-12)
    assert found.metrics["ndcg@3"] == pytest.approx(ndcg, abs=1e-12)

    among_all = evaluate(Fixed(data, scores), data, "test", mask, ks=[3])
    recall, _ = oracles.recall_and_ndcg(scores, hidden, truth, 3)
    assert among_all.metrics["recall@3"] == pytest.approx(recall, abs=1e-12)
    assert recall < found.metrics["recall@3"]


def test_with_cold_candidates_the_truth_is_cut_to_them() -> None:
    # Of user 0's two items the cold one (5) is asked for; user 1's item is warm.
    found = evaluate(Fixed(HAND, DOWNWARDS), HAND, "test", ks=[1], candidates="cold")
    assert found.ranking.users.tolist() == [0, 2]
    assert found.per_user["n_relevant"].to_list() == [2, 1]  # 3, 4 and 5 have no training
    warm = dataset_of(2, 3, train=[(0, 0), (1, 1)], test=[(0, 1), (0, 2), (1, 0)])
    found = evaluate(Fixed(warm, DOWNWARDS[:2, :3]), warm, ks=[2], candidates="cold")
    assert found.per_user["n_relevant"].to_list() == [1]
    assert found.ranking.items.tolist() == [[2, -1]]
    assert found.metrics["recall@2"] == 1.0


def test_no_cold_item_is_refused() -> None:
    warm = dataset_of(2, 3, train=[(0, 0), (1, 1)], test=[(0, 1)])
    with pytest.raises(DataError, match="no training interaction"):
        Evaluator(warm, candidates="cold")


# ------------------------------------------------------------------ the model


def test_the_model_scores_in_evaluation_mode_and_every_mode_is_put_back() -> None:
    model = Fixed(TOY, random_scores(TOY))
    frozen_part = model.add_module("part", nn.Sequential(nn.Dropout(0.5))) or model.part
    for training in (True, False):
        model.train(training)
        frozen_part.eval()
        with frozen(model):
            assert not any(module.training for module in model.modules())
        assert (model.training, model.dropout.training) == (training, training)
        assert not frozen_part.training
        assert not frozen_part[0].training


def test_modes_are_put_back_after_a_failure() -> None:
    model = Fixed(TOY, np.full((TOY.n_users, TOY.n_items), np.nan)).train()
    with pytest.raises(TrainingError, match="not a number"):
        evaluate(model, TOY)
    assert all(module.training for module in model.modules())


def test_nothing_of_the_model_changes() -> None:
    model = ByTables(TOY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, TOY)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_tables_are_computed_once_whatever_the_blocks() -> None:
    model, calls = ByTables(TOY), []
    tables = model.tables
    model.tables = lambda: calls.append(1) or tables()
    evaluate(model, TOY, block=5)
    assert calls == [1]


def test_scores_are_made_where_the_model_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    def spy(*args: object, device: torch.device | str, **options: object) -> Ranking:
        raise Stop(str(device))

    monkeypatch.setattr(protocol, "rank", spy)
    with pytest.raises(Stop, match="meta"):
        evaluate(ByTables(TOY).to("meta"), TOY)
    with pytest.raises(Stop, match="cpu"):
        evaluate(ByTables(TOY), TOY)
    with pytest.raises(Stop, match="cuda:7"):
        evaluate(ByTables(TOY), TOY, device="cuda:7")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("data", [TOY, MIXED], ids=["toy", "mixed"])
def test_cuda_measures_as_the_cpu_does(data: Dataset) -> None:
    cpu = evaluate(ByTables(data), data).metrics
    assert evaluate(ByTables(data).cuda(), data).metrics == pytest.approx(cpu)


# ------------------------------------------------------------------ evaluators


def test_one_evaluator_measures_again_and_again() -> None:
    evaluator = Evaluator(TOY, ks=[5])
    first, second = (Fixed(TOY, random_scores(TOY, seed)) for seed in (1, 2))
    once = evaluator.run(first)
    assert evaluator.run(second).metrics != once.metrics
    assert evaluator.run(first).per_user.equals(once.per_user)


def test_judge_measures_lists_made_elsewhere_and_refuses_other_users() -> None:
    evaluator = Evaluator(TOY, ks=[5])
    found = evaluator.run(Fixed(TOY, random_scores(TOY)))
    assert evaluator.judge(found.ranking).per_user.equals(found.per_user)
    others = Ranking(found.ranking.users[::-1], found.ranking.items, found.ranking.scores)
    with pytest.raises(InputError, match="lists of the 59 users"):
        evaluator.judge(others)


def test_only_the_metrics_and_ks_asked_for() -> None:
    found = evaluate(Fixed(TOY, random_scores(TOY)), TOY, ks=[7, 3], metrics=["ndcg", "coverage"])
    assert set(found.metrics) == {"ndcg@3", "ndcg@7", "coverage@3", "coverage@7"}
    assert found.per_user.columns[5:] == ["ndcg@3", "ndcg@7"]
    assert found.ranking.k == 7


def test_the_validation_metric_never_looks_at_test() -> None:
    model = Fixed(TOY, random_scores(TOY))
    found = validation_metric(TOY).run(model)
    blind = replace(TOY, test=Interactions.empty())
    assert found.metrics == validation_metric(blind).run(model).metrics
    assert (found.split, set(found.metrics)) == ("valid", {"recall@20", "ndcg@20"})


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"split": "train"}, "split to evaluate"),
        ({"mask": "strickt"}, "mask"),
        ({"candidates": "warm"}, "kind of candidates"),
        ({"metrics": ["recal"]}, "metric"),
    ],
)
def test_unknown_names_are_refused(options: dict, kind: str) -> None:
    with pytest.raises(UnknownName) as caught:
        Evaluator(TOY, **options)
    assert caught.value.expected.startswith(f"a {kind}, one of")


def test_a_wrong_k_is_refused() -> None:
    with pytest.raises(ConfigError):
        Evaluator(TOY, ks=[0])


def test_a_split_that_asks_nobody_is_refused() -> None:
    with pytest.raises(DataError, match="0 interactions, none of such a user"):
        Evaluator(replace(TOY, test=Interactions.empty()))
