from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modalign_serve.artifact.artifact import Artifact
from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact
from modalign_serve.errors import ArtifactError
from modalign_serve.ranker.index import Hnsw, lifted
from modalign_serve.ranker.ranker import Ranker
from modalign_serve.ranker.rules import Rules


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("index")
    made = small_artifact(60, 3_000, 8, mean_seen=5)
    assert made.items is not None
    lengths = np.random.default_rng(1).lognormal(0, 0.5, size=(3_000, 1)).astype(np.float32)
    made = replace(made, items=made.items * lengths)
    assert made.items is not None
    Hnsw.build(made.items).write(place / "index.faiss")
    return write_artifact(place / "a", made, {"index.faiss": place / "index.faiss"})


def test_lifting_turns_products_into_distances() -> None:
    rng = np.random.default_rng(1)
    items, user = rng.normal(size=(50, 3)), rng.normal(size=3)
    distances = np.linalg.norm(lifted(items) - np.append(user, 0.0), axis=1)
    np.testing.assert_array_equal(np.argsort(distances), np.argsort(-items @ user))
    lengths = np.linalg.norm(lifted(items), axis=1)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-6)


@pytest.mark.parametrize("rules", [{}, {"filter_seen": False}, {"exclude": ["i1", "i2"]}])
def test_lists_are_those_of_exact_search(folder: Path, rules: dict[str, object]) -> None:
    near, exact = Ranker.open(folder, search="hnsw"), Ranker.open(folder, search="exact")
    users = [f"u{row}" for row in range(60)]
    asked = Rules(**rules)  # type: ignore[arg-type]
    first, second = near.recommend(users, 10, asked), exact.recommend(users, 10, asked)
    same = (first.rows[:, :, None] == second.rows[:, None, :]).any(axis=2).mean()
    assert same > 0.98
    equal = first.rows == second.rows
    np.testing.assert_allclose(first.scores[equal], second.scores[equal], rtol=1e-5)
    assert first.basis == second.basis


def test_added_items_and_what_was_seen_hold_with_an_index(folder: Path) -> None:
    ranker = Ranker.open(folder)
    assert ranker.artifact.users is not None
    ranker.add_item("new", 100 * ranker.artifact.users[1])
    first = ranker.recommend(["u1", "u2"], 10)
    assert first.ids(0)[0] == "new"
    ranker.update({"u1": first.ids(0)})
    after = ranker.recommend(["u1"], 10).ids()
    assert len(after) == 10
    assert not set(after) & set(first.ids(0))


def test_where_the_index_cannot_answer_every_item_is_scored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, exact = Ranker.open(folder, search="hnsw"), Ranker.open(folder, search="exact")
    for k, rules in ((10, Rules(where={"category": "a"})), (3_000, Rules())):
        assert near.recommend(["u1"], k, rules).ids() == exact.recommend(["u1"], k, rules).ids()
    monkeypatch.setattr("modalign_serve.ranker.index.MAX_CANDIDATES", 3)
    assert near.recommend(["u1"], 10).ids() == exact.recommend(["u1"], 10).ids()


def test_as_few_candidates_are_looked_at_as_suffice() -> None:
    rng = np.random.default_rng(1)
    users, items = (rng.normal(size=(n, 8)).astype(np.float32) for n in (60, 2_000))
    lists = np.argsort(-users @ items.T, axis=1)[:, :20]
    graph = Hnsw.build(items)
    assert graph.tune(users, lists) >= 0.985
    few = graph.search
    assert few < 2_048
    assert graph.tune(users, np.full_like(lists, -2)) == 0.0
    assert graph.search == 2_048


def test_a_damaged_index_is_told(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    path.write_bytes(b"no index")
    with pytest.raises(ArtifactError, match="an index in"):
        Hnsw.read(path)


def test_the_artifact_decides(folder: Path) -> None:
    found: Artifact = Ranker.open(folder).artifact
    assert found.file("index.faiss") == folder / "index.faiss"
    assert found.file("encoder.onnx") is None
