"""What a mechanism is worth on the world planted for it: trained with it, and without it.

    outcome = tried(spec, TRIALS["cm3"], seed=1)
    outcome.gain, outcome.idle     # above the control; vital signs below their bounds

`TRIALS` has the trials of the registered models. A model of another package brings its own:
`contract.checks(spec, Trial(world, options, control, margin))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from modalign.core import seeds
from modalign.core.vital_signs import Reading, at_epoch
from modalign.data.dataset import Dataset
from modalign.evaluate.protocol import Evaluator, validation_metric
from modalign.models._registry import ModelSpec
from modalign.testing.worlds import calibration_world, rotation_world, sparse_world
from modalign.train.trainer import TrainOptions, fit


@dataclass(frozen=True)
class Trial:
    """A planted world, and by how much a mechanism must beat its control there.

    Attributes:
        world: a data set as a function of a seed.
        options: of the model, with the mechanism and without.
        control: the variant of the model that lacks the mechanism and nothing else.
        margin: least gain over the control in test Recall@10, in the mean of the seeds.
        seeds: of data and training.
    """

    world: Callable[[int], Dataset]
    options: Mapping[str, Any]
    control: str
    margin: float
    seeds: tuple[int, ...] = (1, 2, 3)


@dataclass(frozen=True)
class Outcome:
    """What a trial found with one seed.

    Attributes:
        full: test Recall@10 with the mechanism.
        control: the same without it.
        signs: the vital signs of the full model at its best epoch.
    """

    full: float
    control: float
    signs: tuple[Reading, ...]

    @property
    def gain(self) -> float:
        """What the mechanism adds."""
        return self.full - self.control

    @property
    def idle(self) -> list[str]:
        """The vital signs below their bounds."""
        return [f"{one.title} {one.value:.3g}" for one in self.signs if not one.alive]


TRIALS: Mapping[str, Trial] = MappingProxyType(
    {
        "cm3": Trial(
            calibration_world,
            {
                "embedding_size": 16,
                "hidden_size": 64,
                "batch_size": 256,
                "epochs": 40,
                "patience": 10,
                "learning_rate": 0.003,
                "k": 5,
                "n_item_layers": 0,
                "sim_source": "raw",
            },
            control="standard-uniformity",
            margin=0.05,
        ),
        "mmssl": Trial(
            sparse_world,
            {
                "embedding_size": 16,
                "n_heads": 2,
                "k": 10,
                "critic_hidden": 32,
                "first_graph": "generated",
                # Features that are added to the final vectors tell the same, without a contrast.
                "omega": 0.05,
                "contrast_weight": 0.1,
                "batch_size": 256,
                "learning_rate": 0.01,
                "epochs": 25,
                "patience": 10,
                "select_by": "recall@10",
            },
            control="without-cl",
            margin=0.02,
        ),
        "recgoat": Trial(
            rotation_world,
            {
                "embedding_size": 16,
                "n_heads": 2,
                "batch_size": 512,
                "epochs": 40,
                "patience": 10,
                "learning_rate": 0.01,
                "k": 5,
                "k_users": 5,
                "select_by": "recall@10",
            },
            # Not `identity-plan`: beside trained projections the plan is redundant.
            control="sum",
            margin=0.007,
        ),
    }
)
"""The trials of the registered models, by name."""


def tried(spec: ModelSpec, trial: Trial, seed: int) -> Outcome:
    """Train a model with its mechanism and without, and measure both on the test split.

    Args:
        spec: the registered model.
        trial: where and against what.
        seed: of the world and of both trainings.
    """
    data = trial.world(seed)
    full, signs = _recall(spec, data, trial.options, seed)
    options = {**trial.options, **spec.variants[trial.control]}
    control, _ = _recall(spec, data, options, seed)
    return Outcome(full, control, signs)


def _recall(
    spec: ModelSpec, data: Dataset, options: Mapping[str, Any], seed: int
) -> tuple[float, tuple[Reading, ...]]:
    config, view = spec.config(**options), data.view()
    with seeds.torch_seed(seed, "init"):
        model = spec.cls(config, view)
    metric = getattr(config, "select_by", "recall@20")
    chosen = TrainOptions(
        seed=seed,
        epochs=config.epochs,
        patience=config.patience,
        batch_size=config.batch_size,
        metric=metric,
        device="cpu",
    )
    validator = validation_metric(data, metric)
    state = fit(model, view, chosen, lambda one: validator.run(one).metrics)
    found = Evaluator(data, "test", ks=(10,), metrics=("recall",)).run(model).metrics
    signs = at_epoch(spec.cls.vital_signs, state.history, state.best_epoch)
    return float(found["recall@10"]), tuple(signs)
