"""Imports point down: read off the syntax trees, so that an import inside a function counts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import modalign

ROOT = Path(modalign.__file__).parent

# A package or module may import what stands in an earlier row, and itself; nothing beside it.
LAYERS = (
    ("errors", "seeds", "registry", "devices", "settings", "sparse"),
    ("ot", "artifact", "data"),
    ("features", "graph", "serve"),
    ("interfaces", "nn", "explain", "run_folder", "profiles"),
    ("models", "train", "evaluate", "distillation"),
    ("report", "export", "fitted", "experiment", "teachers", "distilling", "testing"),
    ("api", "demo", "efficiency", "sweeps"),
    ("cli",),
)
# Neighbours in a row that may see each other, one way.
BESIDE = {
    ("devices", "errors"),
    ("registry", "errors"),
    ("settings", "errors"),
    ("nn", "interfaces"),
    ("report", "fitted"),
    ("report", "experiment"),
    ("export", "fitted"),
    ("export", "experiment"),
    ("experiment", "fitted"),
    ("distilling", "experiment"),
    ("distilling", "fitted"),
    ("distilling", "teachers"),
    ("teachers", "experiment"),
    ("teachers", "fitted"),
    ("demo", "efficiency"),
    ("fitted", "experiment"),  # `save`, inside the method
}
# The only modules of modalign that a package may import, whatever its layer.
ALONE = {"ot": set(), "serve": {"artifact", "errors"}}
# Never imported by a package, not even deeper in its tree.
NEVER = {
    "models": ("modalign.train", "modalign.evaluate", "modalign.data.sources"),
    "train": ("modalign.models",),
    "evaluate": ("modalign.models",),
    "serve": ("torch", "lightning_fabric"),
    "artifact": ("torch", "pickle"),
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # `from modalign import seeds` imports modalign.seeds.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def height(part: str) -> int | None:
    """Which row of `LAYERS` a part of modalign stands in."""
    return next((row for row, names in enumerate(LAYERS) if part in names), None)


def violations(root: Path) -> list[str]:
    """Every import below `root` (a package called modalign) that points up or aside."""
    found = []
    for path in sorted(root.rglob("*.py")):
        part = path.relative_to(root).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for line, name in imports(path):
            why = _why_not(part, name, root)
            if why:
                found.append(f"{path.relative_to(root)}:{line} imports {name}: {why}")
    return found


def _why_not(part: str, name: str, root: Path) -> str:
    if name.startswith("."):
        return "relative"
    for banned in NEVER.get(part, ()):
        if name == banned or name.startswith(banned + "."):
            return f"{part} never imports {banned}"
    if name.split(".", maxsplit=1)[0] != "modalign" or len(name.split(".")) < 2:
        return ""
    target = name.split(".")[1]
    if not ((root / target).is_dir() or (root / f"{target}.py").is_file()):
        return ""  # an attribute of the package, such as its version
    if target == part:
        return ""
    if part in ALONE:
        return "" if target in ALONE[part] else f"{part} may import {sorted(ALONE[part])} alone"
    # The table of models imports them by name only when it is first asked.
    if (part, target) in BESIDE | {("registry", "models")}:
        return ""
    mine, its = height(part), height(target)
    if mine is None or its is None:
        return f"{part if mine is None else target} stands in no layer"
    return "" if its < mine else f"{part} (row {mine}) may not see {target} (row {its})"


def test_imports_point_down() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("data/files.py", "from modalign.models.bpr import BPR"),
        ("graph/knn.py", "from modalign.features import store"),
        ("models/bpr.py", "import modalign.train.trainer"),
        ("models/bpr.py", "from modalign import evaluate"),
        ("models/bpr.py", "from modalign.data.sources import table"),
        ("train/loop.py", "def f():\n    from modalign.models import bpr"),
        ("ot/sinkhorn.py", "from modalign.errors import InputError"),
        ("serve/app.py", "import torch"),
        ("serve/app.py", "from modalign.data import view"),
        ("serve/app.py", "import lightning_fabric"),
        ("artifact/read.py", "from torch import Tensor"),
        ("models/bpr.py", "from . import ease"),
        ("errors.py", "from modalign.cli import main"),
        ("strange/thing.py", "from modalign.errors import InputError"),
    ],
)
def test_a_violation_is_seen(tmp_path: Path, path: str, line: str) -> None:
    root = tmp_path / "modalign"
    parts = {name for row in LAYERS for name in row} | {"serve", "strange"}
    for part in parts - {"errors"}:
        (root / part).mkdir(parents=True)
    (root / "data" / "sources").mkdir()
    (root / "errors.py").touch()
    assert violations(root) == []
    (root / path).write_text(line + "\n")
    assert len(violations(root)) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("serve/app.py", "from modalign.artifact import read"),
        ("models/bpr.py", "from modalign.graph import bipartite"),
        ("models/bpr.py", "from modalign.data.view import TrainView"),
        ("cli/main.py", "from modalign import experiment"),
        ("cli/main.py", "from modalign import __version__"),
        ("train/loop.py", "import torch"),
    ],
)
def test_a_fair_import_passes(tmp_path: Path, path: str, line: str) -> None:
    root = tmp_path / "modalign"
    for part in {name for row in LAYERS for name in row} | {"serve"}:
        (root / part).mkdir(parents=True)
    (root / path).write_text(line + "\n")
    assert violations(root) == []
