"""`modalign figures`: what it tells people and programs, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from calling import Cli, snapshot

from modalign.report import style
from modalign.report.paper_figures import flows


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short flows and nothing painted: pictures are tested where they are made."""
    whole = flows.flows
    monkeypatch.setattr(flows, "SHOWN", (0, 1, 2, 3))
    monkeypatch.setattr(flows, "flows", lambda seed: whole(seed, 3))
    monkeypatch.setattr(style, "files", lambda figure: {"png": b"png", "svg": b"<svg/>"})


@pytest.mark.slow
def test_runs_are_drawn_and_told_as_text_and_as_json(workshop: Path, cli: Cli) -> None:
    got = cli("figures", "runs/bpr", "runs/pop", "--out", "pictures", "--pairs", 30)
    assert got.code == 0, got.err
    assert "10 figures written to pictures/index.html" in got.out
    assert "pop, whose vectors have" in got.out
    assert "not drawn: cold-items, fig1ab-distances, option-signs, spaces-epochs" in got.out
    assert "they need" in got.out
    again = cli("figures", "runs/bpr", "runs/pop", "--out", "again", "--pairs", 30, "--json")
    found = json.loads(again.out)
    assert found["out"] == "again"
    assert found["reference"] == "bpr"
    assert found["seed"] == 1
    files = {name for one in found["figures"] for name in one["files"]}
    assert {path.name for path in Path("again").iterdir()} == files | {"index.html", "figures.json"}
    assert {**snapshot(Path("pictures"))} == {**snapshot(Path("again"))}
    other = cli("figures", "runs/bpr", "--out", "other", "--pairs", 30, "--seed", 2, "--json")
    assert json.loads(other.out)["seed"] == 2
    scores = "fig1def-scores.csv"
    assert Path("other", scores).read_text() != Path("again", scores).read_text()


@pytest.mark.slow
def test_flows_alone_need_no_run(workshop: Path, cli: Cli) -> None:
    got = cli("figures", "--flow", "--out", "flow")
    assert got.code == 0, got.err
    assert "3 figures written" in got.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "got neither"),
        (("--flow", "runs/bpr"), "got both"),
        (("runs/nowhere",), "does not exist"),
        (("runs/bpr", "runs/bpr"), "twice"),
        (("runs/bpr", "--pairs", "0"), "--pairs"),
    ],
)
def test_mistakes_are_told_in_three_facts(
    words: tuple[str, ...], told: str, workshop: Path, cli: Cli
) -> None:
    before = snapshot(workshop)
    got = cli("figures", *words, "--out", "out")
    assert got.code == 2
    assert "expected" in got.err
    assert "To fix" in got.err
    assert told in got.err
    assert snapshot(workshop) == before
