"""modalign: multimodal recommendation by alignment.

Ten lines of use:

```python
import modalign

dataset = modalign.load("data/ml")  # a prepared folder, or a data frame
model = modalign.fit(dataset, "cm3", seed=1)
model.recommend(["42"], k=10)
model.similar_items(["50"], k=5)
model.save("runs/cm3")
model = modalign.load_model("runs/cm3")
modalign.compare(["runs/cm3", "runs/ease"])
modalign.report(["runs/cm3", "runs/ease"], "report.html")
modalign.export("runs/cm3", "artifacts/cm3")
```

`evaluate`, `export` and `report` are packages as well, and can be called:
`modalign.evaluate("runs/cm3", mask="train")`.
"""

from __future__ import annotations

import inspect
import logging
import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modalign.core.interfaces import Recommender
    from modalign.core.modality import Modality
    from modalign.data.append import append
    from modalign.data.dataset import Dataset
    from modalign.data.frames import load
    from modalign.data.prepare import prepare
    from modalign.data.sources import read as read_source
    from modalign.distillation.run import distill
    from modalign.encoding.encode import encode
    from modalign.errors import InputError, ModalignError
    from modalign.experiments.fit import fit, load_model
    from modalign.experiments.fitted import FittedModel
    from modalign.models._registry import register
    from modalign.preferences.describe import describe
    from modalign.report.side_by_side import compare_runs as compare
    from modalign.sweeps import ablate, sweep

_HOMES = {
    "Dataset": "modalign.data.dataset",
    "FittedModel": "modalign.experiments.fitted",
    "InputError": "modalign.errors",
    "ModalignError": "modalign.errors",
    "Modality": "modalign.core.modality",
    "Recommender": "modalign.core.interfaces",
    "ablate": "modalign.sweeps",
    "append": "modalign.data.append:append",
    "compare": "modalign.report.side_by_side:compare_runs",
    "describe": "modalign.preferences.describe",
    "distill": "modalign.distillation.run",
    "encode": "modalign.encoding.encode",
    "fit": "modalign.experiments.fit",
    "load": "modalign.data.frames",
    "load_model": "modalign.experiments.fit",
    "prepare": "modalign.data.prepare",
    "read_source": "modalign.data.sources:read",
    "register": "modalign.models._registry",
    "sweep": "modalign.sweeps",
}

_CALLED = {
    "evaluate": "modalign.experiments.measuring:evaluate",
    "export": "modalign.export.export_run:export",
    "report": "modalign.report.page:write_report",
}
"""Packages that are functions as well."""

__all__ = [
    "Dataset",
    "FittedModel",
    "InputError",
    "ModalignError",
    "Modality",
    "Recommender",
    "ablate",
    "append",
    "compare",
    "describe",
    "distill",
    "encode",
    "evaluate",
    "export",
    "fit",
    "load",
    "load_model",
    "prepare",
    "read_source",
    "register",
    "report",
    "sweep",
]

__version__ = version("modalign")

# Without a handler Python would print warnings; a program that wants messages adds its own.
logging.getLogger("modalign").addHandler(logging.NullHandler())


def _found(home: str, name: str) -> Any:
    module, _, attribute = home.partition(":")
    return getattr(import_module(module), attribute or name)


class _Called(ModuleType):
    """A package that can be called: importing one of its modules does not hide the function."""

    @property
    def _function(self) -> Any:
        name = self.__name__.rpartition(".")[2]
        return _found(_CALLED[name], name)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._function(*args, **options)


class _Root(ModuleType):
    """This module. The import system sets a package as an attribute of it, however it came."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLED and type(value) is ModuleType:
            value.__class__ = _Called
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Root


def __getattr__(name: str) -> Any:
    # Imported on first use: `import modalign` costs milliseconds, torch seconds.
    if name in _CALLED:
        return import_module(f"modalign.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'modalign' has no attribute {name!r}")
    return _found(_HOMES[name], name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
