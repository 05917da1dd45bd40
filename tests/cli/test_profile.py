"""`modalign profile`: the tables, the JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from calling import Cli

from modalign.experiments import cost as cost_of_runs
from modalign.experiments.cost import Latency, ParameterCount, Profile, RunCost


def cost(run: str, model: str, anew: float, tables: float, parameters: int) -> RunCost:
    def times(p50: float, calls: int) -> Latency:
        return Latency(p50, 2 * p50, p50 / 2, calls)

    counts = ParameterCount(parameters, 3 * parameters)
    return RunCost(
        run, model, times(anew, 200), times(4 * anew, 40), times(tables, 200),
        times(4 * tables, 200), counts, 40.0, None,
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `cost.profile` is asked for; it answers a teacher and a student."""
    kept: dict[str, Any] = {}

    def answer(runs: list[Path], *, progress: Any, **options: Any) -> Profile:
        progress(0, len(runs))
        kept.update(options, runs=list(map(str, runs)))
        found = (
            cost("runs/teacher", "mmrec", 42.0, 1.0, 4_000_000),
            cost("runs/tarec/student", "mlprec", 3.0, 0.5, 1_000_000),
        )
        return Profile(found[: len(runs)], options["batch"], options["k"], 1, "cpu", {})

    monkeypatch.setattr(cost_of_runs, "profile", answer)
    monkeypatch.setattr("modalign.cli.render.out.width", 100, raising=False)
    return kept


def test_two_runs_as_tables(cli: Cli, asked: dict[str, Any]) -> None:
    got = cli("profile", "runs/teacher", "runs/tarec/student", "--batch", 512, "--threads", 2)
    assert got.code == 0, got.err
    assert asked["runs"] == ["runs/teacher", "runs/tarec/student"]
    assert (asked["batch"], asked["threads"], asked["k"], asked["repeats"]) == (512, 2, 20, 200)
    lines = [" ".join(line.split()) for line in got.out.splitlines()]
    assert "teacher anew 42 84 168 336 40.0" in lines
    assert "tables 0.5 1 2 4" in lines
    assert "teacher mmrec 4,000,000 12,000,000" in lines
    assert "tarec/student mlprec 1,000,000 3,000,000" in lines
    # 42 / 3, 1 / 0.5 and 42 / 0.5; a quarter of the parameters.
    assert "tarec/student one user 14x 2x 84x 4x 4x" in lines
    assert "512 users 14x 2x 84x" in lines
    assert "only 40 calls" in got.err


def test_one_run_has_no_ratios(cli: Cli, asked: dict[str, Any]) -> None:
    got = cli("profile", "runs/teacher")
    assert got.code == 0, got.err
    assert "Times faster" not in got.out


def test_json_is_one_document(cli: Cli, asked: dict[str, Any]) -> None:
    got = cli("profile", "runs/teacher", "runs/tarec/student", "--json")
    found = json.loads(got.out)
    assert [run["model"] for run in found["runs"]] == ["mmrec", "mlprec"]
    assert found["ratios"][0]["served_one"] == 84
    assert found["runs"][0]["tables_mib"] is None


@pytest.mark.slow
def test_a_real_run(workshop: Path, cli: Cli) -> None:
    got = cli("profile", "runs/pop", "--repeats", 3, "--device", "cpu", "--json")
    assert got.code == 0, got.err
    (run,) = json.loads(got.out)["runs"]
    assert run["model"] == "popularity"
    assert run["anew_one"]["calls"] == 3


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["runs/nothing"], ("a run folder with a config.yaml", "does not exist", "modalign train")),
        (["data/toy"], ("a run folder with a config.yaml", "data/toy without one")),
        (["runs/bpr", "good.csv"], ("a run folder with a config.yaml", "is a file")),
        (["runs/bpr", "--threads", "9999"], ("as many threads as the machine has", "9999")),
        (["runs/bpr", "--device", "tpu"], ("a device", "'tpu'")),
        (["runs/bpr", "--batch", "0"], ("--batch", "0")),
        ([], ("runs", "modalign profile --help")),
    ],
)
def test_mistakes_are_three_facts(
    words: list[str], facts: tuple[str, ...], workshop: Path, cli: Cli
) -> None:
    got = cli("profile", *words)
    assert got.code == 2
    assert got.out == ""
    assert "Traceback" not in got.err
    told = " ".join(got.err.split()).lower()
    assert "to fix:" in told
    for fact in facts:
        assert fact.lower() in told
