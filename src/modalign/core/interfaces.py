"""The shapes everything else agrees on: protocols and frozen dataclasses, no algorithm.

A model is one file: a frozen `Config`, a `Recommender`, `@register`. The trainer knows only
`Task`; the evaluation knows only `Scorer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from modalign.core.view import TrainView
from modalign.errors import DataError, UnknownName

__all__ = [
    "Batch",
    "Config",
    "Factorised",
    "Factors",
    "MultimodalConfig",
    "Need",
    "OptimizerSettings",
    "PairScorer",
    "Phase",
    "Queries",
    "Recommender",
    "Scorer",
    "Task",
    "TrainView",
    "TrainedConfig",
    "chosen_modalities",
]

MissingPolicy = Literal["zero", "mean", "neighbours", "learned"]
Need = Literal["negatives", "history", "modalities"]


class Config(BaseModel):
    """Base of all configurations: frozen, typed, an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TrainedConfig(Config):
    """Options of every model that is trained by gradients."""

    embedding_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Width of a user or item vector (of one segment where a model has several)."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """Step size of the optimizer."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay handed to the optimizer; `reg` is the penalty inside the loss."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW with decoupled weight decay."""
    batch_size: Annotated[int, Field(ge=1)] = 2048
    """Training pairs (or users, for autoencoders) in a step."""
    epochs: Annotated[int, Field(ge=0)] = 1000
    """Most passes over the training data."""
    patience: Annotated[int, Field(ge=1)] = 20
    """Stop after so many evaluations in a row without a better validation metric."""
    select_by: Literal["recall@10", "recall@20", "ndcg@10", "ndcg@20"] = "recall@20"
    """The validation metric that picks the best epoch."""
    eval_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two evaluations."""


class MultimodalConfig(TrainedConfig):
    """Options of every model that reads item features."""

    modalities: tuple[str, ...] | None = None
    """Names of the modalities to use, in order; None takes all, alphabetically."""
    missing: MissingPolicy = "mean"
    """What stands in for a missing row: zero, mean, mean of nearest neighbours, learned."""


@dataclass(frozen=True)
class Queries:
    """A block of users to be scored: an id, a history, or both.

    Attributes:
        user: rows of users, int64, shape (B,); -1 for a user not seen in training.
        history: their items, sparse CSR (B, n_items) of ones, or None where the model
            does not read histories.
    """

    user: Tensor
    history: Tensor | None = None

    def __len__(self) -> int:
        return len(self.user)


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


@dataclass(frozen=True)
class OptimizerSettings:
    """How one phase steps. `decay` multiplies the learning rate after every epoch."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    kind: Literal["adam", "adamw"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 1.0

    @classmethod
    def of(cls, config: TrainedConfig) -> OptimizerSettings:
        """Settings a configuration asks for."""
        return cls(config.learning_rate, config.weight_decay, config.optimizer)


@dataclass(frozen=True)
class Phase:
    """One optimizer and the parameters it owns; stepped at every `every`-th step."""

    name: str
    params: Sequence[nn.Parameter]
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    every: int = 1


@runtime_checkable
class Scorer(Protocol):
    """Scores a block of users against all items; everything reusable is already computed."""

    def score(self, queries: Queries) -> Tensor:
        """Scores of shape (B, n_items); higher is better."""
        ...


@runtime_checkable
class PairScorer(Protocol):
    """A scorer that need not score all items to know a few: what distillation asks for."""

    def score_pairs(self, queries: Queries, items: Tensor) -> Tensor:
        """Scores of items (B, K) for the queries, (B, K)."""
        ...


@dataclass(frozen=True)
class Factors:
    """Scorer of a factorised model: final tables, one matrix product per block."""

    users: Tensor
    items: Tensor

    def score(self, queries: Queries) -> Tensor:
        """`users[queries.user] @ items.T`, shape (B, n_items)."""
        return self.users[queries.user] @ self.items.T


@runtime_checkable
class Task(Protocol):
    """All that the trainer knows."""

    @property
    def n_negatives(self) -> int:
        """Negatives of each training pair, where batches consist of pairs."""
        ...

    @property
    def recommender(self) -> Recommender:
        """What is evaluated, checkpointed and exported."""
        ...

    def phases(self) -> Sequence[Phase]:
        """The optimizers; none for a model in closed form."""
        ...

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """Named scalars, already weighted; their sum is the loss. No side effect."""
        ...

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Before an epoch: resample graphs, anneal. Depends on its arguments alone."""
        ...

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """After an optimizer step: redraw what is random, rebuild what was just learnt."""
        ...


class Recommender(nn.Module):
    """Base of all models; it is its own `Task` with one phase.

    A plain model writes `__init__`, `loss` and `tables`. A model that is no product of two
    tables sets `factorised = False` and writes `score` instead of `tables`.

    The class attributes declare what the model can do and what it needs. This is the only place
    where that is stated: the registry, the trainer, the evaluation and the export read it here,
    and the contract of `modalign.testing` checks each declaration in both directions.

    The constructor only allocates parameters and precomputes constants (it is called under
    a seeded generator); everything that must survive is a Parameter or a buffer, constants
    that can be computed again are non-persistent buffers.
    """

    needs: ClassVar[tuple[Need, ...]] = ()
    """What the model reads: "negatives" of each training pair; the "history" of a user, in
    queries and in batches, which then go over users instead of pairs; item "modalities"."""
    unseen_users: ClassVar[bool] = False
    """The model scores users from their history alone (`queries.user` may be -1)."""
    factorised: ClassVar[bool] = True
    """Scores are the inner products of user vectors and item vectors."""
    resamples: ClassVar[bool] = False
    """`on_epoch` or `after_step` redraws random numbers that the loss depends on."""

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
        """Closed-form models compute their buffers here, once, before the first epoch."""

    def phases(self) -> Sequence[Phase]:
        """One phase with all trainable parameters; none where nothing is trained."""
        params = [p for p in self.parameters() if p.requires_grad]
        return [Phase("main", params, OptimizerSettings.of(self.config))] if params else []

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """Named scalars, already weighted; their sum is the loss."""
        raise TypeError(f"{type(self).__name__} has no loss: it is solved in closed form")

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Before an epoch; by default nothing."""

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """After an optimizer step; by default nothing."""

    def diagnostics(self) -> Mapping[str, float]:
        """Numbers worth a line in the log of an epoch; by default none."""
        return {}

    def tables(self) -> tuple[Tensor, Tensor]:
        """Final user (n_users, d) and item (n_items, d) vectors, computed together."""
        raise TypeError(f"{type(self).__name__} does not factorise into user and item vectors")

    def user_vectors(self, queries: Queries) -> Tensor:
        """Final vectors of the queried users, (B, d)."""
        return self.tables()[0][queries.user]

    def item_vectors(self) -> Tensor:
        """Final vectors of all items, (n_items, d)."""
        return self.tables()[1]

    def score(self, queries: Queries) -> Tensor:
        """Scores of all items, (B, n_items); for many blocks take `scorer()` once."""
        return Factors(*self.tables()).score(queries)

    def scorer(self) -> Scorer:
        """This model frozen for scoring: tables are computed once, not once per block."""
        self.eval()
        if not self.factorised:
            return self
        with torch.inference_mode():
            return Factors(*self.tables())

    def extra_repr(self) -> str:
        """Sizes for people."""
        return f"n_users={self.n_users}, n_items={self.n_items}"


@runtime_checkable
class Factorised(Protocol):
    """A model that gives the vectors of single rows; what distillation trains.

    `at(users, items)` returns the final vectors of user rows (B, d) and item rows (C, d), and
    the ones they start from, users' and then items', (B + C, d).
    """

    def at(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See above."""
        ...

    def ego_tables(self) -> tuple[Tensor, Tensor]:
        """The tables the final vectors are made from, users and items, both of width d."""
        ...


def chosen_modalities(config: MultimodalConfig, available: Iterable[str]) -> list[str]:
    """Names a configuration selects, checked against what the data has."""
    names = sorted(available)
    if not names:
        raise DataError(
            "at least one modality", "data without any", "run `modalign encode` on it first"
        )
    for name in config.modalities or ():
        if name not in names:
            raise UnknownName("modality", name, names)
    return list(config.modalities) if config.modalities else names
