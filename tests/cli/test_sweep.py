"""`modalign sweep` and `modalign ablate` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from calling import Cli, snapshot

SWEEP = ["sweep", "--data", "data/toy", "--model", "popularity", "--out", "runs/s", "--k", "5,20"]
ABLATE = ["ablate", "--data", "data/toy", "--model", "freedom", "--out", "runs/a",
          "--set", "epochs=2", "--seeds", "1,2", "--variants", "without-pruning"]  # fmt: skip


@pytest.mark.slow
def test_a_sweep_for_people_and_for_programs(workshop: Path, cli: Cli) -> None:
    command = [*SWEEP, "--grid", "damping=0,0.5,1", "--seeds", "1,2", "--mask", "train"]
    got = cli(*command)
    assert got.code == 0, got.err
    lines = got.err.splitlines()
    assert lines[0].startswith("1/6 damping=0, seed 1: validation recall@20 0.")
    assert "left, best recall@20" in lines[0]
    head = next(line for line in got.out.splitlines() if "damping" in line)
    assert head.index("valid") < head.index("│") < head.index("test")
    assert "chosen on validation: damping=" in got.out
    again = cli(*command, "--json")
    assert "6/6 runs were finished before" in again.err
    found = json.loads(again.out)
    assert found == json.loads(Path("runs/s/results.json").read_text())
    means = [row["valid"]["recall@20"]["mean"] for row in found["table"]]
    assert means == sorted(means, reverse=True)
    assert found["best"] == found["table"][0]["name"]
    assert {run["results"]["mask"] for run in found["runs"]} == {"train"}
    assert Path("runs/s/curve-damping.png").is_file()


@pytest.mark.slow
def test_a_drawn_part_and_named_sets(workshop: Path, cli: Cli) -> None:
    found = cli(*SWEEP, "--grid", "damping=0,0.25,0.5,1", "--sample", "2", "--json")
    assert len(json.loads(found.out)["table"]) == 2
    Path("sets.yaml").write_text("plain:\nsmall:\n  damping: 1e-3\n")
    named = [*SWEEP[:-4], "--out", "runs/n", "--named", "sets.yaml", "--metric", "ndcg@5"]
    table = json.loads(cli(*named, "--json").out)["table"]
    assert {row["name"]: row["options"] for row in table} == {
        "plain": {}, "small": {"damping": 0.001}
    }  # fmt: skip
    text = cli(*named).out
    assert "small" in text
    assert "ndcg@5" in text


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_the_others_count(workshop: Path, cli: Cli) -> None:
    command = ["sweep", "--data", "data/toy", "--model", "bpr", "--out", "runs/f"]
    got = cli(*command, "--set", "epochs=2", "--grid", "reg=0,1e39")
    assert got.code == 0, got.err
    assert "note: reg=1e+39, seed 1 failed: the loss part" in got.err
    assert "0 of 1" in got.out
    got = cli(*command[:-1], "runs/g", "--grid", "reg=1e39")
    assert got.code == 1
    assert "none of 1 runs came to a result" in got.err


@pytest.mark.slow
def test_an_ablation_for_people_and_for_programs(workshop: Path, cli: Cli) -> None:
    got = cli(*ABLATE)
    assert got.code == 0, got.err
    assert "Test, all items ranked, mask strict" in got.out
    full, variant = (
        next(line for line in got.out.splitlines() if line.strip().startswith(name))
        for name in ("full", "without-pruning")
    )
    assert "±" in full
    assert "p users" in got.out
    assert "p seeds" in got.out
    assert len(variant.split()) > len(full.split())
    found = json.loads(cli(*ABLATE, "--json").out)
    assert [row["name"] for row in found["table"]] == ["full", "without-pruning"]
    assert {test["metric"] for test in found["tests"]} >= {"recall@20", "ndcg@10"}
    assert found["level"] == 0.05


MISTAKES = {
    "no grid": ([], "--grid or --named"),
    "unknown option": (["--grid", "dampin=0,1"], "did you mean 'damping'"),
    "out of bounds": (["--grid", "damping=0,7"], "less than or equal to 1"),
    "torn list": (["--grid", "damping=[0,1"], "close every bracket"),
    "empty list": (["--grid", "damping="], "key=value,value"),
    "no list": (["--grid", "damping"], "key=value,value"),
    "value twice": (["--grid", "damping=1,1"], "1 twice"),
    "option twice": (["--grid", "damping=1", "--grid", "damping=0"], "'damping' twice"),
    "fixed and varied": (["--grid", "damping=1", "--set", "damping=0"], "'damping' in both"),
    "an option of the command": (["--grid", "seed=1,2"], "write --seed"),
    "bad seeds": (["--grid", "damping=0,1", "--seeds", "1;2"], "seeds such as 1,2,3"),
    "seed twice": (["--grid", "damping=0,1", "--seeds", "1,1"], "each seed once"),
    "large sample": (["--grid", "damping=0,1", "--sample", "3"], "a sample of 1 to 2"),
    "metric not measured": (["--grid", "damping=0,1", "--metric", "recall@7"], "'recall@7'"),
    "unknown mask": (["--grid", "damping=0,1", "--mask", "none"], "a mask"),
    "no workers": (["--grid", "damping=0,1", "--workers", "0"], "--workers"),
    "grid and named": (["--grid", "damping=0,1", "--named", "x.yaml"], "--grid or --named"),
    "no such file": (["--named", "x.yaml"], "x.yaml"),
    "no data": (["--grid", "damping=0,1", "--data", "nowhere"], "nowhere"),
    "no model": (["--grid", "damping=0,1", "--model", "popularty"], "did you mean 'popularity'"),
    "a file for a folder": (["--grid", "damping=0,1", "--out", "good.csv"], "good.csv"),
    "a run folder": (["--grid", "damping=0,1", "--out", "runs/bpr"], "a new or empty folder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_three_facts_and_nothing_is_touched(
    name: str, workshop: Path, cli: Cli
) -> None:
    words, told = MISTAKES[name]
    before = snapshot(workshop)
    got = cli(*SWEEP, *words)
    assert got.code == 2
    assert told in got.err
    assert got.err.count("To fix:") == 1
    assert got.out == ""
    assert snapshot(workshop) == before


def test_named_sets_that_are_none(workshop: Path, cli: Cli) -> None:
    Path("sets.yaml").write_text("plain: 3\n")
    got = cli(*SWEEP, "--named", "sets.yaml")
    assert got.code == 2
    assert "options under the name 'plain' in sets.yaml" in got.err


@pytest.mark.slow
def test_another_experiment_in_the_folder_is_refused(workshop: Path, cli: Cli) -> None:
    assert cli(*SWEEP, "--grid", "damping=0,1").code == 0
    before = snapshot(workshop)
    for words in (["--grid", "damping=0,0.5"], ["--grid", "damping=0,1", "--mask", "train"]):
        got = cli(*SWEEP, *words)
        assert got.code == 2
        assert "of another experiment" in got.err
        assert snapshot(workshop) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--variants", "without-prunning"], "did you mean 'without-pruning'"),
        (["--variants", ""], "a variant of freedom"),
        (["--model", "bpr"], "bpr, which has none"),
        (["--set", "dropout=0"], "differs from freedom"),
        (["--seeds", "-1"], "seeds"),
    ],
)
def test_mistakes_of_an_ablation(words: list[str], told: str, workshop: Path, cli: Cli) -> None:
    before = snapshot(workshop)
    got = cli(*ABLATE, *words)
    assert got.code == 2
    assert told in got.err
    assert snapshot(workshop) == before
