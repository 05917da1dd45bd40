"""The registered models: `@register` adds one, `specs()` and `get` look them up.

Every module of `modalign.models` whose name has no leading underscore is imported on first use; of
a folder, its `model.py`. So is every entry point of the group `modalign.models` of other packages.
A name registered twice raises.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from modalign.core.interfaces import Need
from modalign.core.registry import Registry
from modalign.errors import ConfigError

Family = Literal["baseline", "collaborative", "multimodal"]
C = TypeVar("C", bound=type)


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a model without building it.

    Attributes:
        name: the name on the command line.
        cls: the `Recommender` class.
        config: its configuration class (frozen, unknown keys refused).
        toy: options with which it learns a toy data set in seconds, for the contract tests.
        family: "baseline" (no training), "collaborative" (ids only) or "multimodal".
        paper: author, year, venue.
        variants: named ablations, each a set of options.
        encoders: by kind of modality, such as "text", the encoder whose features the model is
            made for, where that is not the default one.
    """

    name: str
    cls: Any
    config: Any
    toy: Mapping[str, Any]
    family: Family
    paper: str
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    encoders: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[Need, ...]:
        """What the class declares that it reads; see `Recommender.needs`."""
        declared: tuple[Need, ...] = self.cls.needs
        return declared

    @property
    def cold_items(self) -> bool:
        """Whether items without interactions are scored by their content."""
        return "modalities" in self.needs and bool(self.cls.cold_items)

    @property
    def summary(self) -> str:
        """First line of the class's documentation."""
        return (self.cls.__doc__ or "").strip().split("\n")[0].rstrip(".")


def _import_models() -> None:
    import modalign.models as package

    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            name = f"{package.__name__}.{module.name}"
            importlib.import_module(f"{name}.model" if module.ispkg else name)


MODELS: Registry[ModelSpec] = Registry("model", "modalign.models", _import_models)


def register(
    name: str,
    *,
    config: Any,
    toy: Mapping[str, Any],
    family: Family,
    paper: str,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    encoders: Mapping[str, str] | None = None,
) -> Callable[[C], C]:
    """Class decorator that registers a `Recommender`; its abilities stand in the class itself.

    Args:
        name: the name on the command line.
        config: its configuration class (frozen, unknown keys refused).
        toy: options with which it learns a toy data set in seconds, for the contract tests.
        family: "baseline" (no training), "collaborative" (ids only) or "multimodal".
        paper: author, year, venue.
        variants: named ablations, each a set of options.
        encoders: by kind of modality, such as "text", the encoder whose features the model is
            made for, where that is not the default one.

    Raises:
        ValueError: another class has that name.
    """

    def wrap(cls: C) -> C:
        spec = ModelSpec(
            name, cls, config, dict(toy), family, paper, variants or {}, encoders or {}
        )
        MODELS.register(name, spec)
        return cls

    return wrap


def specs() -> dict[str, ModelSpec]:
    """All registered models by name, sorted."""
    return dict(MODELS)


def get(name: str) -> ModelSpec:
    """The model called `name`.

    Raises:
        UnknownName: there is none; the most similar name is suggested.
    """
    return MODELS[name]


def of_config(config: Any) -> ModelSpec:
    """The model that a configuration is for.

    Raises:
        ConfigError: it is the configuration of no model, or of several.
    """
    found = [spec for spec in MODELS.values() if type(config) is spec.config]
    if len(found) != 1:
        names = ", ".join(spec.name for spec in found)
        raise ConfigError(
            "a model by name, or the configuration of exactly one",
            f"a {type(config).__name__}, {f'that of {names}' if found else 'of no model'}",
            "name the model and give its options",
        )
    return found[0]
