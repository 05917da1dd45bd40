"""Every mutant of an equation turns the test that it names red."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mutants import SYSTEMS
from mutants.mutant import Mutant, changed, function_of

TESTS = Path(__file__).parents[1]
MUTANTS = {
    f"{system}/{mutant.name}": mutant for system, those in SYSTEMS.items() for mutant in those
}

EQUATIONS = {
    "cm3": [*(f"C{n}" for n in range(1, 21)), "C7'"],
    # M23 and M24 are theory that nothing computes.
    "mmssl": [f"M{n}" for n in range(1, 23)],
    "recgoat": [f"R{n}" for n in range(1, 17)],
    "bandvae": [f"B{n}" for n in range(1, 24)],
    "tarec": [f"E{n}" for n in range(1, 32)],
}
"""The numbers of each system's specification."""


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the named tests did on the right code and on the mutants that are asked for here."""
    chosen = [
        item.callspec.params["name"]
        for item in request.session.items
        if item.path == request.path and "outcomes" in item.fixturenames
    ]
    file = tmp_path_factory.mktemp("mutants") / "found.json"
    path = [str(TESTS / "models"), str(TESTS), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "mutants", str(file), *chosen],
        env=environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    assert file.is_file(), ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    assert found["code"] == 0, ran.stdout + ran.stderr
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_turns_its_test_red(name: str, outcomes: dict[str, Any]) -> None:
    assert outcomes["right"][MUTANTS[name].killer] == "passed"
    assert outcomes["mutants"][name] == "failed"


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_equation_has_a_mutant(system: str) -> None:
    names = [mutant.name for mutant in SYSTEMS[system]]
    assert len(set(names)) == len(names)
    # Some mutants are of decisions of a specification, which has letters of its own for them.
    assert {mutant.equation for mutant in SYSTEMS[system]} >= set(EQUATIONS[system])


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_fragment_of_a_mutant_occurs_once(system: str) -> None:
    for mutant in SYSTEMS[system]:
        function = function_of(mutant.where)
        assert changed(function, mutant.old, mutant.new).__code__ != function.__code__, mutant.name


def test_a_mutant_reaches_what_was_imported_and_is_gone_afterwards() -> None:
    from mutants.mutant import in_place

    from modalign.models.recgoat.model import bpr_loss
    from modalign.nn.losses.pairwise import torch

    scores = torch.tensor([3.0]), torch.tensor([0.0])
    mutant = Mutant(
        "x", "y", "nn.losses.pairwise:bpr_loss", "functional.softplus(", "functional.relu(", "z"
    )
    before = bpr_loss(*scores)
    with in_place(mutant):
        assert bpr_loss(*scores) == 0
    assert bpr_loss(*scores) == before > 0
    with pytest.raises(LookupError, match="0 times"):
        changed(function_of(mutant.where), "no such fragment", "")
