"""New items by the form: what it sends on, what it refuses and keeps, and where it leads."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from looking import NASTY, SITE, look, read, send, send_files
from PIL import Image
from served import WIDTH, Asked, serving

VALUES = {"model": "shop", "id": "new-1", "field.title": "A rucksack", "field.category": "a"}


def picture() -> bytes:
    held = BytesIO()
    Image.new("RGB", (8, 8), "red").save(held, "png")
    return held.getvalue()


def features(asked: Asked, modality: str) -> np.ndarray:
    """The reduced features of the newest item."""
    catalogue = asked.service.models.get("shop").ranker.catalogue
    return catalogue.features(modality, np.array([len(catalogue) - 1]))[0]


def test_an_item_with_a_picture_is_ranked_and_its_reach_shown(adding: Asked) -> None:
    assert look(adding, "new").all("input", type="file", name="picture")
    answer = send_files(adding, "new", VALUES, {"picture": picture()})
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == "reach?model=shop&item=new-1&added=1"
    page = look(adding, answer.headers["location"])
    assert "A rucksack is ranked for all users from now on." in page.text
    assert "New: no user has chosen it yet" in look(adding, "item?item=new-1").text
    assert "A rucksack" in look(adding, "search?q=RUCK").text
    assert look(adding, "new").all("input", id="id")[0]["value"] == "new-2"
    # "A rucksack. a" has 13 letters, which the stand-in for an encoder gives as a feature.
    known = np.array([13.0, 1.0])
    np.testing.assert_allclose(features(adding, "text"), known / np.linalg.norm(known), rtol=1e-5)


def test_an_item_like_others_takes_over_their_features(web_shops: Path, tmp_path: Path) -> None:
    with serving({"shop": web_shops / "shop"}, tmp_path / "f.sqlite") as asked:
        page = look(asked, "new?like=i5")
        assert not page.all("input", type="file")
        assert [one["value"] for one in page.all("input", list_="known")] == ["i5", "i5"]
        like = {**VALUES, "like.image": "i5", "like.text": "i6"}
        assert send(asked, "new", like).status_code == 303
        ranker = asked.service.models.get("shop").ranker
        for modality, row in (("image", 5), ("text", 6)):
            known = ranker.artifact.features[modality][row]
            np.testing.assert_allclose(features(asked, modality), known, atol=1e-5)


def test_what_is_named_goes_before_what_is_encoded(adding: Asked) -> None:
    assert send(adding, "new", {**VALUES, "like.text": "i6"}).status_code == 303
    known = adding.service.models.get("shop").ranker.artifact.features["text"][6]
    np.testing.assert_allclose(features(adding, "text"), known, atol=1e-5)


def test_an_item_by_its_vector_reaches_whom_the_product_says(adding: Asked) -> None:
    ranker = adding.service.models.get("shop").ranker
    vector = (10 * ranker.artifact.users[3]).tolist()
    values = {**VALUES, "field.title": "", "numbers": f'{{"vector": {vector}}}'}
    answer = send(adding, "new", values)
    assert answer.status_code == 303, answer.text
    assert adding.recommend({"user_id": "u3", "k": 1}) == ["new-1"]
    assert "u3 has it at place 1" in look(adding, answer.headers["location"]).text


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"id": ""}, 422, "It was not added"),
        ({"id": "i5"}, 409, "which it was trained on"),
        ({"field.price": "cheap"}, 422, "a number as price"),
        ({"like.text": "nope"}, 422, "nope"),
        ({"like.text": "i7"}, 422, "which has none"),
        ({"numbers": "[1"}, 422, "correct the JSON"),
        ({"numbers": '{"vectors": []}'}, 422, "correct the JSON"),
        ({"numbers": '{"vector": [1, 2]}'}, 409, "one of 2"),
        ({"field.title": "bad", "field.category": ""}, 422, "a readable text"),
        ({"field.title": "", "field.category": ""}, 422, "neither"),
    ],
)
def test_what_does_not_fit_is_told_and_the_rest_kept(
    adding: Asked, changes: dict[str, str], status: int, words: str
) -> None:
    page = read(send(adding, "new", {**VALUES, **changes, "like.image": ""}), status)
    assert words in page.text
    assert page.all("div", role="alert")
    kept = {**VALUES, **changes}
    assert page.all("input", name="field.title")[0]["value"] == kept["field.title"]
    assert len(adding.service.models.get("shop").ranker.catalogue) == 40


def test_a_broken_picture_is_told(adding: Asked) -> None:
    page = read(send_files(adding, "new", VALUES, {"picture": b"no picture"}), 422)
    assert "It was not added" in page.text


def test_what_the_form_takes_is_text(adding: Asked) -> None:
    answer = send(adding, "new", {**VALUES, "id": NASTY, "field.title": NASTY})
    source = adding.get(f"/page/{answer.headers['location']}").text
    assert "<script>alert" not in source
    assert "&lt;script&gt;alert" in source


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.test", "sec-fetch-site": "cross-site"},
        {"origin": "http://evil.test", "sec-fetch-site": "same-origin"},
        {"origin": "null"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {},
    ],
)
def test_forms_of_other_sites_change_nothing(adding: Asked, headers: dict[str, str]) -> None:
    told = {"content-type": "application/x-www-form-urlencoded", **headers}
    read(adding.post("/page/new", "id=new-1&like.text=i5", headers=told), 403)
    assert len(adding.service.models.get("shop").ranker.catalogue) == 40


def test_bodies_that_no_form_sends(adding: Asked) -> None:
    for kind, body, status in (
        ("application/json", "{}", 415),
        ("multipart/form-data", "", 415),
        ("multipart/form-data; boundary=x", "--x\r\nrubbish\r\n--x--", 400),
        ("multipart/form-data; boundary=x", "--x\r\n" * 300 + "--x--", 422),
        ("application/x-www-form-urlencoded", "&".join(f"a{n}=1" for n in range(300)), 422),
    ):
        read(adding.post("/page/new", body, headers={"content-type": kind, **SITE}), status)


def test_width_of_the_vector_is_told(adding: Asked) -> None:
    assert f"{WIDTH} numbers" in look(adding, "new").text
