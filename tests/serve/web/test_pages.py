"""Every page: what it shows, that it is what the API gives, that it is safe and reachable."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import numpy as np
import pytest
from looking import NASTY, SITE, look, read
from served import Asked, event, serving

from modalign_serve.artifact.artifact import Csr
from modalign_serve.artifact.read import read_artifact
from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact
from modalign_serve.service import requests

PAGES = {
    "recommend": "What would you like?",
    "recommend?user=u3": "Recommended for u3",
    "recommend?liked=i1&liked=i5": "Recommended for you",
    "compare": "Two models side by side",
    "compare?user=u3&other=other": "of 12 items are in both lists",
    "search": "Search",
    "search?q=item+1": "items found",
    "item?item=i5": "Users it reaches",
    "item?item=i5&user=u3": "Why it would be recommended to u3",
    "reach?item=i5": "of 30 users have it in their first 20 items",
    "new": "A new item",
    "card": "On the test split",
    "key": "Key required",
}


def items_of(asked: Asked, address: str, kind: str = "gallery") -> list[str]:
    """Ids of the items of a list on a page, in its order."""
    source = asked.get(f"/page/{address}").text
    part = source[source.index(f'class="{kind}') :]
    found = re.findall(r'<h2><a href="item\?([^"]*)"', part[: part.index("</ol>")])
    return [parse_qs(one.replace("&amp;", "&"))["item"][0] for one in found]


@pytest.mark.parametrize("address", PAGES)
def test_a_page_says_what_it_is_and_loads_nothing_from_elsewhere(web: Asked, address: str) -> None:
    answer = web.get(f"/page/{address}")
    page = read(answer)
    assert PAGES[address] in page.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not [
        held for _, held in page.tags if "style" in held or any(k[:2] == "on" for k in held)
    ]
    assert all("src" in held for held in page.all("script"))
    assert not page.all("style")
    assert not [one for one in page.addresses() if "//" in one or one.startswith("data:")]
    assert len(page.all("main")) == len(page.all("h1")) == 1
    ids = [held["id"] for _, held in page.tags if "id" in held]
    assert len(ids) == len(set(ids))


def test_the_first_address_leads_to_the_first_page(web: Asked) -> None:
    answer = web.get("/")
    assert answer.status_code == 303
    assert answer.headers["location"] == "page/recommend"


@pytest.mark.slow
def test_every_link_of_every_page_leads_somewhere(web: Asked) -> None:
    waiting, known = [f"/page/{one}" for one in PAGES], set(PAGES)
    for address in waiting:
        answer = web.get(address)
        assert answer.status_code in (200, 303), (address, answer.status_code)
        if not answer.headers.get("content-type", "").startswith("text/html"):
            continue
        for one in read(answer).addresses():
            target = urljoin(address, one).partition("#")[0]
            shape = (urlsplit(target).path, *sorted(parse_qs(urlsplit(target).query)))
            if shape not in known and not target.endswith("/forget"):
                known.add(shape)
                waiting.append(target)
    assert len(waiting) > 30


def test_titles_with_markup_are_text(web: Asked) -> None:
    for address in ("item?item=i3", "search?q=script", f"search?q={NASTY}", "reach?item=i3",
                    "recommend?liked=i3", "compare?liked=i3"):  # fmt: skip
        source = web.get(f"/page/{address}").text
        assert "<script>alert" not in source
        assert "&lt;script&gt;alert" in source


@pytest.mark.parametrize(
    "address",
    ["recommend?user=", "recommend?model=", "item?item=", "recommend?liked=i1&q=", "search?q=",
     "new?like=", "item?item=i1&only=", "compare?user=", "recommend?liked="],
)  # fmt: skip
def test_what_an_address_says_is_text(web: Asked, address: str) -> None:
    source = web.get(f'/page/{address}%22%3E%3Cimg src=x onerror=alert(1)%3E"').text
    assert "<img src=x" not in source
    assert 'value=""><' not in source


def test_a_users_list_is_the_apis(web: Asked) -> None:
    assert items_of(web, "recommend?user=u3") == web.recommend({"user_id": "u3", "k": 12})
    only = {"user_id": "u3", "k": 6, "where": {"category": "b"}, "diversity": 0.6}
    shown = items_of(web, "recommend?user=u3&k=6&only=b&mix=much")
    assert shown == web.recommend(only)


def test_a_tastes_list_is_the_apis_by_either_model(web: Asked) -> None:
    for model in ("shop", "other"):
        wanted = web.recommend({"items": ["i1", "i5"], "k": 12}, model)
        assert items_of(web, f"recommend?model={model}&liked=i1&liked=i5") == wanted


def test_an_unknown_item_in_a_taste_is_left_out(web: Asked) -> None:
    assert items_of(web, "recommend?liked=i1&liked=nope") == web.recommend(
        {"items": ["i1"], "k": 12}
    )
    assert "What would you like?" in look(web, "recommend?liked=nope").text


def test_feedback_counts_at_once(web_shops: Path, tmp_path: Path) -> None:
    with serving({"shop": web_shops / "shop"}, tmp_path / "f.sqlite") as asked:
        first = items_of(asked, "recommend?user=u3")[0]
        asked.post("/v1/feedback", [event("1", "u3", first), event("2", "new-one", "i5")])
        assert first not in items_of(asked, "recommend?user=u3")
        page = look(asked, "recommend?user=u3")
        assert "updated with later feedback" in page.text
        assert "Recommended for new-one" in look(asked, "recommend?user=new-one").text


def test_a_user_without_history_gets_popular_items_without_reasons(web: Asked) -> None:
    page = look(web, "recommend?user=u29")
    assert "these are the most popular items" in page.text
    assert not page.all("ul", class_="parts")


def test_reasons_are_the_rankers(web: Asked) -> None:
    ranker = web.service.models.get("shop").ranker
    first = web.recommend({"user_id": "u3", "k": 1})[0]
    why = ranker.explain(first, user="u3", n=3)
    source = web.get("/page/recommend?user=u3").text
    card = source.split('<ol class="gallery">')[1].split('<li class="card">')[1]
    named = [(n, [f"{cosine:.2f}" for _, cosine in near]) for n, near in why.nearest.items()]
    for name, cosines in named:
        words = {"image": "Looks like", "text": "Reads like"}[name]
        part = card[card.index(f'aria-label="{words}"') :]
        shown = re.findall(r'title="[^"]*similarity (-?[\d.]+)"', part[: part.index("</ul>")])
        assert shown == cosines
    values = [float(one) for one in re.findall(r"of the score, (-?[\d.]+)", card)]
    assert values == [float(f"{value:.3f}") for value in why.parts.values()]
    assert why.score is not None
    assert abs(sum(values) - why.score) < 0.002
    assert f"{why.score:.3f}" in card


def test_compare_marks_what_is_in_both(web: Asked) -> None:
    lists = [web.recommend({"user_id": "u3", "k": 12}, model) for model in ("shop", "other")]
    source = web.get("/page/compare?model=shop&other=other&user=u3").text
    sides = source.split('<ol class="ranks">')[1:]
    common = set(lists[0]) & set(lists[1])
    assert 0 < len(common) < 12
    assert f"<b>{len(common)}</b> of 12" in source
    for side, mine, theirs in zip(sides, lists, lists[::-1], strict=True):
        rows = re.split(r'<li class="(?=(?:common)?">)', side)[1:]
        items = [re.findall(r"[?&;]item=(i\d+)", row)[0] for row in rows]
        assert items == mine
        for row, one in zip(rows, items, strict=True):
            assert row.startswith("common") == (one in common)
            if one in common:
                assert f"number {theirs.index(one) + 1} there" in row


def test_compare_of_users_that_one_or_no_model_knows(web: Asked) -> None:
    page = look(web, "compare?user=nobody", 404)
    assert "shop has no user 'nobody'." in page.text
    assert "other has no user 'nobody'." in page.text


def test_compare_with_one_model_says_how_to_serve_two(web_shops: Path, tmp_path: Path) -> None:
    with serving({"shop": web_shops / "shop"}, tmp_path / "f.sqlite") as asked:
        assert "modalign-serve run a=FOLDER b=FOLDER" in look(asked, "compare?user=u3").text


def test_somebody_is_a_user(web: Asked) -> None:
    answer = web.get("/page/random?model=other")
    assert answer.status_code == 303
    assert re.fullmatch(r"recommend\?model=other&user=u\d+", answer.headers["location"])


def test_pictures_are_the_artifacts_and_drawn_where_there_is_none(
    web: Asked, web_shops: Path
) -> None:
    page = look(web, "item?item=i5")
    address = page.all("img", class_="picture")[0]["src"]
    answer = web.get(f"/page/{address}")
    pictures = read_artifact(web_shops / "shop").pictures
    assert pictures is not None
    assert answer.content == pictures.read("images/5.png")
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]
    missing = look(web, "item?item=i8")
    assert missing.all("span", class_="blank")
    assert "I8" in missing.text
    look(web, "picture?item=i8", 404)
    look(web, "picture?item=../../manifest.json", 404)


def test_a_page_that_takes_too_long_is_given_up(
    web: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "RANK_SECONDS", -1.0)
    answer = web.get("/page/reach?item=i5")
    assert answer.status_code == 503
    assert "too long" in answer.text
    assert "retry-after" in answer.headers


def test_reach_is_the_rankers(web: Asked) -> None:
    reach = web.service.models.get("shop").ranker.reach("i5", 20)
    page = look(web, "reach?item=i5")
    assert f"{len(reach.users)} of 30 users" in page.text
    for user, place in reach.users[:5]:
        assert f"{user} has it at place {place}" in page.text
    lanes = web.get("/page/reach?item=i5").text.split('<section class="panel moved"')[1:]
    for lane, (user, place) in zip(lanes, reach.users[:5], strict=True):
        whole = web.recommend({"user_id": user, "k": 25})
        bare = [one for one in whole if one != "i5"]
        for words, wanted in (("without", bare), ("with", whole)):
            part = lane.split(f'aria-label="The list {words} it"')[1].split("</ul>")[0]
            shown = re.findall(r'href="item\?[^"]*item=(i\d+)"', part)
            assert shown == wanted[max(0, place - 3) :][:5]


def test_the_card_shows_what_was_measured(web: Asked) -> None:
    page = look(web, "card")
    for words in ("0.1234", "0.2100", "recall", "from stub", "drawn", "Share of the traffic"):
        assert words in page.text
    assert page.text.index("0.1234") < page.text.index("0.2100")


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("recommend?user=nobody", 404, "shop has no user 'nobody'."),
        ("recommend?model=shup", 404, "did you mean 'shop'?"),
        ("item?item=i4x", 404, "'i4x'"),
        ("reach?item=", 404, "Not found"),
        ("nowhere", 404, "Not found"),
        ("nowhere/else", 404, "Not found"),
        ("recommend?" + "a=b&" * 300, 422, "Invalid request"),
    ],
)
def test_what_is_wrong_is_told_on_a_page(web: Asked, address: str, status: int, words: str) -> None:
    page = look(web, address, status)
    assert words in page.text
    assert "recommend" in " ".join(page.addresses())


def test_failures_of_the_application_are_pages_too(adding: Asked) -> None:
    read(adding.ask("DELETE", "/page/new"), 405)
    large = {"content-type": "application/x-www-form-urlencoded", **SITE}
    read(adding.post("/page/new", b"a" * 30_000, headers=large), 413)
    assert adding.get("/v1/nowhere").headers["content-type"] == "application/json"


def test_an_error_inside_tells_nothing(web: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("modalign_serve.web.item_pages.ItemPages._described", broken)
    page = look(web, "item?item=i5", 500)
    assert "secret" not in page.text
    assert "Something went wrong" in page.text


def test_the_api_tells_nothing_of_the_page(web: Asked) -> None:
    assert not [path for path in web.get("/openapi.json").json()["paths"] if "page" in path]


def test_a_service_without_the_page(web_shops: Path, tmp_path: Path) -> None:
    with serving({"shop": web_shops / "shop"}, tmp_path / "f.sqlite", page=False) as asked:
        for path in ("/", "/page/recommend"):
            assert asked.get(path).status_code == 404


def without_vectors(folder: Path) -> Path:
    """Items and their neighbours alone: item i gives to i + 1 and half as much to i + 2."""
    made = small_artifact(20, 30, 4, mean_seen=3)
    indices = (np.arange(30)[:, None] + [1, 2]) % 30
    values = np.where(np.argsort(np.argsort(indices, axis=1), axis=1) >= 0, [1.0, 0.5], 0)
    order = np.argsort(indices, axis=1)
    given = Csr(
        np.arange(31) * 2,
        np.take_along_axis(indices, order, 1).ravel().astype(np.int32),
        np.take_along_axis(values, order, 1).ravel().astype(np.float32),
    )
    manifest = replace(made.manifest, kind="neighbours", model="itemknn", width=0, fold_in={})
    bare = replace(
        made, manifest=manifest, users=None, items=None, features={}, fold_in={}, neighbours=given
    )
    return write_artifact(folder, bare)


def test_a_model_without_vectors_shows_what_it_has(tmp_path: Path) -> None:
    folder = without_vectors(tmp_path / "knn")
    with serving({"knn": folder}, tmp_path / "f.sqlite") as asked:
        page = look(asked, "recommend?liked=i3&mix=much")
        assert items_of(asked, "recommend?liked=i3&mix=much")[:2] == ["i4", "i5"]
        assert "Often chosen with" in page.text
        source = asked.get("/page/recommend?liked=i3&liked=i4").text
        first = source.split('<li class="card">')[1]
        assert re.findall(r"Item (\d+), adds ([\d.]+)\"", first) == [("4", "1.000"), ("3", "0.500")]
        assert not page.all("select", id="mix")
        assert "cannot rank an item without interactions" in look(asked, "new").text
        assert "Similar items" not in look(asked, "item?item=i3").text
        assert "Users that" in look(asked, "reach?item=i3").text


def test_a_model_without_a_way_from_items_asks_for_a_user(tmp_path: Path) -> None:
    made = small_artifact(20, 30, 4, mean_seen=3)
    bare = replace(made, manifest=replace(made.manifest, fold_in={}), fold_in={})
    folder = write_artifact(tmp_path / "bare", bare)
    with serving({"bare": folder}, tmp_path / "f.sqlite") as asked:
        page = look(asked, "recommend?liked=i3", 409)
        assert "cannot recommend from items" in page.text
        assert "Items you like" not in page.text
        assert "Recommended for u3" in look(asked, "recommend?user=u3").text
        look(asked, "item?item=i3&liked=i4")
