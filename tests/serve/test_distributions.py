"""Two distributions from one repository: the same version, and the lean one without torch."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import modalign
import modalign_serve

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "scipy", "matplotlib", "scikit-learn", "onnx", "onnxruntime", "faiss-cpu"}


def project(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(path.read_text())["project"]
    return found


def test_both_have_one_version_and_modalign_pins_the_server() -> None:
    whole, lean = project(ROOT / "pyproject.toml"), project(ROOT / "serve" / "pyproject.toml")
    assert lean["version"] == whole["version"]
    assert modalign_serve.__version__ == modalign.__version__ == whole["version"]
    pinned = [one for one in whole["dependencies"] if one.startswith("modalign-serve")]
    assert pinned == [f"modalign-serve=={whole['version']}"]
    extras = [one for extra in whole["optional-dependencies"].values() for one in extra]
    pinned = [one for one in extras if one.startswith("modalign-serve")]
    assert pinned
    for one in pinned:
        assert re.fullmatch(r"modalign-serve\[[a-z,]+\]==" + re.escape(whole["version"]), one)


def test_the_lean_one_requires_nothing_heavy() -> None:
    lean = project(ROOT / "serve" / "pyproject.toml")
    names = {re.match(r"[A-Za-z0-9-]+", one)[0].lower() for one in lean["dependencies"]}  # type: ignore[index]
    assert not names & HEAVY
    assert "modalign" not in names
