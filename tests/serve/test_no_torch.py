from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact

SERVE = """
import json, pkgutil, sys
import modalign_serve
from modalign_serve.ranker.ranker import Ranker
ranker = Ranker.open(sys.argv[1])
ranker.update({"new": ["i1"]})
ranker.add_item("more", ranker.artifact.items[0])
found = ranker.recommend(["u1", "new"], 3).ids()
heavy = ("torch", "polars", "pandas", "sklearn", "scipy")
print(json.dumps([found, [name for name in heavy if name in sys.modules]]))
"""

EVERY = """
import importlib, json, pkgutil, sys
import modalign_serve, modalign_serve.artifact
for package in (modalign_serve, modalign_serve.artifact):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(json.dumps([name for name in ("torch", "lightning_fabric") if name in sys.modules]))
"""


def test_recommending_imports_neither_torch_nor_tables(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "a", small_artifact())
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(folder)], check=True, capture_output=True
    )
    found, heavy = json.loads(done.stdout)
    assert heavy == []
    assert len(found) == 3


def test_no_module_of_the_server_imports_torch() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY], check=True, capture_output=True)
    assert json.loads(done.stdout) == []
