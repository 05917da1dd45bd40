"""Rules that name one module: which one seeds generators, and which one asks for devices."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import modalign

ROOT = Path(modalign.__file__).parent
SEEDING = {
    "Generator",
    "PCG64",
    "RandomState",
    "SeedSequence",
    "default_rng",
    "fork_rng",
    "manual_seed",
    "manual_seed_all",
    "seed",
    "seed_everything",
}
ASKING = {"device_count", "get_device_name", "is_available"}
RULES = [("core/seeds.py", SEEDING), ("core/devices.py", ASKING)]


def calls(source: str, names: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each call of a function or method of one of these names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in names:
                yield node.lineno, name


@pytest.mark.parametrize(("home", "names"), RULES)
def test_only_one_module_calls_these(home, names):
    found = [
        f"{path.relative_to(ROOT)}:{line} calls {name}"
        for path in sorted(ROOT.rglob("*.py"))
        if path != ROOT / home
        for line, name in calls(path.read_text(), names)
    ]
    assert found == []
    assert list(calls((ROOT / home).read_text(), names))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("rng = torch.Generator().manual_seed(1)", SEEDING),
        ("rng = np.random.default_rng(1)", SEEDING),
        ("if torch.cuda.is_available(): pass", ASKING),
    ],
)
def test_a_violation_is_seen(source, names):
    assert list(calls(source, names))


def test_annotations_and_derived_seeds_pass():
    source = "def draw(rng: torch.Generator, seed: int): return derive(seed, 'svd') % 2**32"
    assert not list(calls(source, SEEDING))
