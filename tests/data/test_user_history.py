"""One meaning of what a user had: all rooms that read or hide it agree with slow sets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from modalign.core.interfaces import Queries
from modalign.data.dataset import SPLITS, Dataset
from modalign.data.interactions import Interactions
from modalign.data.vocabulary import Vocabulary
from modalign.errors import DataError
from modalign.evaluate.protocol import Evaluator
from modalign.experiments.cost import Asker
from modalign.experiments.fitted import FittedModel
from modalign.export.export_run import export_run
from modalign.models._registry import get
from modalign.models.ease import EASE, EASEConfig
from modalign.report.gallery import liked
from modalign_serve.artifact.read import read_artifact

N_USERS, N_ITEMS = 5, 7
Pairs = list[tuple[int, int]]
Rows = dict[int, set[int]]

QUIET = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
PAIRS = st.lists(
    st.tuples(st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1)), max_size=9, unique=True
)
PARTS = st.fixed_dictionaries(dict.fromkeys(SPLITS, PAIRS)).filter(lambda one: one["train"])

# User 0 is trained and has a known part; the pair (1, 2) stands in training and in validation;
# user 3 is held out, with one pair in both known parts; user 4 has only a test item.
MIXED: dict[str, Pairs] = {
    "train": [(0, 0), (0, 1), (1, 2), (2, 3)],
    "valid": [(1, 2), (1, 4), (3, 6)],
    "test": [(0, 2), (1, 5), (3, 1), (4, 0)],
    "valid_history": [(3, 5), (0, 6)],
    "test_history": [(3, 4), (3, 5), (0, 5)],
}


def dataset(parts: dict[str, Pairs]) -> Dataset:
    found = {
        name: Interactions(*np.array(pairs, np.int64).reshape(-1, 2).T)
        for name, pairs in parts.items()
    }
    return Dataset(
        "toy",
        Vocabulary([f"u{row}" for row in range(N_USERS)], "user"),
        Vocabulary([f"i{row}" for row in range(N_ITEMS)], "item"),
        **found,
    )


def sets(parts: dict[str, Pairs], *names: str, users: set[int] | None = None) -> Rows:
    """Items of each user in any of the parts, user by user."""
    return {
        user: {
            item
            for name in names
            for one, item in parts[name]
            if one == user and (users is None or user in users)
        }
        for user in range(N_USERS)
    }


def union(*several: Rows) -> Rows:
    return {user: set().union(*(one[user] for one in several)) for user in range(N_USERS)}


def expected(parts: dict[str, Pairs]) -> tuple[Callable[..., Rows], Callable[..., Rows], Rows]:
    """The rules of the module's documentation, slowly: `read`, `seen` and `known`."""
    untrained = set(range(N_USERS)) - {user for user, _ in parts["train"]}

    def read(split: str | None = None) -> Rows:
        splits = ["valid", "test"] if split is None else [split]
        told = sets(parts, *(f"{one}_history" for one in splits), users=untrained)
        return union(sets(parts, "train"), told)

    def seen(split: str, mask: str) -> Rows:
        more = ["valid"] if (split, mask) == ("test", "strict") else []
        return union(read(split), sets(parts, *more))

    return read, seen, sets(parts, *(name for name in SPLITS if name != "test"))


def rows(matrix: sp.csr_array) -> Rows:
    assert matrix.shape == (N_USERS, N_ITEMS)
    assert set(matrix.data.tolist()) <= {1.0}
    return {user: set(matrix[[user]].indices.tolist()) for user in range(N_USERS)}


class Spy(EASE):
    """EASE that keeps the history it was given of each place in a block."""

    def score(self, queries: Queries) -> Tensor:
        assert queries.history is not None
        dense = queries.history.to_dense().numpy()
        assert set(np.unique(dense)) <= {0.0, 1.0}
        self.told = [set(np.flatnonzero(row).tolist()) for row in dense]
        return super().score(queries)


def fitted(data: Dataset) -> FittedModel:
    model = Spy(EASEConfig(reg=1.0), data.view())
    model.solve(data.view())
    return FittedModel(model, get("ease"), model.config, data, 1, {})


def hidden(lists: np.ndarray) -> list[set[int]]:
    return [set(range(N_ITEMS)) - set(row[row >= 0].tolist()) for row in lists]


@QUIET
@given(PARTS)
@example(MIXED)
def test_the_matrices_equal_slow_sets(parts: dict[str, Pairs]) -> None:
    history = dataset(parts).history
    read, seen, known = expected(parts)
    assert rows(history.train) == sets(parts, "train")
    assert rows(history.known) == known
    assert rows(history.read()) == read()
    for split in ("valid", "test"):
        assert rows(history.read(split)) == read(split)
        for mask in ("strict", "train"):
            assert rows(history.seen(split, mask)) == seen(split, mask)
    for user in range(N_USERS):
        assert set(history.of(user).items.tolist()) == read()[user]
    trained = {user for user, _ in parts["train"]}
    assert set(np.flatnonzero(history.trained)) == trained
    others = {user for name in SPLITS for user, _ in parts[name]} - trained
    assert set(np.flatnonzero(history.held_out)) == others


@QUIET
@given(PARTS)
@example(MIXED)
def test_training_evaluation_recommendation_profile_and_report_agree(
    parts: dict[str, Pairs],
) -> None:
    data = dataset(parts)
    read, seen, known = expected(parts)
    view = data.view()
    had = sets(parts, "train")
    assert sorted(zip(view.users.tolist(), view.items.tolist(), strict=True)) == sorted(
        (user, item) for user in had for item in had[user]
    )
    run = fitted(data)
    model = run.model
    assert isinstance(model, Spy)

    for split in ("valid", "test"):
        for mask in ("strict", "train"):
            try:
                evaluator = Evaluator(data, split, mask, ks=[N_ITEMS])
            except DataError:  # no user of the split is known
                continue
            found = evaluator.run(model)
            users = found.ranking.users.tolist()
            assert model.told == [read(split)[user] for user in users]
            assert hidden(found.ranking.items) == [seen(split, mask)[user] for user in users]

    frame = run.recommend(k=N_ITEMS)
    assert model.told == [read()[user] for user in range(N_USERS)]
    for user in range(N_USERS):
        listed = frame.filter(user_id=f"u{user}")["item_id"].to_list()
        assert {f"i{item}" for item in range(N_ITEMS)} - set(listed) == {
            f"i{item}" for item in known[user]
        }

    asker = Asker(run, N_ITEMS, "cpu")
    ranking = asker.ask(model, asker.users)
    assert set(asker.users) == {user for user, _ in parts["train"]}
    assert model.told == [read()[user] for user in asker.users]
    assert hidden(ranking.items) == [known[user] for user in asker.users]

    for user in range(N_USERS):
        mine = [one["item"] for one in liked(data, f"u{user}")]
        assert len(mine) == len(set(mine))
        assert set(mine) == read()[user]


@settings(QUIET, max_examples=5)
@given(PARTS)
@example(MIXED)
def test_an_exported_artifact_agrees(parts: dict[str, Pairs]) -> None:
    data = dataset(parts)
    read, _, known = expected(parts)
    with tempfile.TemporaryDirectory() as scratch:
        export_run(fitted(data), Path(scratch) / "art", adapter=False)
        artifact = read_artifact(Path(scratch) / "art")
        for csr, wanted in ((artifact.seen, known), (artifact.history, read())):
            assert csr is not None
            ends = np.asarray(csr.indptr)
            found = [
                np.asarray(csr.indices)[ends[row] : ends[row + 1]].tolist()
                for row in range(N_USERS)
            ]
            assert found == [sorted(wanted[row]) for row in range(N_USERS)]


def test_each_matrix_is_computed_once() -> None:
    history = dataset({**MIXED, "valid_history": [], "test_history": []}).history
    assert history.train is history.read() is history.read("test") is history.seen("valid")
    assert history.known is history.seen("test") is not history.train


def test_the_latest_is_liked_first_and_a_pair_in_both_known_parts_once() -> None:
    def part(items: list[int], time: list[int]) -> Interactions:
        n = len(items)
        return Interactions(np.full(n, 3), np.array(items), time=np.array(time))

    data = dataset({**MIXED, "valid_history": [], "test_history": []})
    data = Dataset(
        "toy",
        data.users,
        data.items,
        data.train,
        data.valid,
        data.test,
        valid_history=part([5, 4], [1, 2]),
        test_history=part([5, 6], [9, 3]),
    )
    assert [one["item"] for one in liked(data, "u3")] == [5, 6, 4]


def test_an_unknown_user_is_refused() -> None:
    with pytest.raises(DataError):
        liked(dataset(MIXED), "u9")
