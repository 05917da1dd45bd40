"""Keys by a form: what opens, what is remembered, and what is sent where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from looking import look, read, send
from served import Asked, serving

from modalign_serve.service.keys import Key, Keys, new_key
from modalign_serve.web.sessions import MAX_SESSIONS, SECONDS, Sessions, cookie, same_site


@pytest.fixture
def word(tmp_path: Path) -> str:
    return new_key(tmp_path / "keys", "till")


@pytest.fixture
def locked(web_shops: Path, tmp_path: Path, word: str) -> Iterator[Asked]:
    """A service that asks for keys."""
    shop = {"shop": web_shops / "shop"}
    with serving(shop, tmp_path / "f.sqlite", keys=tmp_path / "keys") as found:
        yield found


def session(answer_cookie: str) -> dict[str, str]:
    """The cookie of an answer, to send along."""
    return {"cookie": answer_cookie.partition(";")[0]}


def test_without_a_key_there_is_a_form_that_leads_back(locked: Asked, word: str) -> None:
    for path in ("recommend", "card", "item?item=i5", "picture?item=i5", "new"):
        answer = locked.get(f"/page/{path}")
        page = read(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Key required" in page.text
        assert "Item" not in page.text
        assert page.all("input", name="then")[0]["value"] == path
        opened = send(locked, "key", {"key": word, "then": path})
        assert opened.status_code == 303
        assert opened.headers["location"] == path


def test_a_key_opens_until_it_is_forgotten(locked: Asked, word: str) -> None:
    answer = send(locked, "key", {"key": f" {word} ", "then": "card"})
    told = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(told.split("; "))
    assert word not in told
    assert "On the test split" in look(locked, "card", headers=session(told)).text
    assert look(locked, "card", headers={"authorization": f"Bearer {word}"})
    ended = send(locked, "forget", {}, **session(told))
    assert ended.status_code == 303
    assert "Max-Age=0" in ended.headers["set-cookie"]
    look(locked, "card", 401, headers=session(told))


def test_a_wrong_key_opens_nothing(locked: Asked) -> None:
    answer = send(locked, "key", {"key": "ma_wrong", "then": "card"})
    assert "This key is unknown." in read(answer, 401).text
    assert "set-cookie" not in answer.headers
    for rubbish in ("modalign-session=x", "modalign-session", "=;=\x01", "a=b"):
        look(locked, "card", 401, headers={"cookie": rubbish})


def test_a_key_that_is_taken_away_opens_nothing(locked: Asked, word: str, tmp_path: Path) -> None:
    told = session(send(locked, "key", {"key": word}).headers["set-cookie"])
    look(locked, "card", headers=told)
    new_key(tmp_path / "other", "other")
    (tmp_path / "other").replace(tmp_path / "keys")
    locked.service.reload_keys()
    look(locked, "card", 401, headers=told)


def test_a_session_opens_the_page_alone(locked: Asked, word: str) -> None:
    told = session(send(locked, "key", {"key": word}).headers["set-cookie"])
    assert locked.get("/v1/models", headers=told).status_code == 401


@pytest.mark.parametrize(
    "then",
    ["", "//evil.test", "http://evil.test", "/x", "\\evil", "..", "a:b", "card\nset-cookie: x",
     "card?a=b\r\nx: y", "Card?é"],
)  # fmt: skip
def test_the_form_leads_to_pages_of_this_site_alone(locked: Asked, word: str, then: str) -> None:
    answer = send(locked, "key", {"key": word, "then": then})
    assert answer.headers["location"] == "recommend"


def test_the_form_for_keys_is_this_sites(locked: Asked, word: str) -> None:
    other = {"origin": "http://evil.test", "sec-fetch-site": "cross-site"}
    for page in ("key", "forget"):
        assert send(locked, page, {"key": word}, **other).status_code == 403


def test_a_service_without_keys_needs_no_form(web: Asked) -> None:
    assert send(web, "key", {"key": "x", "then": "card"}).headers["location"] == "card"


def test_no_log_holds_a_key_or_a_session(locked: Asked, word: str) -> None:
    told = send(locked, "key", {"key": word}).headers["set-cookie"]
    look(locked, "card", headers=session(told))
    found = re.search("modalign-session=([^;]+)", told)
    assert found
    lines = str(locked.log())
    assert word not in lines
    assert found.group(1) not in lines


def test_sessions_end_by_time_and_by_number() -> None:
    now = [0.0]
    key = Key("till", "use", "00")
    keys, held = Keys((key,)), Sessions(lambda: now[0])
    words = [held.start(key) for _ in range(MAX_SESSIONS + 1)]
    asked = [[(b"cookie", f"modalign-session={one}".encode())] for one in (words[0], words[-1])]
    assert [held.key(one, keys) for one in asked] == [None, key]
    now[0] = SECONDS
    assert held.key(asked[1], keys) is None


def test_a_session_over_tls_goes_back_over_tls_alone() -> None:
    assert b"Secure" in cookie("x", [(b"origin", b"https://shop.test")])
    assert b"Secure" not in cookie("x", [(b"origin", b"http://shop.test")])


def test_same_site_behind_a_port() -> None:
    host = (b"host", b"shop.test:8080")
    assert same_site([host, (b"origin", b"http://shop.test:8080")])
    assert not same_site([host, (b"origin", b"http://shop.test")])
