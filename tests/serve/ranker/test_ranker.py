from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modalign_serve.artifact.artifact import Artifact, Category, Csr
from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.strings import UnknownIds
from modalign_serve.artifact.write import write_artifact
from modalign_serve.errors import ArtifactError, ConfigError, DataError, UnknownName
from modalign_serve.ranker.ranker import Ranked, Ranker
from modalign_serve.ranker.rules import Lift, Rules


@pytest.fixture
def artifact() -> Artifact:
    return small_artifact(40, 150, 6, seed=3, mean_seen=12)


def slow(artifact: Artifact, user: int, k: int, **rules: Any) -> list[str]:
    """Every rule but diversity, one item at a time, over a Python list of scores."""
    assert artifact.users is not None
    assert artifact.items is not None
    n = artifact.n_items
    seen = set(artifact.seen.row(user).tolist())
    scores = [float(artifact.users[user] @ artifact.items[item]) for item in range(n)]
    if not seen:
        scores = [float(one) for one in artifact.counts]
    records = [artifact.item_record(item) for item in range(n)]
    spread = float(np.std(scores))
    for boost in rules.get("boost", ()):
        for item in range(n):
            meets = boost.where and all(records[item][c] == v for c, v in boost.where.items())
            if meets or f"i{item}" in boost.items:
                scores[item] += boost.amount * spread
    counts: Counter[object] = Counter()
    found: list[str] = []
    for item in sorted(range(n), key=lambda one: (-np.float32(scores[one]), one)):
        record, name = records[item], f"i{item}"
        if rules.get("filter_seen", True) and item in seen:
            continue
        if name in rules.get("exclude", ()):
            continue
        if rules.get("allow") is not None and name not in rules["allow"]:
            continue
        if any(record[column] != value for column, value in rules.get("where", {}).items()):
            continue
        full = [
            column
            for column, limit in rules.get("at_most_per", {}).items()
            if record[column] is not None and counts[column, record[column]] >= limit
        ]
        if full:
            continue
        counts.update((column, record[column]) for column in rules.get("at_most_per", {}))
        found.append(name)
        if len(found) == k:
            break
    return found


RULES: list[dict[str, Any]] = [
    {},
    {"filter_seen": False},
    {"exclude": [f"i{row}" for row in range(0, 150, 3)] + ["unheard of"]},
    {"allow": [f"i{row}" for row in range(0, 150, 7)] + ["unheard of"]},
    {"allow": []},
    {"where": {"category": "b"}},
    {"boost": [Lift(1.0, {"category": "a"}), Lift(-2.0, items=["i5", "i6", "unheard of"])]},
    {"at_most_per": {"category": 2}},
    {"at_most_per": {"category": 1}, "where": {"category": "b"}},
    {
        "exclude": ["i1"],
        "where": {"category": "c"},
        "boost": [Lift(0.7, items=["i2"])],
        "at_most_per": {"category": 5},
        "filter_seen": False,
    },
]


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "+".join(rules) or "plain")
@pytest.mark.parametrize("k", [1, 10, 400])
def test_every_rule_equals_the_slow_loop(artifact: Artifact, rules: dict[str, Any], k: int) -> None:
    ranker = Ranker(artifact)
    users = [f"u{row}" for row in range(40)]
    together = ranker.recommend(users, k, Rules(**rules))
    for row, user in enumerate(users):
        wanted = slow(artifact, row, k, **rules)
        assert together.ids(row) == wanted
        assert ranker.recommend([user], k, Rules(**rules)).ids() == wanted


def test_blocks_make_no_difference(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [f"u{row}" for row in range(40)]
    whole = Ranker(artifact).recommend(users, 10)
    monkeypatch.setattr("modalign_serve.ranker.ranker.CELLS", 3 * 150)
    parts = Ranker(artifact).recommend(users, 10)
    np.testing.assert_array_equal(whole.rows, parts.rows)
    assert whole.basis == parts.basis
    similar = Ranker(artifact).similar_items(["i1", "i2", "i3", "i4"], 5)
    monkeypatch.undo()
    expected = Ranker(artifact).similar_items(["i1", "i2", "i3", "i4"], 5)
    np.testing.assert_array_equal(similar.rows, expected.rows)


def test_a_list_with_limits_walks_past_its_pool(artifact: Artifact) -> None:
    category = artifact.columns["category"]
    assert isinstance(category, Category)
    # All of one category but the three that this user would get last.
    order = Ranker(artifact).recommend(["u1"], 150, Rules(filter_seen=False)).rows[0]
    codes = np.zeros(150, np.int32)
    codes[order[-3:]] = 1
    one = replace(artifact, columns={"category": Category(codes, category.names)})
    asked: dict[str, Any] = {"at_most_per": {"category": 2}, "filter_seen": False}
    found = Ranker(one).recommend(["u1"], 4, Rules(**asked))
    assert found.ids() == slow(one, 1, 4, **asked)
    assert set(found.rows[0, 2:]) <= set(order[-3:])
    spread = Ranker(one).recommend(["u1"], 5, Rules(diversity=0.5, **asked))
    assert len(spread.ids()) == 4


def test_diversity_spreads(artifact: Artifact) -> None:
    ranker = Ranker(artifact)
    assert artifact.items is not None
    unit = artifact.items / np.linalg.norm(artifact.items, axis=1, keepdims=True)

    def alike(found: Ranked) -> float:
        rows = unit[found.rows[0]]
        return float((rows @ rows.T)[np.triu_indices(10, 1)].mean())

    lists = [ranker.recommend(["u1"], 10, Rules(diversity=d)) for d in (0.0, 0.5, 1.0)]
    assert alike(lists[0]) > alike(lists[1]) > alike(lists[2])
    assert len({found.rows[0, 0] for found in lists}) == 1  # the best stays first


def test_a_user_without_history_gets_what_is_popular(artifact: Artifact) -> None:
    found = Ranker(artifact).recommend(["u39", "u0"], 5)
    assert found.basis == ("popular", "trained")
    best = sorted(range(150), key=lambda item: (-artifact.counts[item], item))[:5]
    assert found.ids(0) == [f"i{row}" for row in best]
    assert Ranker(artifact).recommend_for_items([], 5).ids() == found.ids(0)


def test_scores_are_the_products(artifact: Artifact) -> None:
    assert artifact.users is not None
    assert artifact.items is not None
    for item, score in Ranker(artifact).recommend(["u3"], 7).pairs():
        expected = float(artifact.users[3] @ artifact.items[int(item[1:])])
        assert score == pytest.approx(expected, rel=1e-5)


def test_similar_items_are_the_nearest_by_cosine(artifact: Artifact) -> None:
    assert artifact.items is not None
    unit = artifact.items / np.linalg.norm(artifact.items, axis=1, keepdims=True)
    found = Ranker(artifact).similar_items(["i4", "i9"], 3, Rules(exclude=["i0"]))
    for place, row in enumerate((4, 9)):
        cosines = unit @ unit[row]
        cosines[[0, row]] = -9
        assert found.rows[place].tolist() == np.argsort(-cosines)[:3].tolist()
    only = Ranker(artifact).similar_items(["i4"], 200, Rules(where={"category": "a"}))
    assert all(only.catalogue.record(row)["category"] == "a" for row in only.rows[0] if row >= 0)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_a_bad_k(artifact: Artifact, k: object) -> None:
    ranker = Ranker(artifact)
    for call in (
        lambda: ranker.recommend(["u1"], k),  # type: ignore[arg-type]
        lambda: ranker.similar_items(["i1"], k),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match="k of at least 1"):
            call()


def test_unknown_names_are_told(artifact: Artifact) -> None:
    ranker = Ranker(artifact)
    for call in (
        lambda: ranker.recommend(["u1", "nobody"]),
        lambda: ranker.recommend(["nobody"]),
        lambda: ranker.recommend_for_items(["nothing"]),
        lambda: ranker.similar_items(["nothing"]),
        lambda: ranker.update({"u1": ["nothing"]}),
        lambda: ranker.history("nobody"),
        lambda: ranker.explain("nothing", user="u1"),
        lambda: ranker.reach("nothing"),
    ):
        with pytest.raises(UnknownIds, match=r"no(body|thing)"):
            call()
    for call in (
        lambda: ranker.recommend(["u1"], 10, Rules(where={"colour": "red"})),
        lambda: ranker.recommend(["u1"], 10, Rules(at_most_per={"title": 1})),
        lambda: ranker.recommend(["u1"], 10, Rules(at_most_per={"colour": 1})),
    ):
        with pytest.raises(UnknownName, match="item column"):
            call()


# ---------------------------------------------------------------- what changes while it runs


def test_what_was_told_is_seen_at_once(artifact: Artifact) -> None:
    ranker = Ranker(artifact)
    before = ranker.recommend(["u1"], 10)
    ranker.update({"u1": before.ids()[:3]})
    after = ranker.recommend(["u1"], 150)
    assert after.basis == ("updated",)
    assert not set(before.ids()[:3]) & set(after.ids())
    assert set(before.ids()[:3]) <= set(ranker.history("u1"))
    assert ranker.recommend(["u0", "u1"], 150).ids(1) == after.ids()  # one of several
    assert Ranker(artifact).recommend(["u1"], 10).ids() == before.ids()  # the artifact is as it was


def test_a_trained_vector_moves_by_what_its_fold_in_moves(artifact: Artifact) -> None:
    ranker = Ranker(artifact)
    assert artifact.users is not None
    assert artifact.items is not None
    old = artifact.seen.row(1).tolist()
    new = next(row for row in range(150) if row not in old)
    ranker.update({"u1": [f"i{new}"]})
    moved = artifact.users[1] + artifact.items[[*old, new]].mean(0) - artifact.items[old].mean(0)
    scores = dict(ranker.recommend(["u1"], 150).pairs())
    row = next(row for row in range(150) if row not in [*old, new])
    assert scores[f"i{row}"] == pytest.approx(float(moved @ artifact.items[row]), rel=1e-4)


def test_what_is_hidden_is_no_taste(artifact: Artifact) -> None:
    ranker = Ranker(artifact)
    before = ranker.recommend(["u1"], 20)
    ranker.hide({"u1": before.ids()[:2], "new": ["i1"]})
    after = ranker.recommend(["u1", "new"], 18)
    assert after.ids(0) == before.ids()[2:]
    assert after.basis == ("trained", "popular")
    assert "i1" not in after.ids(1)
    assert not {name for name, _ in ranker.explain("i3", user="u1", n=99).nearest["text"]} & set(
        before.ids()[:2]
    )


def test_telling_twice_or_in_parts_changes_nothing(artifact: Artifact) -> None:
    lists = []
    for parts in (["i1", "i2", "i3"],), (["i2"], ["i1", "i3"], ["i3", "i3"]):
        ranker = Ranker(artifact)
        for part in parts:
            ranker.update({"new": part})
        assert ranker.recommend(["new"], 5).basis == ("folded",)
        assert (
            ranker.recommend(["new"], 5).ids()
            == ranker.recommend_for_items(["i1", "i2", "i3"], 5).ids()
        )
        lists.append(ranker.recommend(["new", "u1"], 5).ids(0))
    assert lists[0] == lists[1]


def test_a_refused_update_changes_nothing(artifact: Artifact) -> None:
    ranker = Ranker(artifact)
    with pytest.raises(UnknownIds):
        ranker.update({"u1": ["i1"], "u2": ["nothing"]})
    assert ranker.recommend(["u1"], 5).basis == ("trained",)
    assert ranker.find("new") is None
    ranker.update({"new": []})
    assert ranker.recommend(["new"], 5).basis == ("popular",)


def test_a_new_item_is_ranked_for_everyone_in_the_next_call(artifact: Artifact) -> None:
    ranker = Ranker(artifact)
    assert artifact.users is not None
    record = {"title": "New", "category": "fresh", "price": 3}
    ranker.add_item("new", 100 * artifact.users[1], record)
    found = ranker.recommend(["u1", "u2"], 5)
    assert found.ids(0)[0] == "new"
    assert found.catalogue.record(150) == {"title": "New", "category": "fresh", "price": 3}
    assert ranker.recommend(["u1"], 5, Rules(where={"category": "fresh"})).ids() == ["new"]
    cheap = Rules(where={"price": {"min": 3, "max": 3}})
    assert ranker.recommend(["u1"], 5, cheap).ids()[0] == "new"
    assert "new" not in ranker.recommend(["u1"], 150, Rules(exclude=["new"])).ids()
    mixed = Rules(at_most_per={"category": 1}, diversity=0.2)
    assert "new" in ranker.recommend(["u1"], 5, mixed).ids()
    assert ranker.similar_items(["new"], 3).ids() == slow_similar(artifact, artifact.users[1], 3)
    ranker.update({"u1": ["new"]})
    assert "new" not in ranker.recommend(["u1"], 150).ids()
    assert ranker.recommend_for_items(["new"], 3).basis == ("folded",)
    assert ranker.reach("new", k=5).asked == 40


def slow_similar(artifact: Artifact, vector: np.ndarray, k: int) -> list[str]:
    assert artifact.items is not None
    unit = artifact.items / np.linalg.norm(artifact.items, axis=1, keepdims=True)
    return [f"i{row}" for row in np.argsort(-(unit @ vector))[:k]]


def test_limits_hold_for_added_items(artifact: Artifact) -> None:
    ranker = Ranker(artifact)
    assert artifact.users is not None
    for name, kind in (("p", "fresh"), ("q", "fresh"), ("r", "a"), ("s", None)):
        ranker.add_item(name, 100 * artifact.users[1], {"category": kind})
    assert ranker.recommend(["u1"], 4).ids() == ["p", "q", "r", "s"]
    kept = ranker.recommend(["u1"], 150, Rules(at_most_per={"category": 1})).ids()
    assert kept[:3] == ["p", "r", "s"]
    records = [ranker.catalogue.record(int(row)) for row in ranker.catalogue.rows(kept)]
    named = [record["category"] for record in records if record["category"] is not None]
    assert sorted(map(str, named)) == ["a", "b", "c", "fresh"]


def test_an_added_item_is_replaced_and_others_stay(artifact: Artifact) -> None:
    ranker = Ranker(artifact)
    assert artifact.users is not None
    for number, sign in enumerate((1, 1, -1)):
        name = "b" if number == 1 else "a"
        ranker.add_item(name, sign * 100 * artifact.users[1], {"title": f"{name}{number}"})
    found = ranker.recommend(["u1"], 200)
    assert (found.ids()[0], found.ids()[-1]) == ("b", "a")
    assert len(ranker.catalogue) == 152
    ranker.add_items(["c", "c", "b"], np.stack([artifact.users[1] * s for s in (9, 999, 99)]))
    assert ranker.recommend(["u1"], 200).ids()[:2] == ["c", "b"]
    assert len(ranker.catalogue) == 153
    assert found.catalogue.record(150)["title"] == "a2"


@pytest.mark.parametrize(
    ("ids", "vectors", "record"),
    [
        (["i3"], np.zeros((1, 6)), {}),
        (["a"], np.zeros((1, 5)), {}),
        (["a", "b"], np.zeros((1, 6)), {}),
        (["a"], np.full((1, 6), np.nan), {}),
        (["a"], np.zeros((1, 6)), {"price": "low"}),
        (["a"], np.zeros((1, 6)), {"title": ["a", "list"]}),
        (["a", "a", "b"], np.zeros((2, 6)), {}),
    ],
)
def test_items_that_cannot_be_added(
    artifact: Artifact, ids: list[str], vectors: np.ndarray, record: dict[str, Any]
) -> None:
    ranker = Ranker(artifact)
    with pytest.raises(DataError):
        ranker.add_items(ids, vectors, [record] * len(ids))
    assert len(ranker.catalogue) == 150
    with pytest.raises(ConfigError, match="vectors or features"):
        ranker.add_item("a")
    with pytest.raises(ConfigError, match="content adapter"):
        ranker.add_item("a", features={"text": np.ones(3)})


def test_many_threads_read_whole_lists_while_others_write(artifact: Artifact) -> None:
    ranker = Ranker(artifact)
    failures: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                found = ranker.recommend(["u1", "u2", "late"], 20)
                for place in range(3):
                    ids = found.ids(place)
                    assert len(ids) == len(set(ids)) == 20
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    ranker.update({"late": ["i0"]})
    threads = [threading.Thread(target=read) for _ in range(4)]
    for one in threads:
        one.start()
    rng = np.random.default_rng(1)
    for number in range(100):
        ranker.update({"late" if number % 2 else "u1": [f"i{rng.integers(100)}"]})
        ranker.add_item(f"new{number}", rng.normal(size=6))
    stop.set()
    for one in threads:
        one.join()
    assert failures == []
    assert len(ranker.catalogue) == 250


def test_writers_lose_nothing(artifact: Artifact) -> None:
    ranker = Ranker(artifact)

    def write(start: int) -> None:
        for number in range(start, 100, 4):
            ranker.update({"new": [f"i{number}"]})
            ranker.add_item(f"n{number}", np.ones(6))

    threads = [threading.Thread(target=write, args=(start,)) for start in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(ranker.history("new")) == 100
    assert len(ranker.catalogue) == 250


# ---------------------------------------------------------------- reasons


def test_reasons_are_the_nearest_liked_items(artifact: Artifact) -> None:
    given = replace(
        artifact, manifest=replace(artifact.manifest, segments=(("a", 0, 2), ("b", 2, 6)))
    )
    ranker = Ranker(given)
    item = ranker.recommend(["u1"], 1).ids()[0]
    why = ranker.explain(item, user="u1", n=2)
    features, liked = artifact.features["text"], artifact.seen.row(1)
    cosines = features[liked] @ features[int(item[1:])]
    best = liked[np.argsort(-cosines)[:2]]
    assert [name for name, _ in why.nearest["text"]] == [f"i{row}" for row in best]
    assert why.nearest["text"][0][1] == pytest.approx(float(cosines.max()), rel=1e-5)
    assert why.score is not None
    assert sum(why.parts.values()) == pytest.approx(why.score, rel=1e-5)
    anonymous = ranker.explain(item, items=["i1", "i2"])
    assert {name for name, _ in anonymous.nearest["text"]} <= {"i1", "i2"}
    assert ranker.explain("i1", user="u39").score is None


def test_reach_is_who_has_it_in_the_list(artifact: Artifact) -> None:
    ranker = Ranker(artifact)
    lists = {f"u{row}": ranker.recommend([f"u{row}"], 20).ids() for row in range(40)}
    found = ranker.reach("i7", k=20)
    assert found.asked == 40
    assert dict(found.users) == {
        user: ids.index("i7") + 1 for user, ids in lists.items() if "i7" in ids
    }
    places = [place for _, place in found.users]
    assert places == sorted(places)


# ---------------------------------------------------------------- other kinds


def neighbours(artifact: Artifact) -> tuple[Artifact, np.ndarray]:
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(150, 150)).astype(np.float32) * (rng.random((150, 150)) < 0.1)
    rows = [np.flatnonzero(row) for row in matrix]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    csr = Csr(indptr, np.concatenate(rows).astype(np.int32), matrix[matrix != 0])
    manifest = replace(artifact.manifest, kind="neighbours", fold_in={})
    return replace(artifact, users=None, neighbours=csr, manifest=manifest), matrix


def test_an_item_item_matrix_is_summed_over_the_history(artifact: Artifact) -> None:
    given, matrix = neighbours(artifact)
    ranker = Ranker(given)
    for row in (0, 1, 2):
        history = given.seen.row(row)
        scores = matrix[history].sum(axis=0)
        scores[history] = -np.inf
        wanted = sorted(range(150), key=lambda item: (-scores[item], item))[:10]
        found = ranker.recommend([f"u{row}", "u3"], 10)
        assert found.ids(0) == [f"i{one}" for one in wanted]
        as_items = ranker.recommend_for_items([f"i{one}" for one in history], 10)
        assert as_items.ids() == found.ids(0)
    ranker.update({"new": ["i1"]})
    assert ranker.recommend(["new"], 3).ids() == ranker.recommend_for_items(["i1"], 3).ids()
    with pytest.raises(ConfigError, match="distil"):
        ranker.add_item("a", np.zeros(6))


def test_a_part_that_is_missing_is_told(artifact: Artifact) -> None:
    given, _ = neighbours(artifact)
    for broken in (
        replace(given, neighbours=None),
        replace(artifact, users=None),
        replace(artifact, manifest=replace(artifact.manifest, kind="encoder")),
    ):
        with pytest.raises(ArtifactError, match="export the run again"):
            Ranker(broken)
    with pytest.raises(ArtifactError, match="--index hnsw"):
        Ranker(artifact, search="hnsw")


def test_without_a_fold_in_new_people_are_refused(artifact: Artifact) -> None:
    bare = replace(artifact, fold_in={}, manifest=replace(artifact.manifest, fold_in={}))
    with pytest.raises(ConfigError, match="with a fold-in"):
        Ranker(bare).recommend_for_items(["i1"])


def test_from_disk_as_from_memory(artifact: Artifact, tmp_path: Path) -> None:
    users = [f"u{row}" for row in range(40)]
    stored = Ranker.open(write_artifact(tmp_path / "a", artifact))
    np.testing.assert_array_equal(
        stored.recommend(users, 9).rows, Ranker(artifact).recommend(users, 9).rows
    )
