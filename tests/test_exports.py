"""What modalign shows is there, documented, and does nothing on import."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

import modalign
import modalign_serve

# In a process of its own, since an import here could have been paid for by another test; and
# twice, since what other packages do on their first import (set variables of the environment,
# draw a random name) is their own business.
IMPORT_ALL = """
import importlib, os, pkgutil, random, sys, warnings
import numpy as np, torch
warnings.simplefilter("ignore")

def state():
    return {
        "torch generator": torch.random.get_rng_state().tolist(),
        "numpy generator": str(np.random.get_state(legacy=False)),
        "python generator": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "numpy errors": np.geterr(),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "arguments": list(sys.argv),
    }

def import_all(check):
    package = importlib.import_module("modalign")
    for module in pkgutil.walk_packages(package.__path__, "modalign."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            check(module.name)

import_all(lambda name: None)
for name in [name for name in sys.modules if name.split(".")[0] == "modalign"]:
    del sys.modules[name]
# Elsewhere than an import may have put them, so that doing it again shows.
torch.manual_seed(12345)
np.random.seed(12345)
random.seed(12345)
torch.set_num_threads(torch.get_num_threads() + 1)
before = state()

def same(name):
    changed = [key for key, value in state().items() if value != before[key]]
    assert not changed, f"{name} changes {changed}"

import_all(same)
"""


NAMES = ["modalign"] + [
    module.name
    for module in pkgutil.walk_packages(modalign.__path__, "modalign.")
    if not module.name.endswith("__main__")
]


def public(module: ModuleType) -> list[tuple[str, object]]:
    """Classes and functions defined here, and the public methods of the classes."""
    found: list[tuple[str, object]] = []
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            found.append((name, thing))
        if inspect.isclass(thing):
            for method, value in vars(thing).items():
                inner = getattr(value, "__func__", getattr(value, "fget", value))
                if not method.startswith("_") and inspect.isfunction(inner):
                    found.append((f"{name}.{method}", getattr(thing, method)))
    return found


def undocumented(module: ModuleType) -> list[str]:
    """Public names of a module whose own (or inherited) documentation is empty."""
    return [name for name, thing in public(module) if not (inspect.getdoc(thing) or "").strip()]


@pytest.mark.slow
def test_importing_changes_nothing_outside() -> None:
    subprocess.run([sys.executable, "-c", IMPORT_ALL], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_everything_exported_is_there(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert [one for one in exported if not hasattr(module, one)] == []
    assert len(set(exported)) == len(exported)


@pytest.mark.parametrize("name", NAMES)
def test_everything_public_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip()
    assert undocumented(module) == []


def test_a_bare_function_and_a_bare_method_are_seen() -> None:
    module = ModuleType("made_up")
    source = (
        "def bare(): pass\n"
        "def told():\n    'It does.'\n"
        "class Told:\n    'It is.'\n    def bare(self): pass\n    def _private(self): pass\n"
        "    @property\n    def bare_too(self): return 1\n"
        "    @classmethod\n    def bare_as_well(cls): pass\n"
    )
    exec(compile(source, "made_up", "exec"), vars(module))
    assert undocumented(module) == ["bare", "Told.bare", "Told.bare_too", "Told.bare_as_well"]


def test_every_module_of_models_registers_something() -> None:
    from modalign import models
    from modalign.models._registry import specs

    there = {m.name for m in pkgutil.iter_modules(models.__path__) if not m.name.startswith("_")}
    assert there == {spec.cls.__module__.split(".")[2] for spec in specs().values()}


CALLS = """
import sys, modalign
if {first!r}:
    __import__({first!r})
one = getattr(modalign, {name!r})
assert "torch" not in sys.modules or {first!r}, "heavy"
import importlib, inspect
package = importlib.import_module("modalign.{name}")
assert one is package and getattr(modalign, {name!r}) is package
assert list(inspect.signature(one).parameters)[0] in ("run", "runs")
run = ["nowhere/run"] if {name!r} == "report" else "nowhere/run"
try:
    one(run, *["x"] * ({name!r} != "evaluate"))
except modalign.InputError as error:
    print(type(error).__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "modalign.report.side_by_side", "modalign.export.columns"])
def test_a_name_that_is_a_package_as_well_is_both_whatever_was_imported_first(first: str) -> None:
    packages = {one.name for one in pkgutil.iter_modules(modalign.__path__)}
    both = sorted(packages & set(modalign.__all__))
    assert both == ["evaluate", "export", "report"]
    code = "\n".join(CALLS.format(name=name, first=first) for name in both[: 3 if first else 1])
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stderr
    assert set(got.stdout.split()) == {"RunError"}


def classes_defined_twice(*roots: Path) -> dict[str, list[str]]:
    """Public classes at the top of more than one file below the roots, with their files."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(path.relative_to(root).as_posix())
    return {name: files for name, files in found.items() if len(files) > 1}


def test_a_public_class_name_exists_once_in_both_packages() -> None:
    roots = [Path(str(one.__file__)).parent for one in (modalign, modalign_serve)]
    assert classes_defined_twice(*roots) == {}


def test_a_class_in_two_files_is_found(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "plan.py").write_text("class Plan: pass\nclass _Inner: pass\n")
    (tmp_path / "one" / "more.py").write_text("class Single:\n    class Plan: pass\n")
    twice = classes_defined_twice(tmp_path / "one", tmp_path / "other")
    assert twice == {"Plan": ["plan.py", "plan.py"]}
