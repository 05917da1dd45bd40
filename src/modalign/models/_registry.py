"""The models that exist: `@register` fills the table, `specs()` reads it.

Every module of `modalign.models` whose name has no leading underscore is imported on first use; of
a folder, its `model.py`. So is every entry point of the group `modalign.models` of other packages.
A name registered twice raises.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal, TypeVar

from modalign.errors import UnknownName

Need = Literal["negatives", "history", "modalities"]
Family = Literal["baseline", "collaborative", "multimodal"]
C = TypeVar("C", bound=type)


@dataclass(frozen=True)
class ModelSpec:
    """What modalign knows of a model without building it.

    Attributes:
        name: the name on the command line.
        cls: the `Recommender` class.
        config: its configuration class (frozen, unknown keys refused).
        toy: overrides that make it learn a toy data set in seconds; for the contract tests.
        family: "baseline" (no training), "collaborative" (ids only) or "multimodal".
        paper: author, year, venue.
        needs: what a batch must carry ("negatives", "history") and the data ("modalities").
        batches: an epoch goes over training "pairs" or over "users".
        variants: named ablations, each a set of overrides of the configuration.
        encoders: by kind of modality, as "text", the encoder whose features it is made for,
            where that is not the default one.
    """

    name: str
    cls: Any
    config: Any
    toy: Mapping[str, Any]
    family: Family
    paper: str
    needs: frozenset[Need] = frozenset()
    batches: Literal["pairs", "users"] = "pairs"
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    encoders: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """First line of the class's documentation."""
        return (self.cls.__doc__ or "").strip().split("\n")[0].rstrip(".")


_SPECS: dict[str, ModelSpec] = {}
_loaded = False


def register(
    name: str,
    *,
    config: Any,
    toy: Mapping[str, Any],
    family: Family,
    paper: str,
    needs: tuple[Need, ...] = (),
    batches: Literal["pairs", "users"] = "pairs",
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    encoders: Mapping[str, str] | None = None,
) -> Callable[[C], C]:
    """Class decorator: make a `Recommender` known by `name`. See `ModelSpec` for the arguments.

    Raises:
        ValueError: the name is taken by another class.
    """

    def wrap(cls: C) -> C:
        old = _SPECS.get(name)
        if old is not None and (old.cls.__module__, old.cls.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise ValueError(
                f"two models are called {name!r}: {old.cls.__module__}.{old.cls.__qualname__} "
                f"and {cls.__module__}.{cls.__qualname__}; rename one"
            )
        _SPECS[name] = ModelSpec(
            name, cls, config, dict(toy), family, paper, frozenset(needs), batches,
            variants or {}, encoders or {},
        )  # fmt: skip
        return cls

    return wrap


def _load() -> None:
    global _loaded
    if _loaded:
        return
    import modalign.models as package

    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            name = f"{package.__name__}.{module.name}"
            importlib.import_module(f"{name}.model" if module.ispkg else name)
    for point in entry_points(group="modalign.models"):
        point.load()
    _loaded = True


def specs() -> dict[str, ModelSpec]:
    """All registered models by name, sorted."""
    _load()
    return dict(sorted(_SPECS.items()))


def get(name: str) -> ModelSpec:
    """The model called `name`.

    Raises:
        UnknownName: there is none; the nearest name is suggested.
    """
    _load()
    if name not in _SPECS:
        raise UnknownName("model", name, _SPECS)
    return _SPECS[name]
