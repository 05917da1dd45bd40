"""Variants of TARec, their stages, and the options of both models in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from modalign.core import settings
from modalign.core.interfaces import TrainedConfig
from modalign.distillation.task import DistillConfig
from modalign.errors import ConfigError, UnknownName
from modalign.models import _registry as registry

VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "full": {},
        "no-assistant": {},
        "no-wasserstein": {"logit": "kl"},
        "no-assistant-no-wasserstein": {"logit": "kl"},
        "no-embedding": {"embedding_weight": 0.0},
        "warm-start-only": {"logit_weight": 0.0, "embedding_weight": 0.0},
        "from-random": {"warm_start": False},
        "per-user": {"group": "user", "negatives": 16},
        "masses": {"logit": "masses", "negatives": 16},
        "as-printed": {
            "logit_weight": 0.01,
            "embedding_weight": 0.01,
            "reduction": "sum",
            "value": "sharp",
            "max_points": 1024,
            "contrast": "all",
            "warm_start": False,
        },
    }
)
"""Named distillations, each a set of options.

The first five are the paper's Table 2; those called `no-assistant...` leave the assistant out, and
`no-assistant-no-wasserstein` is PromptMM's single-step distillation by KL. `warm-start-only` and
`from-random` are controls: the student's start without any distillation, and distillation without
that start. `per-user` and `masses` compare the logits of one user's candidates, as locations and
as masses. `as-printed` has the paper's weights, sums over a batch, the sharp value and random
tables."""

MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "assistant": (
            "lightgcn",
            {
                "n_layers": 1,
                "learning_rate": 1e-3,
                "optimizer": "adamw",
                "batch_size": 1024,
                "patience": 10,
            },
        ),
        "student": ("mlprec", {"residual": True, "learning_rate": 1e-3, "patience": 10}),
    }
)
"""Registered model and own defaults of each stage."""

SHARED = (*TrainedConfig.model_fields, "reg")
"""Options that both models take from one `key=value`; others need `assistant.` or `student.`."""


@dataclass(frozen=True)
class Stage:
    """A stage of a distillation: one model that is taught.

    Attributes:
        name: "assistant" or "student".
        spec: the registered model.
        config: its options.
    """

    name: str
    spec: registry.ModelSpec
    config: Any


@dataclass(frozen=True)
class DistillationPlan:
    """What a distillation does.

    Attributes:
        variant: a name of `VARIANTS`.
        config: of the losses, the same in all stages.
        stages: in order; the first learns from the teacher, each next from the one before.
    """

    variant: str
    config: DistillConfig
    stages: tuple[Stage, ...] = field(default_factory=tuple)

    @classmethod
    def of(
        cls, variant: str = "full", options: Mapping[str, Any] | None = None
    ) -> DistillationPlan:
        """The plan of a variant, with options by name.

        `logit_weight` and other options of `DistillConfig` hold for both stages, so do
        `learning_rate`, `embedding_size` and the others of `TrainedConfig` and `reg`;
        `assistant.n_layers` or `student.learning_rate` set one model's own.

        Raises:
            UnknownName: no such variant or option.
            ConfigError: a value out of bounds, or an option the variant decides.

        Example:
            >>> plan = DistillationPlan.of("no-assistant", {"logit": "sort", "student.n_layers": 1})
            >>> [stage.name for stage in plan.stages], plan.stages[0].config.n_layers
            (['student'], 1)
        """
        if variant not in VARIANTS:
            raise UnknownName("variant of distillation", variant, VARIANTS)
        losses, models = _sorted_out(options or {})
        for key, value in VARIANTS[variant].items():
            if losses.get(key, value) != value:
                raise ConfigError(
                    f"{key}={value}, which makes the variant {variant}",
                    f"{key}={losses[key]}",
                    "leave that option out, or use the variant full",
                )
        config = settings.build(DistillConfig, {**losses, **VARIANTS[variant]}, "distillation")
        names = ["student"] if variant.startswith("no-assistant") else ["assistant", "student"]
        stages = []
        for name in names:
            model, defaults = MODELS[name]
            spec = registry.get(model)
            chosen = {**defaults, **models[name]}
            stages.append(Stage(name, spec, settings.build(spec.config, chosen, f"the {name}")))
        return cls(variant, config, tuple(stages))


def _sorted_out(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    losses: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {name: {} for name in MODELS}
    own: list[tuple[str, str, Any]] = []
    for key, value in options.items():
        owner, dot, name = key.partition(".")
        if dot and owner in models:
            own.append((owner, name, value))
        elif key in DistillConfig.model_fields:
            losses[key] = value
        elif key in SHARED:
            for one in models.values():
                one[key] = value
        else:
            known = [*DistillConfig.model_fields, *SHARED]
            for stage, (model, _) in MODELS.items():
                known += [f"{stage}.{one}" for one in registry.get(model).config.model_fields]
            raise UnknownName("option of distillation", key, known)
    for owner, name, value in own:
        models[owner][name] = value
    return losses, models
