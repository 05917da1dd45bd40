"""What models, trainer and evaluation agree on: protocols and frozen dataclasses, no algorithm.

A model is a frozen `Config` and a `Recommender` with `@register`. The trainer knows only `Task`;
the evaluation knows only `Recommender` and `Scorer`. What a model can do beyond that, it declares
by the interface that it implements: `PairScorer` and `Student` for distillation, `Encodes` and
`Segmented` for export, `Aligned` and `modalign.core.explain.Explains` for reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from modalign.core.view import TrainView
from modalign.core.vital_signs import VitalSign
from modalign.errors import DataError, UnknownName

MissingPolicy = Literal["zero", "mean", "neighbours", "learned"]
Need = Literal["negatives", "history", "modalities"]


class Config(BaseModel):
    """Base of all configurations: frozen and typed; an unknown key is rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    earlier: ClassVar[Mapping[str, Any]] = {}
    """Values of newer options in runs that were made before these options existed."""


class TrainedConfig(Config):
    """Options of every model that is trained by gradient descent."""

    embedding_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Width of a user or item vector (of one segment where a model has several)."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """Learning rate of the optimizer."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of the optimizer; `reg` is the penalty inside the loss."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW with decoupled weight decay."""
    batch_size: Annotated[int, Field(ge=1)] = 2048
    """Training pairs (users, for autoencoders) in a training step."""
    epochs: Annotated[int, Field(ge=0)] = 1000
    """Maximum number of epochs."""
    patience: Annotated[int, Field(ge=1)] = 20
    """Stop after this number of evaluations in a row without a better validation metric."""
    select_by: Literal["recall@10", "recall@20", "ndcg@10", "ndcg@20"] = "recall@20"
    """The validation metric that selects the best epoch."""
    eval_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two evaluations."""


class MultimodalConfig(TrainedConfig):
    """Options of every model that reads item features."""

    modalities: tuple[str, ...] | None = None
    """Names of the modalities to use, in order; null takes all, alphabetically."""
    missing: MissingPolicy = "mean"
    """Replacement of a missing feature row: zeros, the mean row, the mean of the nearest
    neighbours, or a learned row."""


@dataclass(frozen=True)
class Queries:
    """A block of users to score: an id, a history, or both.

    Attributes:
        user: rows of users, int64, shape (B,); -1 for a user not seen in training.
        history: their items, sparse CSR (B, n_items) of ones, or None where the model
            does not need histories.
    """

    user: Tensor
    history: Tensor | None = None

    def __len__(self) -> int:
        return len(self.user)

    def histories(self) -> Tensor:
        """`history`, of a model that needs it.

        Raises:
            ValueError: the queries have none.
        """
        return _given(self.history, "histories of the users")


@dataclass(frozen=True)
class Batch:
    """One training step's data; only what the model's `needs` ask for is filled.

    Attributes:
        users: rows, int64, shape (B,).
        positives: rows of observed items, int64, shape (B,) (batches of pairs only).
        negatives: rows of items the user has not observed, int64, shape (B,), or (B, K) for a
            task that wants K > 1 of them.
        history: sparse CSR (B, n_items) of the users' training items.
    """

    users: Tensor
    positives: Tensor | None = None
    negatives: Tensor | None = None
    history: Tensor | None = None

    def __len__(self) -> int:
        return len(self.users)

    def histories(self) -> Tensor:
        """`history`, of a model that needs it.

        Raises:
            ValueError: the batch has none.
        """
        return _given(self.history, "histories of the users")

    def items(self) -> Tensor:
        """Rows of the positives, then of the negatives, of a model that needs both, (2 B,).

        Raises:
            ValueError: the batch lacks one of them.
        """
        both = _given(self.positives, "positives"), _given(self.negatives, "negatives")
        return torch.cat(both)


def _given(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise ValueError(f"the model needs {name}, which it is not given; declare that in `needs`")
    return value


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer of one phase. `decay` multiplies the learning rate after every epoch."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    kind: Literal["adam", "adamw"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 1.0

    @classmethod
    def of(cls, config: TrainedConfig) -> OptimizerSettings:
        """The settings in a configuration."""
        return cls(config.learning_rate, config.weight_decay, config.optimizer)


@dataclass(frozen=True)
class Phase:
    """One optimizer and the parameters that it updates, at every `every`-th step."""

    name: str
    params: Sequence[nn.Parameter]
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    every: int = 1


@runtime_checkable
class Scorer(Protocol):
    """Scores blocks of users against all items; everything reusable is already computed."""

    def score(self, queries: Queries) -> Tensor:
        """Scores of shape (B, n_items); higher is better."""
        ...


@runtime_checkable
class PairScorer(Protocol):
    """A scorer that computes the scores of a few items without scoring all, for distillation."""

    def score_pairs(self, queries: Queries, items: Tensor) -> Tensor:
        """Scores (B, K) of the items (B, K) for the queries."""
        ...


@dataclass(frozen=True)
class Factors:
    """Scorer of a factorised model: final tables, and one matrix product per block."""

    users: Tensor
    items: Tensor

    def score(self, queries: Queries) -> Tensor:
        """`users[queries.user] @ items.T`, shape (B, n_items)."""
        return self.users[queries.user] @ self.items.T


@runtime_checkable
class Task(Protocol):
    """Everything that the trainer knows of what it trains."""

    @property
    def n_negatives(self) -> int:
        """Negatives of each training pair, where batches consist of pairs."""
        ...

    @property
    def recommender(self) -> Recommender:
        """The model that is evaluated, checkpointed and exported."""
        ...

    def phases(self) -> Sequence[Phase]:
        """The optimizers; none for a model in closed form."""
        ...

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """Named scalars, already weighted, whose sum is the loss; without side effects."""
        ...

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Called before an epoch, to resample or anneal; depends on its arguments alone.

        Args:
            epoch: number of the epoch, from 0.
            rng: the epoch's generator, on the CPU.
        """
        ...

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Called after an optimizer step, to redraw random numbers or to rebuild graphs.

        Args:
            step: number of the step since the start of training, from 0.
            batch: the batch of this step.
            rng: the generator of this epoch's steps, on the CPU.
        """
        ...

    def diagnostics(self) -> Mapping[str, float]:
        """Numbers for the log of an epoch, by name."""
        ...

    def after_validation(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Further numbers for the log, from the metrics of a validation."""
        ...


class Recommender(nn.Module):
    """Base of all models; it is its own `Task` with one phase.

    A plain model writes `__init__`, `loss` and `tables`. A model that is no product of two
    tables sets `factorised = False` and writes `score` instead of `tables`.

    The class attributes declare what the model can do and what it needs. This is the only place
    where that is stated: the registry, the trainer, the evaluation and the export read it here,
    and the contract of `modalign.testing` checks each declaration in both directions.

    The constructor only allocates parameters and precomputes constants (it is called under
    a seeded generator). Everything that must be saved is a Parameter or a buffer; constants
    that can be computed again are non-persistent buffers.

    Args:
        config: options of the model.
        view: training data; the model does not keep it.
    """

    needs: ClassVar[tuple[Need, ...]] = ()
    """What the model reads: "negatives" of each training pair; the "history" of a user, in
    queries and in batches, which then go over users instead of pairs; item "modalities"."""
    unseen_users: ClassVar[bool] = False
    """The model scores users from their history alone (`queries.user` may be -1)."""
    cold_items: ClassVar[bool] = True
    """An item without interactions is scored by its content (where the model reads modalities)."""
    factorised: ClassVar[bool] = True
    """Scores are the inner products of user vectors and item vectors."""
    resamples: ClassVar[bool] = False
    """`on_epoch` or `after_step` redraws random numbers that the loss depends on."""
    vital_signs: ClassVar[tuple[VitalSign, ...]] = ()
    """Numbers among `diagnostics()` that say whether the model's mechanism works."""

    def __init__(self, config: Any, view: TrainView) -> None:
        super().__init__()
        self.config = config
        self.n_users, self.n_items = view.n_users, view.n_items

    @property
    def recommender(self) -> Recommender:
        """The model itself."""
        return self

    @property
    def n_negatives(self) -> int:
        """Negatives of each training pair: 1 where the model needs them, else 0."""
        return int("negatives" in self.needs)

    def solve(self, view: TrainView) -> None:
        """Compute the buffers of a closed-form model; called once, before the first epoch."""

    def choose(self, view: TrainView, measure: Callable[[], float]) -> Mapping[str, float]:
        """Solve with each value of an option that is left to validation, and keep the best.

        Called instead of `solve` where the data have a validation part.

        Args:
            view: training data.
            measure: measures the model as it is on validation; larger is better.

        Returns:
            The values chosen, by option; none by default, after one `solve`.
        """
        self.solve(view)
        return {}

    def phases(self) -> Sequence[Phase]:
        """One phase with all trainable parameters; no phase for a closed-form model."""
        params = [p for p in self.parameters() if p.requires_grad]
        return [Phase("main", params, OptimizerSettings.of(self.config))] if params else []

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """Named scalars, already weighted, whose sum is the loss.

        Raises:
            TypeError: the model is solved in closed form.
        """
        raise TypeError(f"{type(self).__name__} has no loss: it is solved in closed form")

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Called before an epoch; does nothing by default."""

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Called after an optimizer step; does nothing by default.

        Args:
            step: number of the step since the start of training, from 0.
            batch: the batch of this step.
            rng: the generator of this epoch's steps, on the CPU.
        """

    def diagnostics(self) -> Mapping[str, float]:
        """Numbers for the log of an epoch, by name; none by default."""
        return {}

    def after_validation(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Further numbers for the log, from the metrics of a validation; none by default."""
        return {}

    def watched_parameters(self) -> Sequence[nn.Parameter]:
        """Parameters that several parts of the loss share: how much of their gradient each part
        gives is logged once an epoch, as `alive/gradient/PART`. By default none.
        """
        return ()

    def tables(self) -> tuple[Tensor, Tensor]:
        """Final user (n_users, d) and item (n_items, d) vectors, computed together.

        Raises:
            TypeError: the model is not factorised.
        """
        raise TypeError(f"{type(self).__name__} does not factorise into user and item vectors")

    def user_vectors(self, queries: Queries) -> Tensor:
        """Final vectors of the queried users, (B, d)."""
        return self.tables()[0][queries.user]

    def item_vectors(self) -> Tensor:
        """Final vectors of all items, (n_items, d)."""
        return self.tables()[1]

    def score(self, queries: Queries) -> Tensor:
        """Scores of all items, (B, n_items); to score many blocks, call `scorer()` once."""
        return Factors(*self.tables()).score(queries)

    def scorer(self) -> Scorer:
        """This model in evaluation mode; tables are computed once instead of once per block."""
        self.eval()
        if not self.factorised:
            return self
        with torch.inference_mode():
            return Factors(*self.tables())

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"n_users={self.n_users}, n_items={self.n_items}"


@runtime_checkable
class Student(Protocol):
    """A model that computes the vectors of single users and items, which distillation can train."""

    def at(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors of rows of users, int64 (B,), and of items, int64 (C,).

        Returns:
            The final vectors of the users (B, d) and of the items (C, d), and the vectors that
            they are computed from, users first, (B + C, d).
        """
        ...

    def ego_tables(self) -> tuple[Tensor, Tensor]:
        """Tables of users and items, both of width d, from which final vectors are computed."""
        ...


@runtime_checkable
class Segmented(Protocol):
    """A model whose vectors have named parts, whose shares of a score an export can name."""

    def vector_segments(self) -> tuple[tuple[str, int, int], ...]:
        """Name, first column and last column (excluded) of each part."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """A model that computes what it knows of a user from the history, in a form ONNX can hold."""

    def history_encoder(self) -> nn.Module:
        """A module without state of its own that reads rows of items, int64, (n,).

        Its result is the user's vector (width,) where `history_items` has item vectors, else the
        scores of all items (n_items,).
        """
        ...

    def history_items(self) -> Tensor | None:
        """Item vectors (n_items, width) whose products with the encoder's vectors are the scores;
        None where the encoder returns the scores themselves.
        """
        ...


@runtime_checkable
class Aligned(Protocol):
    """A model that shows its vectors space by space, before and after alignment."""

    def representations(self) -> Mapping[str, Tensor]:
        """Vectors of `users`, `id`, `unified` and, for each modality m, `raw/m` and `mapped/m`."""
        ...

    def plans(self) -> Mapping[str, Tensor]:
        """Transport plans by space."""
        ...


def chosen_modalities(config: MultimodalConfig, available: Iterable[str]) -> list[str]:
    """Names of the modalities that a configuration selects, in order.

    Args:
        config: options of the model.
        available: the modalities of the data by name, or their names.

    Raises:
        DataError: the data has no modality, or one that is missing for all items.
        UnknownName: the data lacks a modality that the configuration names.
    """
    names = sorted(available)
    if not names:
        raise DataError(
            "data with at least one modality", "data without any", "run `modalign encode` first"
        )
    for name in config.modalities or ():
        if name not in names:
            raise UnknownName("modality", name, names)
    chosen = list(config.modalities) if config.modalities else names
    if isinstance(available, Mapping):
        for name in chosen:
            if not available[name].present.any():
                raise DataError(
                    f"items with the modality {name!r}",
                    "none: it is missing for all of them",
                    f"encode it again, or leave it out with modalities=[...] without {name}",
                )
    return chosen
