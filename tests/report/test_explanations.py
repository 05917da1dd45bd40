"""Explanations with names and pictures: documents against the model, and the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from modalign.core.explain import plan_entropy
from modalign.core.modality import Modality
from modalign.data.interactions import Interactions
from modalign.errors import ConfigError, DataError
from modalign.experiments.fit import fit
from modalign.experiments.fitted import FittedModel
from modalign.report.explanations import explain_users, without_rows, write_page
from modalign.testing.toy import toy_dataset

OPTIONS = {
    "embedding_size": 4,
    "hidden_size": 6,
    "n_factors": 2,
    "n_content_factors": 3,
    "codebook_size": 6,
    "epochs": 1,
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> FittedModel:
    """BANDVAE on the toy, its texts named words, its first item with a picture."""
    toy = toy_dataset()
    folder = tmp_path_factory.mktemp("pictures")
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    words = np.zeros((toy.n_items, 8), np.float32)
    words[np.arange(toy.n_items), np.arange(toy.n_items) % 8] = 1
    named = Modality("text", words, np.ones(toy.n_items, bool),
                     provenance={"words": [f"word{n}" for n in range(8)], "bag": True})  # fmt: skip
    table = toy.item_table.with_columns(
        title="<b>title</b> " + toy.items.series,
        image=pl.Series([str(folder / "a.png")] + [None] * (toy.n_items - 1)),
    )
    return fit(replace(toy, item_table=table).with_modality(named), "bandvae", **OPTIONS)


def test_document_names_what_the_model_says(fitted: FittedModel) -> None:
    document = explain_users(fitted, ["u3", "u5"], n_items=4, n_words=3)
    assert [person["user"] for person in document["users"]] == ["u3", "u5"]
    history = fitted.dataset.view().rows().history(torch.tensor([3, 5]))
    told = fitted.model.eval().explain(history, 4, 3)
    person = document["users"][1]
    got = [[item["item_id"] for item in factor["items"]] for factor in person["factors"]]
    assert got == [fitted.dataset.items.ids(row.numpy()) for row in told.ratings.index[1]]
    image, text = person["content"]
    (at,) = [i for i, one in enumerate(told.content) if one.modality == "text"]
    words = [[word["word"] for word in factor["words"]] for factor in text["factors"]]
    assert words == [[f"word{c}" for c in row] for row in told.content[at].tops.index[1].tolist()]
    assert "example" in image["factors"][0]["words"][0]
    assert text["plan"] == told.content[at].plan[1].tolist()
    assert text["entropy_bits"] == pytest.approx(float(plan_entropy(told.content[at].plan[1:])))
    had = {one["item_id"] for one in person["liked"]}
    for item in person["factors"][0]["items"]:
        assert item["liked"] == (item["item_id"] in had)
    assert set(person["factors"][0]["gates"]) == {"image", "text"}


def test_averages_are_over_users_with_a_history(fitted: FittedModel) -> None:
    average = explain_users(fitted, ["u0"])["average"]
    assert average["users"] == 59  # the last of the toy has nothing
    history = fitted.dataset.view().rows().history(torch.arange(59))
    plans = {one.modality: one.plan for one in fitted.model.eval().explain(history).content}
    for one in average["modalities"]:
        expected = float(plan_entropy(plans[one["modality"]]).mean())
        assert one["entropy_bits"] == pytest.approx(expected, abs=1e-5)


def test_new_users_are_explained_by_what_is_known_of_them(fitted: FittedModel) -> None:
    dataset = fitted.dataset
    known = Interactions(np.array([59, 59]), np.array([1, 2]))
    told = explain_users(replace(fitted, dataset=replace(dataset, test_history=known)), ["u59"])
    assert len(told["users"][0]["liked"]) == 2


def test_who_can_not_be_explained(fitted: FittedModel) -> None:
    with pytest.raises(DataError, match="u59"):
        explain_users(fitted, ["u0", "u59"])
    popular = fit(fitted.dataset, "popularity")
    with pytest.raises(ConfigError, match="popularity"):
        explain_users(popular, ["u0"])


def test_page_is_self_contained_and_escapes_titles(fitted: FittedModel, tmp_path: Path) -> None:
    document = explain_users(fitted, ["u3"], n_items=40)
    page = write_page(document, fitted.dataset, tmp_path / "page.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "<b>title" not in page
    assert "&lt;b&gt;title" in page
    assert 'src="http' not in page
    for cell in document["users"][0]["content"][1]["plan"][0]:
        assert f"{cell:.3f}" in page
    assert "word1" in page
    with pytest.raises(DataError, match="the folder"):
        write_page(document, fitted.dataset, tmp_path)


def test_rows_of_items_stay_inside(fitted: FittedModel) -> None:
    assert "'item':" not in str(without_rows(explain_users(fitted, ["u3"])))
