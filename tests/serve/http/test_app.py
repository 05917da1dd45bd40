"""What happens around every request: keys, rates, sites, ids, counts, logs, swaps."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Asked, event, serving

from modalign_serve.errors import ConfigError, DataError
from modalign_serve.service.keys import Keys, new_key
from modalign_serve.service.served import Served
from modalign_serve.service.service_settings import ServiceSettings

LIST = "/v1/models/shop/recommend"
U = {"user_id": "u1"}


@pytest.fixture
def words(tmp_path: Path) -> dict[str, str]:
    """Two keys, by role."""
    path = tmp_path / "keys"
    return {role: new_key(path, f"a-{role}", role) for role in ("use", "admin")}


@pytest.fixture
def locked(shops: Path, tmp_path: Path, words: dict[str, str]) -> Iterator[Asked]:
    """A service that asks for keys."""
    artifacts = {"shop": shops / "shop"}
    with serving(artifacts, tmp_path / "f.sqlite", keys=tmp_path / "keys") as found:
        yield found


def bearer(word: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {word}"}


# ------------------------------------------------------------------ keys


def test_a_key_is_kept_as_its_hash_alone(tmp_path: Path, words: dict[str, str]) -> None:
    text = (tmp_path / "keys").read_text()
    for word in words.values():
        assert word not in text
        assert len(word) > 40
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0
    assert words["use"] != words["admin"]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Bearer",
        "Bearer ",
        "Bearer guess",
        "Basic !!!",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Digest x",
        "bearer\tx",
    ],
)
def test_no_key_no_answer(locked: Asked, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = locked.post(LIST, U, headers=headers)
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["www-authenticate"]
    for path in ("/metrics", "/v1/models", "/images/shop/i1", "/v1/models/shop"):
        assert locked.get(path, headers=headers).status_code == 401
    for path in ("/health", "/ready", "/docs", "/openapi.json"):
        assert locked.get(path, headers=headers).status_code == 200


def test_a_key_opens_what_its_role_says(locked: Asked, words: dict[str, str]) -> None:
    assert locked.post(LIST, U, headers=bearer(words["use"])).status_code == 200
    basic = base64.b64encode(f"anyone:{words['use']}".encode()).decode()
    assert locked.post(LIST, U, headers={"Authorization": f"Basic {basic}"}).status_code == 200
    swap = {"model": "shop"}
    refused = locked.post("/v1/admin/swap", swap, headers=bearer(words["use"]))
    assert refused.status_code == 403
    assert "a-use" in refused.json()["error"]["got"]
    assert locked.post("/v1/admin/swap", swap, headers=bearer(words["admin"])).status_code == 200


def test_keys_stand_in_no_log(locked: Asked, words: dict[str, str]) -> None:
    locked.post(LIST, U, headers=bearer(words["use"]))
    locked.post(LIST, U, headers=bearer("a-wrong-word"))
    lines = locked.log()
    assert [line.get("key") for line in lines if line["event"] == "request"] == ["a-use", None]
    told = json.dumps(lines)
    assert words["use"] not in told
    assert "a-wrong-word" not in told


def test_keys_are_read_again(locked: Asked, tmp_path: Path) -> None:
    late = new_key(tmp_path / "keys", "late")
    assert locked.post(LIST, U, headers=bearer(late)).status_code == 401
    locked.service.reload_keys()
    assert locked.post(LIST, U, headers=bearer(late)).status_code == 200
    (tmp_path / "keys").write_text("rubbish\n")
    locked.service.reload_keys()
    assert locked.post(LIST, U, headers=bearer(late)).status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rubbish\n",
        '{"name": "a"}\n',
        '{"name": "a", "role": "king", "sha256": "' + "0" * 64 + '"}\n',
        '{"name": "a", "role": "use", "sha256": "00"}\n',
        "[]\n",
    ],
)
def test_damaged_files_of_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(DataError, match="keys"):
        Keys.load(path)


def test_names_of_keys(tmp_path: Path) -> None:
    new_key(tmp_path / "keys", "a")
    for name in ("a", "", "a b", "x" * 65, "line\nbreak"):
        with pytest.raises(ConfigError):
            new_key(tmp_path / "keys", name)


# ------------------------------------------------------------------ rates


def test_a_caller_who_asks_too_often_is_told_when_to_come_again(
    shops: Path, tmp_path: Path
) -> None:
    with serving({"shop": shops / "shop"}, tmp_path / "f.sqlite", rate=1.0) as asked:
        assert asked.service.limit is not None
        asked.service.limit._clock = lambda: 100.0
        statuses = [asked.post(LIST, U).status_code for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        answer = asked.post(LIST, U)
        assert answer.headers["retry-after"] == "1"
        assert asked.get("/health").status_code == 200
        asked.service.limit._clock = lambda: 101.0
        assert asked.post(LIST, U).status_code == 200


# ------------------------------------------------------------------ other sites


def test_pages_of_other_sites_may_not_call(common: Asked) -> None:
    elsewhere = {"Origin": "https://elsewhere.example"}
    answer = common.post("/v1/feedback", [event("x")], headers=elsewhere)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    own = {"Origin": "http://shop.test"}
    assert common.post(LIST, U, headers=own).status_code == 200
    assert common.ask("OPTIONS", LIST, headers=elsewhere).status_code == 405
    assert list(common.service.feedback.store.rows()) == []


def test_a_site_that_is_named_may_call(shops: Path, tmp_path: Path) -> None:
    site = "https://shop.example"
    with serving({"shop": shops / "shop"}, tmp_path / "f.sqlite", cors=(site,)) as asked:
        before = asked.ask("OPTIONS", LIST, headers={"Origin": site})
        assert before.status_code == 204
        assert before.headers["access-control-allow-methods"] == "POST"
        answer = asked.post(LIST, U, headers={"Origin": site})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == site
        other = asked.post(LIST, U, headers={"Origin": site + ".evil.example"})
        assert other.status_code == 403
        assert "access-control-allow-origin" not in other.headers


# ------------------------------------------------------------------ ids, heads, logs


def test_a_request_keeps_its_id(common: Asked) -> None:
    answer = common.post(LIST, U, headers={"X-Request-Id": "from-the-shop-7"})
    assert answer.headers["x-request-id"] == "from-the-shop-7"
    made = common.post(LIST, U, headers={"X-Request-Id": "not fit {for} logs"})
    assert made.headers["x-request-id"] != "not fit {for} logs"
    assert common.post(LIST, U).headers["x-request-id"] != made.headers["x-request-id"]


def test_head_is_get_without_the_body(common: Asked) -> None:
    get, head = common.get("/v1/models"), common.ask("HEAD", "/v1/models")
    assert head.status_code == 200
    assert head.headers["content-length"] == get.headers["content-length"]


def test_a_line_for_each_request(asked: Asked) -> None:
    asked.post(LIST, U)
    asked.get("/nowhere")
    lines = [line for line in asked.log() if line["event"] == "request"]
    assert [(line["path"], line["status"]) for line in lines] == [(LIST, 200), ("/nowhere", 404)]
    assert set(lines[0]) == {
        "time", "level", "event", "method", "path", "status", "ms", "client", "key", "request_id"
    }  # fmt: skip


def test_a_service_that_stops_says_so(asked: Asked) -> None:
    assert asked.get("/ready").status_code == 200
    asked.service.stopping = True
    assert asked.get("/ready").status_code == 503
    assert asked.get("/health").json() == {"status": "stopping"}
    answer = asked.post(LIST, U)
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


# ------------------------------------------------------------------ swap


@pytest.fixture
def own(shops: Path, tmp_path: Path) -> Path:
    """Copies of the artifacts to exchange and to break."""
    shutil.copytree(shops, tmp_path / "own")
    return tmp_path / "own"


def test_a_swap_serves_the_other_artifact_with_all_feedback(
    own: Path, tmp_path: Path, words: dict[str, str]
) -> None:
    admin = bearer(words["admin"])
    keys = tmp_path / "keys"
    with serving({"shop": own / "shop"}, tmp_path / "f.sqlite", keys=keys) as asked:

        def listed(user: str) -> list[str]:
            items = asked.post(LIST, {"user_id": user}, headers=admin).json()["items"]
            return [one["item_id"] for one in items]

        asked.post("/v1/feedback", [event("1", "neu", "i3"), event("2", "u3", "i9")], headers=admin)
        asked.post(
            "/v1/models/shop/items", {"item_id": "n", "features": {"text": [1, 0, 0, 0, 0]}},
            headers=admin,
        )  # fmt: skip
        before = {user: listed(user) for user in ("neu", "u3", "u5")}
        answer = asked.post(
            "/v1/admin/swap", {"model": "shop", "artifact": "shop-2"}, headers=admin
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] != answer.json()["previous"]
        after = {user: listed(user) for user in ("neu", "u3", "u5")}
        assert all(before[user] != after[user] for user in before)
        assert asked.get("/v1/models/shop/items/n", headers=admin).status_code == 200
        metrics = asked.get("/metrics", headers=admin).text
        assert 'modalign_swaps_total{model="shop",result="done"} 1.0' in metrics
        assert metrics.count("modalign_model_info{") == 1
    with serving({"shop": own / "shop-2"}, tmp_path / "f.sqlite") as asked:
        for user, items in after.items():
            assert asked.recommend({"user_id": user}) == items


@pytest.mark.parametrize(
    ("artifact", "status"),
    [("none", 404), ("../own/shop-2", 422), ("/etc", 422), (".", 422), ("..", 422), ("", 422),
     ("shop-2/..", 422), ("link", 404), ("broken", 422), ("x" * 128, 404), ("x" * 129, 422),
     ("shop-2\n", 422)],
)  # fmt: skip
def test_a_swap_that_cannot_be_leaves_the_old_one(
    own: Path, tmp_path: Path, words: dict[str, str], artifact: str, status: int
) -> None:
    (own / "link").symlink_to(shutil.copytree(own / "shop-2", tmp_path / "away"))
    shutil.copytree(own / "shop-2", own / "broken")
    with (own / "broken" / "items.npy").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff\xff")
    admin, keys = bearer(words["admin"]), tmp_path / "keys"
    with serving({"shop": own / "shop"}, tmp_path / "f.sqlite", keys=keys) as asked:
        version = asked.service.models.get("shop").version
        body = {"model": "shop", "artifact": artifact}
        answer = asked.post("/v1/admin/swap", body, headers=admin)
        assert answer.status_code == status, answer.text
        assert asked.post(LIST, U, headers=admin).json()["version"] == version
        unknown = asked.post("/v1/admin/swap", {"model": "none"}, headers=admin)
        assert unknown.status_code == 404


def test_no_request_fails_and_no_event_is_missed_during_swaps(
    own: Path, tmp_path: Path, words: dict[str, str]
) -> None:
    admin, keys = bearer(words["admin"]), tmp_path / "keys"
    with serving({"shop": own / "shop"}, tmp_path / "f.sqlite", keys=keys) as asked:
        over = threading.Event()

        def load(worker: int) -> tuple[set[int], set[str]]:
            statuses, versions = set(), set()
            turn = 0
            while not over.is_set():
                user = f"w{worker}-{turn % 5}"
                told = [event(f"{worker}-{turn}", user, f"i{turn % 40}")]
                statuses.add(asked.post("/v1/feedback", told, headers=admin).status_code)
                answer = asked.post(LIST, {"user_id": user, "k": 40}, headers=admin)
                statuses.add(answer.status_code)
                versions.add(answer.json()["version"])
                assert f"i{turn % 40}" not in [i["item_id"] for i in answer.json()["items"]]
                turn += 1
            return statuses, versions

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            loads = [pool.submit(load, worker) for worker in range(3)]
            for turn in range(6):
                body = {"model": "shop", "artifact": ("shop-2", "shop")[turn % 2]}
                swapped = asked.post("/v1/admin/swap", body, headers=admin)
                assert swapped.status_code == 200
            over.set()
            found = [one.result(20) for one in loads]
        assert {status for statuses, _ in found for status in statuses} == {200}
        assert len({version for _, versions in found for version in versions}) == 2


def test_what_comes_while_an_artifact_is_read_is_not_missed(
    own: Path, tmp_path: Path, words: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, keys = bearer(words["admin"]), tmp_path / "keys"
    with serving({"shop": own / "shop"}, tmp_path / "f.sqlite", keys=keys) as asked:
        opened, read, go = asked.service._opened, threading.Event(), threading.Event()

        def slowly(name: str, folder: Path) -> Served:
            found = opened(name, folder)
            read.set()
            assert go.wait(20)
            return found

        monkeypatch.setattr(asked.service, "_opened", slowly)
        swap = {"model": "shop", "artifact": "shop-2"}
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            swapped = pool.submit(asked.post, "/v1/admin/swap", swap, headers=admin)
            assert read.wait(20)
            item = {"item_id": "late", "features": {"text": [1, 0, 0, 0, 0]}}
            assert asked.post("/v1/models/shop/items", item, headers=admin).status_code == 200
            told = [event("1", "u3", "i7"), event("2", "neu", "i9")]
            assert asked.post("/v1/feedback", told, headers=admin).status_code == 200
            second = asked.post("/v1/admin/swap", swap, headers=admin)
            assert second.status_code == 409
            go.set()
            assert swapped.result(20).status_code == 200
        for user, seen in (("u3", "i7"), ("neu", "i9")):
            answer = asked.post(LIST, {"user_id": user, "k": 41}, headers=admin)
            items = [one["item_id"] for one in answer.json()["items"]]
            assert seen not in items
            assert "late" in items


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"artifacts": {}},
        {"artifacts": {"a/b": Path()}},
        {"port": 70_000},
        {"rate": -1.0},
        {"max_body": 10},
        {"timeout": 0.0},
        {"drain": -1.0},
        {"log": "loud"},
        {"cors": ("*",)},
        {"cors": ("shop.example",)},
        {"split": {"other": 1.0}},
        {"split": {"shop": 0.5}},
        {"split": {"shop": 2.0}},
    ],
    ids=lambda wrong: "-".join(map(str, wrong)),
)
def test_settings_out_of_bounds(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ServiceSettings(**{"artifacts": {"shop": Path("shop")}, **wrong})  # type: ignore[arg-type]
