"""`modalign export` on the toy: the artifact, the table, JSON, and mistakes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from calling import Cli, snapshot

from modalign_serve.ranker.ranker import Ranker


def test_a_run_becomes_an_artifact(cli: Cli, workshop: Path) -> None:
    told = cli("export", "runs/bpr", "--out", "artifact", "--dtype", "int8", "--no-adapter")
    assert told.code == 0, told.err
    assert "bpr, served by its factors" in told.out
    assert "written to artifact" in told.out
    found = Ranker.open("artifact").recommend(["u1"], 3)
    assert found.catalogue.record(int(found.rows[0, 0]))["title"]


def test_steps_are_printed_unless_quiet(cli: Cli, workshop: Path) -> None:
    words = ("export", "runs/bpr", "--out", "artifact", "--no-adapter", "--overwrite")
    assert "fitting the fold-in of new users" in cli(*words).err
    assert cli("--quiet", *words).err == ""
    logger = logging.getLogger("modalign")
    assert [type(one) for one in logger.handlers] == [logging.NullHandler]


def test_json_is_one_document(cli: Cli, workshop: Path) -> None:
    told = cli("export", "runs/pop", "--out", "artifact", "--no-adapter", "--json")
    document = json.loads(told.out)
    assert (document["model"], document["dtype"], document["items"]) == (
        "popularity",
        "float32",
        40,
    )
    assert document["loss"]["overlap@20"] == 1.0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runs/none", "--out", "a"], "does not exist"),
        (["runs/bpr", "--out", "a", "--dtype", "int4"], "int8"),
        (["runs/bpr", "--out", "a", "--index", "tree"], "hnsw"),
        (["runs/bpr", "--out", "data"], "something else"),
        (["runs/bpr", "--out", "good.csv"], "something else"),
        (["runs/bpr"], "--out"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(
    cli: Cli, workshop: Path, words: list[str], told: str
) -> None:
    before = snapshot(workshop)
    found = cli("export", *words)
    assert found.code == 2
    assert told in found.err
    assert snapshot(workshop) == before


@pytest.mark.slow
def test_an_artifact_is_replaced_when_asked(cli: Cli, workshop: Path) -> None:
    words = ("export", "runs/pop", "--out", "artifact", "--no-adapter")
    assert cli(*words).code == 0
    refused = cli(*words)
    assert (refused.code, "--overwrite" in refused.err) == (2, True)
    assert cli(*words, "--overwrite").code == 0
