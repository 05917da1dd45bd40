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

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modalign.api import load
    from modalign.data.dataset import Dataset
    from modalign.data.modality import Modality
    from modalign.data.prepare import prepare
    from modalign.data.sources import read as read_source
    from modalign.distilling import distill
    from modalign.errors import InputError, ModalignError
    from modalign.experiment import fit, load_model
    from modalign.features.encode import encode
    from modalign.fitted import FittedModel
    from modalign.interfaces import Recommender
    from modalign.profiles.describe import describe
    from modalign.registry import register
    from modalign.sweeps import ablate, sweep

_HOMES = {
    "Dataset": "modalign.data.dataset",
    "FittedModel": "modalign.fitted",
    "InputError": "modalign.errors",
    "ModalignError": "modalign.errors",
    "Modality": "modalign.data.modality",
    "Recommender": "modalign.interfaces",
    "ablate": "modalign.sweeps",
    "describe": "modalign.profiles.describe",
    "distill": "modalign.distilling",
    "encode": "modalign.features.encode",
    "fit": "modalign.experiment",
    "load": "modalign.api",
    "load_model": "modalign.experiment",
    "prepare": "modalign.data.prepare",
    "read_source": "modalign.data.sources:read",
    "register": "modalign.registry",
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


def __getattr__(name: str) -> Any:
    # Imported on first use: `import modalign` costs milliseconds, torch seconds.
    if name not in _HOMES:
        raise AttributeError(f"module 'modalign' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute or name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
