"""Run the killers of mutants, first on the right code and then on each mutant.

    python -m mutants FILE SYSTEM[/NAME] ...

writes to FILE, as JSON, what happened to each killer on the right code and to each mutant.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from torch.autograd.gradcheck import GradcheckError

from mutants import SYSTEMS
from mutants.mutant import Mutant, in_place

TESTS = Path(__file__).parents[2]
RED = (AssertionError, pytest.fail.Exception, GradcheckError)


class Runner:
    """Runs the chosen tests many times, in one process and without collecting them again."""

    def __init__(self, mutants: dict[str, Mutant]) -> None:
        self.mutants = mutants
        self.found: dict[str, dict[str, Any]] = {"right": {}, "mutants": {}}
        self.raised: BaseException | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        """Remember what a test raised first."""
        if call.excinfo is not None and self.raised is None:
            self.raised = call.excinfo.value

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of one run of every test."""
        if session.testsfailed:
            return True
        items = {item.nodeid.removeprefix("tests/"): item for item in session.items}
        for mutant in self.mutants.values():
            if mutant.killer not in self.found["right"]:
                found = self.outcome(items.get(mutant.killer))
                self.found["right"][mutant.killer] = found
        for name, mutant in self.mutants.items():
            start = time.perf_counter()
            try:
                with in_place(mutant):
                    found = self.outcome(items.get(mutant.killer))
            except (AttributeError, ImportError, LookupError, SyntaxError, ValueError) as error:
                found = f"no mutant: {error}"
            self.found["mutants"][name] = found
            print(f"{time.perf_counter() - start:6.2f} s  {name}: {found}", file=sys.__stdout__)
        return True

    def outcome(self, item: pytest.Item | None) -> str:
        """`passed`, `failed`, or the error that is not a failed test."""
        if item is None:
            return "no such test"
        self.raised = None
        reports = runtestprotocol(item, log=False, nextitem=None)
        if all(report.passed for report in reports):
            return "passed"
        at = next(report for report in reports if not report.passed)
        if at.when == "call" and isinstance(self.raised, RED):
            return "failed"
        first, *_ = f"{self.raised}".splitlines() or [""]
        return f"{at.outcome} in {at.when}: {type(self.raised).__name__}: {first}"


def main(file: str, chosen: list[str]) -> int:
    """Run the mutants of whole systems, or single ones."""
    mutants = {
        f"{system}/{mutant.name}": mutant
        for system, those in SYSTEMS.items()
        for mutant in those
        if system in chosen or f"{system}/{mutant.name}" in chosen
    }
    runner = Runner(mutants)
    killers = sorted({str(TESTS / mutant.killer) for mutant in mutants.values()})
    options = ["-qq", "-p", "no:xdist", "--rootdir", str(TESTS.parent)]
    code = pytest.main([*options, *killers], plugins=[runner])
    Path(file).write_text(json.dumps({**runner.found, "code": int(code)}, indent=1))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
