"""What the endpoints answer, held against the ranker itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from served import Asked, event, serving

from modalign_serve.artifact import strings
from modalign_serve.artifact.artifact import Csr
from modalign_serve.artifact.read import read_artifact
from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact
from modalign_serve.ranker.ranker import Ranker
from modalign_serve.ranker.rules import Lift, Rules

MODEL = "/v1/models/shop"


@pytest.fixture(scope="module")
def ranker(shops: Path) -> Ranker:
    return Ranker.open(shops / "shop")


def test_a_list_is_the_rankers(common: Asked, ranker: Ranker) -> None:
    answer = common.post(f"{MODEL}/recommend", {"user_id": "u3", "k": 7})
    assert answer.status_code == 200
    found = answer.json()
    pairs = [(one["item_id"], one["score"]) for one in found["items"]]
    expected = ranker.recommend(["u3"], 7)
    assert [item for item, _ in pairs] == expected.ids()
    np.testing.assert_allclose([s for _, s in pairs], expected.scores[0], rtol=1e-6)
    assert (found["model"], found["user_id"], found["basis"]) == ("shop", "u3", "trained")


def test_requests_that_arrive_together_get_each_their_own(asked: Asked) -> None:
    asked.post("/v1/feedback", [event("1", "neu", "i3"), event("2", "u4", "i9")])
    bodies = [
        {"user_id": f"u{n % 30}", "k": 5 + n % 2, "filter_seen": n % 3 > 0} for n in range(90)
    ]
    bodies += [{"user_id": "neu"}, {"user_id": "nobody"}, {"user_id": "u1", "diversity": 0.5}]
    together = asked.together(f"{MODEL}/recommend", bodies)
    # Four kinds of question from those that the training knows, and one from somebody new.
    assert 'modalign_rank_batch_count{model="shop"} 5.0' in asked.get("/metrics").text
    for body, answer in zip(bodies, together, strict=True):
        alone = asked.post(f"{MODEL}/recommend", body)
        assert answer.status_code == alone.status_code
        if answer.status_code == 200:
            one, other = answer.json(), alone.json()
            assert [i["item_id"] for i in one["items"]] == [i["item_id"] for i in other["items"]]
            assert (one["user_id"], one["basis"]) == (other["user_id"], other["basis"])


def test_an_integer_id_and_a_text_are_the_same_user(common: Asked) -> None:
    common.post("/v1/feedback", [event("int-1", 77, "i3")])
    assert common.recommend({"user_id": 77}) == common.recommend({"user_id": "77"})


RULES = [
    {"filter_seen": False},
    {"exclude": ["i1", "i2", "never-heard-of"]},
    {"allow": ["i1", "i2", "i3", "i9"]},
    {"where": {"category": "a"}},
    {"where": {"category": ["a", "b"], "price": {"min": 5, "max": 20}}},
    {"where": {"price": 7}},
    {"at_most_per": {"category": 1}},
    {"diversity": 0.6},
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: next(iter(rule)))
def test_rules_reach_the_ranker(common: Asked, ranker: Ranker, rule: dict[str, object]) -> None:
    plain = ranker.recommend(["u5"], 8).ids()
    expected = ranker.recommend(["u5"], 8, Rules(**rule)).ids()  # type: ignore[arg-type]
    assert common.recommend({"user_id": "u5", "k": 8, **rule}) == expected
    liked = ranker.recommend_for_items(["i1", "i7"], 8, Rules(**rule)).ids()  # type: ignore[arg-type]
    assert common.recommend({"items": ["i1", "i7"], "k": 8, **rule}) == liked
    assert rule == {"where": {"price": 7}} or expected != plain or "exclude" in rule


@pytest.mark.parametrize("asked", [{"user_id": "u5"}, {"user_id": "u5", "diversity": 0.5}])
def test_a_user_is_looked_up_once(
    common: Asked, monkeypatch: pytest.MonkeyPatch, asked: dict[str, object]
) -> None:
    looked_up, hashed = [], strings.hashed

    def counted(one: str) -> int:
        looked_up.append(one)
        return hashed(one)

    with monkeypatch.context() as patch:
        patch.setattr(strings, "hashed", counted)
        common.recommend(asked)
    assert looked_up == ["u5"]


def test_boosts_reach_the_ranker(common: Asked, ranker: Ranker) -> None:
    asked = {"boost": [{"amount": 3, "where": {"category": "c"}}, {"amount": -9, "items": ["i2"]}]}
    boosts = [Lift(3, {"category": "c"}), Lift(-9, None, ["i2"])]
    expected = ranker.recommend(["u5"], 8, Rules(boost=boosts)).ids()
    assert common.recommend({"user_id": "u5", "k": 8, **asked}) == expected
    assert expected != ranker.recommend(["u5"], 8).ids()


def test_several_users_at_once_and_one_nobody_knows(common: Asked) -> None:
    users = ["u9", "nobody", "u2", "u9"]
    found = common.post(f"{MODEL}/recommend", {"user_ids": users, "k": 5, "on_unknown": "error"})
    found = found.json()["users"]
    assert [one["user_id"] for one in found] == users
    for place, user in ((0, "u9"), (2, "u2"), (3, "u9")):
        single = common.recommend({"user_id": user, "k": 5})
        assert [one["item_id"] for one in found[place]["items"]] == single
    assert found[1]["items"] == []
    assert "'nobody'" in found[1]["error"]["got"]


def test_similar_items_one_and_several(common: Asked, ranker: Ranker) -> None:
    one = common.post(f"{MODEL}/similar", {"item_id": "i4", "k": 6}).json()
    expected = ranker.similar_items(["i4", "i5"], 6)
    assert [i["item_id"] for i in one["items"]] == expected.ids(0)
    two = common.post(f"{MODEL}/similar", {"item_ids": ["i4", "i5"], "k": 6}).json()["lists"]
    assert [[i["item_id"] for i in one["items"]] for one in two] == [
        expected.ids(0), expected.ids(1)
    ]  # fmt: skip


def test_fields_come_along(common: Asked) -> None:
    asked = {"user_id": "u1", "k": 3, "fields": ["title", "price"]}
    items = common.post(f"{MODEL}/recommend", asked).json()["items"]
    for one in items:
        row = int(one["item_id"][1:])
        assert one["fields"] == {"title": f"Item {row}", "price": row + 1}


def test_items_models_and_card(common: Asked) -> None:
    item = common.get(f"{MODEL}/items/i3").json()
    assert item["fields"]["title"] == "Item 3"
    assert item["image"] == "/images/shop/i3"
    assert common.get(f"{MODEL}/items/i9").json()["image"] is None
    (line,) = common.get("/v1/models").json()["models"]
    assert (line["name"], line["n_users"], line["share"]) == ("shop", 30, 1.0)
    card = common.get(MODEL).json()
    assert card["manifest"]["width"] == 8
    assert card["version"] == line["version"]


def test_a_picture_is_sent_from_the_artifact(common: Asked, shops: Path) -> None:
    answer = common.get("/images/shop/i3")
    assert answer.headers["content-type"] == "image/png"
    pictures = read_artifact(shops / "shop").pictures
    assert pictures is not None
    assert answer.content == pictures.read("images/3.png")
    assert common.get("/images/shop/i30").status_code == 404


def test_a_new_item_by_features_is_ranked_for_all_and_outlives_the_process(
    shops: Path, tmp_path: Path
) -> None:
    store, artifacts = tmp_path / "f.sqlite", {"shop": shops / "shop"}
    everyone = {"user_ids": [f"u{n}" for n in range(30)], "k": 40, "where": {"category": "a"}}

    def holders(asked: Asked) -> list[str]:
        users = asked.post(f"{MODEL}/recommend", everyone).json()["users"]
        return [u["user_id"] for u in users if "new" in [i["item_id"] for i in u["items"]]]

    with serving(artifacts, store) as asked:
        assert holders(asked) == []
        item = {
            "item_id": "new",
            "features": {"text": [1, 0, 0, 2, 0]},
            "fields": {"title": "A rucksack", "category": "a", "price": 3},
        }
        answer = asked.post(f"{MODEL}/items", item)
        assert answer.json() == {
            "model": "shop", "item_id": "new", "n_items": 41, "modalities": ["text"]
        }  # fmt: skip
        assert len(holders(asked)) == 30
        scores = asked.post(f"{MODEL}/recommend", {"user_id": "u3", "k": 41, "allow": ["new"]})
        vector = np.array([1, 0, 0, 2, 0, 0, 0, 0], np.float32) / np.sqrt(5) * 10
        ranker = asked.service.models.get("shop").ranker
        expected = ranker.artifact.users[3] @ vector  # type: ignore[index]
        np.testing.assert_allclose(scores.json()["items"][0]["score"], expected, rtol=1e-4)
        record = asked.get(f"{MODEL}/items/new").json()
        assert record["fields"]["title"] == "A rucksack"
        assert asked.get(MODEL).json()["new_items"] == 1
    with serving(artifacts, store) as asked:
        assert len(holders(asked)) == 30


def test_a_new_item_by_its_vector_stays_with_its_artifact(shops: Path, tmp_path: Path) -> None:
    store = tmp_path / "f.sqlite"
    with serving({"shop": shops / "shop"}, store) as asked:
        answer = asked.post(f"{MODEL}/items", {"item_id": "v", "vector": [9, 0, 0, 0, 0, 0, 0, 0]})
        assert answer.json()["modalities"] == ["vector"]
    with serving({"shop": shops / "shop"}, store) as asked:
        assert asked.get(f"{MODEL}/items/v").status_code == 200
    with serving({"shop": shops / "shop-2"}, store) as asked:
        assert asked.get(f"{MODEL}/items/v").status_code == 404
        assert next(one["event"] for one in asked.log()) == "new item left out"


def counted(metrics: str, name: str, model: str) -> float:
    """The sum of a metric over everything but the model."""
    lines = [one for one in metrics.splitlines() if one.startswith(name + "{")]
    return sum(float(one.rpartition(" ")[2]) for one in lines if f'model="{model}"' in one)


def test_the_split_gives_a_user_the_same_model_always(shops: Path, tmp_path: Path) -> None:
    artifacts = {"shop": shops / "shop", "new": shops / "shop-2"}
    split = {"shop": 0.75, "new": 0.25}
    users = [f"w{n}" for n in range(400)]
    with serving(artifacts, tmp_path / "f.sqlite", split=split) as asked:
        events = [event(f"e{n}", user, "i1") for n, user in enumerate(users)]
        assert asked.post("/v1/feedback", events).json()["new"] == 400
        found = asked.post("/v1/recommend", {"user_ids": users, "k": 1}).json()["users"]
        models = [one["model"] for one in found]
        # 400 fair draws of 1 in 4: a deviation of 8.7; four of them on either side.
        assert 65 < models.count("new") < 135
        for user, model in list(zip(users, models, strict=True))[:20]:
            assert asked.post("/v1/recommend", {"user_id": user}).json()["model"] == model
        told = asked.get("/metrics").text
        assert (
            f'modalign_feedback_of_model_total{{kind="click",model="new"}} {models.count("new")}.0'
            in told
        )
        lists = sum(model == "new" for model in models) + sum(m == "new" for m in models[:20])
        asked_new = [
            ln
            for ln in told.splitlines()
            if ln.startswith("modalign_lists_total") and 'model="new"' in ln
        ]
        assert sum(float(line.rpartition(" ")[2]) for line in asked_new) == lists
    with serving(artifacts, tmp_path / "g.sqlite") as asked:
        assert asked.post("/v1/recommend", {"user_id": "u1"}).json()["model"] == "shop"
        shares = [one["share"] for one in asked.get("/v1/models").json()["models"]]
        assert shares == [1.0, 0.0]


def without_vectors(folder: Path) -> Path:
    """A model of items and their neighbours alone: item i gives to i + 1 and i + 2."""
    made = small_artifact(20, 30, 4, mean_seen=3)
    indices = (np.arange(30)[:, None] + [1, 2]) % 30
    given = Csr(
        np.arange(31) * 2, np.sort(indices).ravel().astype(np.int32), np.ones(60, np.float32)
    )
    manifest = replace(made.manifest, kind="neighbours", model="itemknn", width=0, fold_in={})
    bare = replace(
        made, manifest=manifest, users=None, items=None, features={}, fold_in={}, neighbours=given
    )
    return write_artifact(folder, bare)


def test_a_model_without_vectors_says_what_it_cannot(tmp_path: Path) -> None:
    folder = without_vectors(tmp_path / "knn")
    with serving({"knn": folder}, tmp_path / "f.sqlite") as asked:
        assert set(asked.recommend({"items": ["i3"], "k": 2}, "knn")) == {"i4", "i5"}
        asked.post("/v1/feedback", [event("1", "neu", "i7"), event("2", "neu", "i9", "hide")])
        assert asked.recommend({"user_id": "neu", "k": 1}, "knn") == ["i8"]
        refused = {
            "recommend": {"user_id": "u1", "diversity": 0.5},
            "similar": {"item_id": "i1"},
            "items": {"item_id": "new", "vector": [1.0]},
        }
        for verb, body in refused.items():
            answer = asked.post(f"/v1/models/knn/{verb}", body)
            assert answer.status_code == 409, answer.text
            assert "itemknn" in answer.json()["error"]["got"]
        assert asked.get("/docs").status_code == 200


def test_a_model_without_a_fold_in_still_hides_what_was_seen(tmp_path: Path) -> None:
    made = small_artifact(20, 30, 4, mean_seen=3)
    bare = replace(made, manifest=replace(made.manifest, fold_in={}), fold_in={})
    folder = write_artifact(tmp_path / "bare", bare)
    with serving({"bare": folder}, tmp_path / "f.sqlite") as asked:
        assert asked.post("/v1/models/bare/recommend", {"items": ["i1"]}).status_code == 409
        before = asked.recommend({"user_id": "u3", "k": 30}, "bare")
        asked.post("/v1/feedback", [event("1", "u3", before[0]), event("2", "u3", before[3])])
        after = asked.recommend({"user_id": "u3", "k": 30}, "bare")
        assert after == [one for one in before if one not in (before[0], before[3])]


def test_docs_and_openapi_need_nothing_from_elsewhere(common: Asked) -> None:
    page = common.get("/docs").text
    assert "/v1/models/{name}/recommend" in page
    for outside in ("http://", "https://", "src="):
        assert outside not in page
    document = common.get("/openapi.json").json()
    name = document["paths"]["/v1/models/{name}/recommend"]["post"]["parameters"][0]
    assert name["schema"]["enum"] == ["shop"]
    where = document["components"]["schemas"]["Recommend"]["properties"]["where"]["anyOf"][0]
    assert set(where["properties"]) == {"title", "category", "price", "image"}


def test_metrics_tell_of_requests_by_their_route(asked: Asked) -> None:
    asked.recommend({"user_id": "u1"})
    asked.recommend({"user_id": "u2"})
    asked.get("/nowhere/at/all")
    told = asked.get("/metrics").text
    labels = 'method="POST",route="/v1/models/{name}/recommend",status="200"'
    assert f"modalign_requests_total{{{labels}}} 2.0" in told
    assert 'modalign_requests_total{method="GET",route="other",status="404"} 1.0' in told
    assert 'modalign_lists_total{asked="user",model="shop"} 2.0' in told
    assert "modalign_request_seconds_bucket" in told
    assert "nowhere" not in told
