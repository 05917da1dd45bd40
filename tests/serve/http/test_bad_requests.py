"""Every way to ask wrongly that came to mind: the right status, three facts, and still alive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from served import Asked, event, serving

from modalign_serve.service.keys import new_key

R, S, F, N, W = (
    "/v1/models/shop/recommend",
    "/v1/models/shop/similar",
    "/v1/feedback",
    "/v1/models/shop/items",
    "/v1/admin/swap",
)
U = {"user_id": "u1"}
V = [0.0] * 8

# Method, path, body, status, and a part of what is told.
BAD: list[tuple[str, str, Any, int, str]] = [
    # No JSON at all
    ("POST", R, b"", 400, "an empty body"),
    ("POST", R, b"   ", 400, "an empty body"),
    ("POST", R, b"{", 400, "truncated"),
    ("POST", R, b"user_id=u1&k=3", 400, "malformed"),
    ("POST", R, b"{'user_id': 'u1'}", 400, "malformed"),
    ("POST", R, b'{"user_id": "u1"} extra', 400, "trailing"),
    ("POST", R, b'{"user_id": NaN}', 400, "malformed"),
    ("POST", R, b"\xff\xfe{}", 400, "malformed"),
    ("POST", R, b'{"user_id": "\xff"}', 400, "UTF-8"),
    ("POST", R, b'{"user_id": "\\ud800"}', 400, "JSON"),
    ("POST", R, b"[" * 100_000, 400, "nested"),
    ("POST", F, b"[" * 100_000, 400, "nested"),
    ("POST", R, b'{"where":' + b'{"a":' * 50_000, 400, "nested"),
    ("POST", R, b'{"user_id": "u1", "surprise": ' + b"[" * 100_000, 400, "nested"),
    ("POST", R, b"\x1f\x8b\x08\x00", 400, "malformed"),
    # Another shape
    ("POST", R, b"null", 422, "an object"),
    ("POST", R, b'"u1"', 422, "an object"),
    ("POST", R, [U], 422, "an object"),
    ("POST", F, {"event_id": "e"}, 422, "an array"),
    ("POST", R, {}, 422, "exactly one of user_id, user_ids and items"),
    ("POST", R, {**U, "user_ids": ["u2"]}, 422, "user_id and user_ids"),
    ("POST", R, {**U, "items": ["i1"]}, 422, "user_id and items"),
    ("POST", R, {"user": "u1"}, 422, "'user'"),
    ("POST", S, {}, 422, "neither"),
    ("POST", S, {"item_id": "i1", "item_ids": ["i2"]}, 422, "both"),
    # Ids
    ("POST", R, {"user_id": None}, 422, "null"),
    ("POST", R, {"user_id": ""}, 422, "in user_id"),
    ("POST", R, {"user_id": "x" * 257}, 422, "length <= 256"),
    ("POST", R, {"user_id": "a\u0000b"}, 422, "control characters"),
    ("POST", R, {"user_id": "a\n"}, 422, "control characters"),
    ("POST", R, {"user_id": True}, 422, "true"),
    ("POST", R, {"user_id": 1.5}, 422, "1.5"),
    ("POST", R, {"user_id": 2**60}, 422, "in user_id"),
    ("POST", R, {"user_id": ["u1"]}, 422, "in user_id"),
    ("POST", R, {"user_id": {"$ne": ""}}, 422, "in user_id"),
    ("POST", R, {"user_id": "stranger", "on_unknown": "error"}, 404, "'stranger'"),
    ("POST", R, {"user_id": "u1' OR 1=1 --", "on_unknown": "error"}, 404, "OR 1=1"),
    ("POST", R, {"user_ids": []}, 422, "in user_ids"),
    ("POST", R, {"user_ids": ["u1"] * 1001}, 422, "length <= 1000"),
    ("POST", R, {"user_ids": ["u1", None]}, 422, "user_ids[1]"),
    ("POST", R, {"user_ids": []}, 422, "in user_ids"),
    ("POST", R, {"user_id": "u1", "on_unknown": "guess"}, 422, "in on_unknown"),
    ("POST", R, {"items": ["i1", "strange"]}, 404, "'strange'"),
    ("POST", S, {"item_id": "strange"}, 404, "'strange'"),
    ("POST", S, {"item_ids": ["i1", "strange"]}, 404, "'strange'"),
    # Numbers and rules
    ("POST", R, {**U, "k": 0}, 422, "an integer >= 1 in k"),
    ("POST", R, {**U, "k": -1}, 422, "-1"),
    ("POST", R, {**U, "k": 1001}, 422, "an integer <= 1000 in k"),
    ("POST", R, {**U, "k": 10**30}, 422, "in k"),
    ("POST", R, {**U, "k": "10"}, 422, "'10'"),
    ("POST", R, {**U, "k": 2.5}, 422, "2.5"),
    ("POST", R, {**U, "k": None}, 422, "null"),
    ("POST", R, b'{"user_id": "u1", "diversity": 1e999}', 422, "a number"),
    ("POST", R, {**U, "diversity": 1.01}, 422, "in diversity"),
    ("POST", R, {**U, "diversity": -0.1}, 422, "in diversity"),
    ("POST", R, {**U, "filter_seen": "yes"}, 422, "true or false"),
    ("POST", R, {**U, "filter_seen": 1}, 422, "true or false"),
    ("POST", R, {**U, "exclude": "i1"}, 422, "an array in exclude"),
    ("POST", R, {**U, "exclude": ["i1"] * 10_001}, 422, "length <= 10000"),
    ("POST", R, {**U, "where": {"colour": "red"}}, 422, "'colour'"),
    ("POST", R, {**U, "where": {"price": "cheap"}}, 422, "price"),
    ("POST", R, {**U, "where": {"category": 3}}, 422, "category"),
    ("POST", R, {**U, "where": {"category": True}}, 422, "where"),
    ("POST", R, {**U, "where": {"price": {"least": 3}}}, 422, "'least'"),
    ("POST", R, {**U, "where": {"price": {}}}, 422, "price"),
    ("POST", R, {**U, "where": [["price", 3]]}, 422, "where"),
    ("POST", R, {**U, "boost": [{"where": {"price": 3}}]}, 422, "amount"),
    ("POST", R, {**U, "boost": [{"amount": 1}]}, 422, "neither where nor items"),
    ("POST", R, {**U, "boost": [{"amount": 1e6, "items": ["i1"]}]}, 422, "amount"),
    ("POST", R, {**U, "boost": [{"amount": 1, "items": ["i1"]}] * 17}, 422, "boost"),
    ("POST", R, {**U, "at_most_per": {"category": 0}}, 422, "at_most_per"),
    ("POST", R, {**U, "at_most_per": {"title": 2}}, 422, "'title'"),
    ("POST", R, {**U, "at_most_per": 2}, 422, "at_most_per"),
    ("POST", R, {**U, "fields": ["secret"]}, 422, "'secret'"),
    ("POST", S, {"item_id": "i1", "k": 0}, 422, "in k"),
    ("POST", S, {"item_id": "i1", "diversity": 0.5}, 422, "'diversity'"),
    # Feedback
    ("POST", F, [], 422, "length >= 1"),
    ("POST", F, [event(str(n)) for n in range(1001)], 422, "length <= 1000"),
    ("POST", F, [{"event_id": "e"}], 422, "user_id"),
    ("POST", F, [event("")], 422, "event_id"),
    ("POST", F, [event("e" * 129)], 422, "event_id"),
    ("POST", F, [event("a\u0000")], 422, "control characters"),
    ("POST", F, [event("e", kind="stare")], 422, "stare"),
    ("POST", F, [{**event("e"), "time": 1_700_000_000_000}], 422, "4102444800"),
    ("POST", F, [{**event("e"), "time": "yesterday"}], 422, "yesterday"),
    ("POST", F, [{**event("e"), "time": -1}], 422, "-1"),
    ("POST", F, [{**event("e"), "weight": 3}], 422, "'weight'"),
    ("POST", F, [event("e"), {**event("f"), "user_id": None}], 422, "[1].user_id"),
    # New items
    ("POST", N, {"item_id": "n"}, 422, "neither"),
    ("POST", N, {"item_id": "i1", "vector": V}, 409, "'i1'"),
    ("POST", N, {"item_id": "n", "vector": V[:-1]}, 409, "one of 7"),
    ("POST", N, {"item_id": "n", "vector": [*V[:-1], "x"]}, 422, "vector[7]"),
    ("POST", N, {"item_id": "n", "vector": [*V[:-1], 1e38]}, 422, "vector[7]"),
    ("POST", N, {"item_id": "n", "features": {}}, 422, "features"),
    ("POST", N, {"item_id": "n", "features": {"smell": [1.0]}}, 422, "'smell'"),
    ("POST", N, {"item_id": "n", "features": {"text": [1.0]}}, 422, "5 numbers"),
    ("POST", N, {"item_id": "n", "features": {"text": [0.0] * 5}}, 422, "only zeros"),
    ("POST", N, {"item_id": "n", "vector": V, "features": {"text": [1.0] * 6}}, 422, "6 numbers"),
    ("POST", N, {"item_id": "n", "vector": V, "fields": {"price": "cheap"}}, 422, "'cheap'"),
    ("POST", N, {"item_id": "n", "vector": V, "fields": {"tags": ["a"]}}, 422, "fields"),
    ("POST", N, {"item_id": "n", "text": "A rucksack"}, 422, "vector"),
    ("POST", N, {"item_id": "n", "image": "bm8gcGljdHVyZQ=="}, 422, "vector"),
    # Paths and methods
    ("GET", "/nowhere", None, 404, "/nowhere"),
    ("GET", "/v1/models/none", None, 404, "'none'"),
    ("POST", "/v1/models/sho/recommend", U, 404, "did you mean 'shop'"),
    ("POST", "/v1/models/shop/recommend/", U, 404, "/recommend/"),
    ("GET", R, None, 405, "POST"),
    ("DELETE", "/v1/feedback", None, 405, "POST"),
    ("PUT", "/v1/models/shop", U, 405, "GET"),
    ("OPTIONS", R, None, 405, "POST"),
    ("POST", "/metrics", U, 405, "GET"),
    ("GET", "/v1/models/shop/items/strange", None, 404, "'strange'"),
    ("GET", "/images/shop/strange", None, 404, "'strange'"),
    ("GET", "/images/shop/../../manifest.json", None, 404, "manifest.json"),
    ("GET", "/images/shop/..%2f..%2fmanifest.json", None, 404, "manifest.json"),
    ("GET", "/images/shop/%2e%2e%2f%2e%2e%2fetc%2fpasswd", None, 404, "passwd"),
    ("GET", "/images/shop//etc/passwd", None, 404, "passwd"),
    ("GET", "/images/shop/i1%00.png", None, 404, "i1"),
    ("GET", "/images/shop/..%5c..%5cmanifest.json", None, 404, "manifest.json"),
    ("GET", "/images/..%2fshop/i1", None, 404, "../shop"),
    # Administration without keys
    ("POST", W, {"model": "shop"}, 403, "--keys"),
    ("GET", "/v1/feedback/export", None, 403, "--keys"),
]


def test_there_are_at_least_sixty() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    BAD,
    ids=[f"{n}-{method} {path}" for n, (method, path, *_) in enumerate(BAD)],
)
def test_a_bad_request(
    common: Asked, method: str, path: str, body: Any, status: int, told: str
) -> None:
    answer = common.ask(method, path, body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"status", "expected", "got", "fix", "request_id"}
    assert error["status"] == status
    assert error["request_id"] == answer.headers["x-request-id"]
    assert all(error[fact] for fact in ("expected", "got", "fix"))
    assert told in " ".join(str(error[fact]) for fact in ("expected", "got", "fix")), answer.text
    assert len(answer.content) < 2000
    assert common.recommend(U)


def test_none_of_them_left_anything_behind(common: Asked) -> None:
    assert list(common.service.feedback.store.rows()) == []
    assert common.service.feedback.store.items() == []
    assert [line for line in common.log() if line["level"] == "error"] == []


def test_a_compressed_body(common: Asked) -> None:
    answer = common.post(R, json.dumps(U), headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


QUERIES = ["since=-1", "since=x", "since=1&since=2", "until=3", "since=", "since=9999999999",
           "since=1.5", "since=%00"]  # fmt: skip


def test_bad_queries(shops: Path, tmp_path: Path) -> None:
    admin = {"Authorization": f"Bearer {new_key(tmp_path / 'keys', 'boss', 'admin')}"}
    artifacts, keys = {"shop": shops / "shop"}, tmp_path / "keys"
    with serving(artifacts, tmp_path / "f.sqlite", keys=keys) as asked:
        for query in QUERIES:
            path = f"/v1/feedback/export?{query}"
            assert asked.get(path, headers=admin).status_code == 422, query
            assert asked.get(path).status_code == 401, "only with a key"


def test_whole_numbers_may_be_written_with_a_point(common: Asked) -> None:
    body = b'{"user_id": "u3", "k": 4.0, "exclude": [7.0]}'
    assert len(common.recommend(body)) == 4


def test_an_inner_error_is_told_without_its_inside(
    common: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret of the house")

    with monkeypatch.context() as patch:
        patch.setattr(common.service.models.get("shop").ranker, "recommend_people", broken)
        for body in (U, {**U, "diversity": 0.5}):
            answer = common.post(R, body)
            assert answer.status_code == 500
            assert "secret" not in answer.text
            line = common.log()[-2]
            assert line["error"] == "ZeroDivisionError: secret of the house"
            assert line["request_id"] == answer.json()["error"]["request_id"]
    assert common.recommend(U)
