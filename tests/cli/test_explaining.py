"""`modalign explain` on the toy: table, page, JSON, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from calling import Cli

from modalign.data.dataset import Dataset
from modalign.experiments.fit import fit


@pytest.fixture
def run(workshop: Path) -> str:
    """A run of bandvae on the toy of the workshop."""
    small = {"embedding_size": 4, "hidden_size": 6, "n_factors": 2, "n_content_factors": 2}
    fit(Dataset.load("data/toy"), "bandvae", out="runs/bandvae", epochs=1, codebook_size=6, **small)
    return "runs/bandvae"


@pytest.mark.slow
def test_interests_in_the_terminal_and_on_a_page(cli: Cli, run: str) -> None:
    told = cli("explain", run, "--user", "u3", "--items", 2, "--out", "page.html")
    assert told.code == 0, told.err
    assert "interests of user u3" in told.out
    assert "text: best words" in told.out
    assert "Alignment: entropy" in told.out
    assert "Averages over 59 users" in told.out
    assert "User u3" in Path("page.html").read_text()


@pytest.mark.slow
def test_json_is_one_document(cli: Cli, run: str) -> None:
    told = cli("explain", run, "--user", "u3", "--user", "u4", "--json")
    document = json.loads(told.out)
    assert [one["user"] for one in document["users"]] == ["u3", "u4"]
    assert len(document["users"][0]["factors"][0]["items"]) == 3


def test_a_model_that_does_not_explain_is_named(cli: Cli, workshop: Path) -> None:
    told = cli("explain", "runs/bpr", "--user", "u3")
    assert told.code == 2
    assert "bandvae" in told.err


@pytest.mark.slow
def test_an_unknown_user_is_named(cli: Cli, run: str) -> None:
    told = cli("explain", run, "--user", "nobody")
    assert told.code == 2
    assert "nobody" in told.err


@pytest.mark.slow
def test_a_model_without_content_has_factors_alone(cli: Cli, workshop: Path) -> None:
    small = {"embedding_size": 4, "hidden_size": 6, "n_factors": 2, "temperature": 0.2}
    fit(Dataset.load("data/toy"), "macridvae", out="runs/macridvae", epochs=1, **small)
    told = cli("explain", "runs/macridvae", "--user", "u3", "--items", 2, "--out", "page.html")
    assert told.code == 0, told.err
    assert "interests of user u3" in told.out
    assert "weight of content" not in told.out
    assert "Averages" not in told.out
    assert "User u3" in Path("page.html").read_text()
