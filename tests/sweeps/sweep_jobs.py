"""A job without training, in a module that the processes of a pool can import."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalign.errors import ConfigError, TrainingError


@dataclass(frozen=True)
class Formula:
    """Leaves `student/results.json`, as a pipeline of several runs would.

    Validation is `x + seed / 100`, test is its negative. `mood` tells how a run behaves: "fails",
    "dies" (killed), "dies once", "leaves" (its process ends by itself).
    """

    data: str = "abc"

    @property
    def result(self) -> str:
        return "student/results.json"

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "formula", "data fingerprint": self.data}

    def check(self, options: Mapping[str, Any]) -> None:
        if options.get("x", 0) > 99:
            raise ConfigError("x up to 99", str(options["x"]), "take less")

    def run(self, options: Mapping[str, Any], seed: int, folder: Path) -> None:
        student = folder / "student"
        student.mkdir(parents=True, exist_ok=True)
        tries = folder / "tries"
        tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
        mood = options.get("mood", "")
        if mood == "fails":
            raise TrainingError("the loss became nan")
        if mood == "dies" or (mood == "dies once" and len(tries.read_text()) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if mood == "leaves":
            os._exit(3)
        value = options["x"] + seed / 100
        result = {"valid": {"recall@20": value}, "test": {"recall@20": -value}, "seconds": 2.0,
                  "parameters": 7, "threads": os.environ.get("OMP_NUM_THREADS")}  # fmt: skip
        (student / "results.json").write_text(json.dumps(result))
