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
```
"""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modalign.core.interfaces import Recommender
    from modalign.core.modality import Modality
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
    from modalign.sweeps import ablate, sweep

_HOMES = {
    "Dataset": "modalign.data.dataset",
    "FittedModel": "modalign.experiments.fitted",
    "InputError": "modalign.errors",
    "ModalignError": "modalign.errors",
    "Modality": "modalign.core.modality",
    "Recommender": "modalign.core.interfaces",
    "ablate": "modalign.sweeps",
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

__all__ = [
    "Dataset",
    "FittedModel",
    "InputError",
    "ModalignError",
    "Modality",
    "Recommender",
    "ablate",
    "describe",
    "distill",
    "encode",
    "fit",
    "load",
    "load_model",
    "prepare",
    "read_source",
    "register",
    "sweep",
]

__version__ = version("modalign")

# Without a handler Python would print warnings; a program that wants messages adds its own.
logging.getLogger("modalign").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    # Imported on first use: `import modalign` costs milliseconds, torch seconds.
    if name not in _HOMES:
        raise AttributeError(f"module 'modalign' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute or name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
