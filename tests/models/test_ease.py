"""EASE against ridge regressions column by column, its laws, and the reference on real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import oracles
from modalign.core.interfaces import Queries
from modalign.core.view import TrainView
from modalign.data.interactions import Interactions
from modalign.errors import ConfigError
from modalign.experiments.fit import fit, load_model
from modalign.models import ease
from modalign.models._registry import get
from modalign.models.ease import EASE, EASEConfig
from modalign.testing.harness import queries, score_all
from modalign.testing.toy import tiny_view, toy_dataset

VIEW = toy_dataset().view()
REAL = Path(__file__).parents[2].parent / "shared" / "data"


def solved(view=VIEW, **options) -> EASE:
    model = EASE(EASEConfig(**options), view)
    model.solve(view)
    return model


@pytest.mark.parametrize("reg", [0.5, 10.0, 200.0])
def test_each_column_is_a_ridge_regression_on_the_others(reg: float) -> None:
    expected = oracles.ease_weights(oracles.interaction_matrix(VIEW), reg)
    torch.testing.assert_close(
        solved(reg=reg).weights.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-7
    )


def test_scores_are_the_history_times_the_weights() -> None:
    model = solved(reg=10.0)
    asked = queries(get("ease"), VIEW, torch.arange(VIEW.n_users))
    expected = torch.from_numpy(oracles.interaction_matrix(VIEW)).float() @ model.weights
    torch.testing.assert_close(model.score(asked), expected)


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_the_block_changes_nothing(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    whole = solved(reg=10.0).weights
    monkeypatch.setattr(ease, "BLOCK_ROWS", rows)
    torch.testing.assert_close(solved(reg=10.0).weights, whole, rtol=0, atol=0)


def test_items_of_the_very_same_users_score_the_same_to_the_bit() -> None:
    # The last column is a copy of the first; only who has one of them can tell them apart.
    x = oracles.interaction_matrix(VIEW)[:, :-1]
    x = np.hstack([x, x[:, :1]])
    users, items = np.nonzero(x)
    view = TrainView(*x.shape, torch.from_numpy(users), torch.from_numpy(items))
    asked = torch.from_numpy(np.flatnonzero(x[:, 0] == 0))
    scores = solved(view, reg=10.0).score(queries(get("ease"), view, asked))
    torch.testing.assert_close(scores[:, 0], scores[:, -1], rtol=0, atol=0)


def test_an_item_nobody_chose_has_no_weight() -> None:
    weights = solved(tiny_view(), reg=1.0).weights
    assert weights[3].abs().sum() == weights[:, 3].abs().sum() == 0
    assert weights.diagonal().abs().sum() == 0


def test_a_large_catalogue_is_refused_with_the_memory_it_would_need() -> None:
    view = TrainView(1, 30_000, torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(ConfigError, match=r"max_items = 20000.*30000 items.*10\.1 GiB"):
        EASE(EASEConfig(max_items=20_000), view)


def test_a_matrix_that_cannot_be_inverted_names_the_option() -> None:
    view = TrainView(1, 3, torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2]))
    with pytest.raises(ConfigError, match="reg=1e-300"):
        solved(view, reg=1e-300)


def test_a_query_without_history_is_refused() -> None:
    with pytest.raises(ValueError, match="histories"):
        solved().score(Queries(torch.tensor([0])))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "reg", "recall", "ndcg"),
    [
        ("bench-ml", 200, 0.3703, 0.2540),
        pytest.param("bench-citeulike", 50, 0.2667, 0.1447, marks=pytest.mark.slow),
    ],
)
def test_reference_run_to_the_fourth_digit(
    name: str, reg: float, recall: float, ndcg: float
) -> None:
    path = REAL / name / f"{name}.inter"
    if not path.is_file():
        pytest.skip(f"{path.name} is not beside the checkout")
    table = pl.read_csv(path, separator="\t")
    n_users, n_items = int(table["userID"].max()) + 1, int(table["itemID"].max()) + 1
    parts = [table.filter(pl.col("x_label") == label) for label in (0, 2)]
    train, test = (
        Interactions(part["userID"].to_numpy(), part["itemID"].to_numpy()) for part in parts
    )
    view = TrainView(
        n_users, n_items, torch.tensor(train.users.copy()), torch.tensor(train.items.copy())
    )
    scores = score_all(get("ease"), solved(view, reg=reg), view).numpy()
    got = recall_and_ndcg(scores, train.csr(n_users, n_items), test.csr(n_users, n_items))
    np.testing.assert_allclose(got, (recall, ndcg), rtol=0, atol=5e-5)


def recall_and_ndcg(scores, seen, wanted, k: int = 20) -> tuple[float, float]:
    """The oracle of the same name in arrays, for thousands of users."""
    scores[seen.nonzero()] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    hits = np.take_along_axis(wanted.toarray(), best, axis=1)
    counts = np.diff(wanted.indptr)
    asked = counts > 0
    discount = 1 / np.log2(np.arange(k) + 2)
    ideal = np.cumsum(discount)[np.minimum(counts[asked], k) - 1]
    recall = hits.sum(1)[asked] / counts[asked]
    return float(recall.mean()), float(((hits @ discount)[asked] / ideal).mean())


def test_the_arrays_agree_with_the_oracle() -> None:
    dataset = toy_dataset()
    shape = dataset.n_users, dataset.n_items
    scores = score_all(get("ease"), solved(reg=10.0), VIEW).numpy()
    seen, wanted = dataset.train.csr(*shape), dataset.test.csr(*shape)
    expected = oracles.recall_and_ndcg(scores, seen.toarray() > 0, wanted.toarray() > 0, 20)
    np.testing.assert_allclose(recall_and_ndcg(scores, seen, wanted), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (200, [100, 200, 400]),
        (800, [200, 400, 800, 1600]),
        (50, [25, 50, 100, 200, 400]),
    ],
)
def test_auto_climbs_to_the_best_penalty_and_keeps_its_weights(best: int, tried: list[int]) -> None:
    by_weights = {
        float(solved(reg=float(one)).weights.abs().sum()): one for one in (25, *tried, 3200)
    }
    measured: list[int] = []

    def measure() -> float:
        reg = by_weights[float(model.weights.abs().sum())]
        measured.append(reg)
        return -abs(np.log(reg / best))

    model = EASE(EASEConfig(), VIEW)
    assert model.choose(VIEW, measure) == {"reg": best}
    assert sorted(measured) == tried
    torch.testing.assert_close(model.weights, solved(reg=float(best)).weights, rtol=0, atol=0)


def test_auto_is_200_without_validation_and_for_many_items(monkeypatch) -> None:
    torch.testing.assert_close(solved().weights, solved(reg=200.0).weights, rtol=0, atol=0)
    monkeypatch.setattr(ease, "AUTO_ITEMS", 10)
    model = EASE(EASEConfig(), VIEW)
    assert model.choose(VIEW, lambda: pytest.fail("nothing to measure")) == {"reg": 200.0}
    torch.testing.assert_close(model.weights, solved(reg=200.0).weights, rtol=0, atol=0)


def test_a_run_says_which_penalty_validation_chose(tmp_path: Path) -> None:
    fitted = fit(toy_dataset(), "ease", out=tmp_path / "run", ks=(5,), progress=False)
    chosen = fitted.results["chosen"]["reg"]
    again = fit(toy_dataset(), "ease", reg=chosen, ks=(5,), progress=False)
    assert "chosen" not in again.results
    assert again.results["valid"] == fitted.results["valid"]
    assert load_model(tmp_path / "run", toy_dataset()).results["chosen"] == {"reg": chosen}
