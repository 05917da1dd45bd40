"""What the contract and the tests of models do with a model: build it, feed it, train it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.core import seeds
from modalign.core.interfaces import Batch, Queries, Recommender, Task, TrainedConfig
from modalign.core.sparse import from_scipy
from modalign.core.view import TrainView
from modalign.data.interactions import Interactions
from modalign.models._registry import ModelSpec
from modalign.train.batches import PairBatches, UserBatches
from modalign.train.trainer import TrainOptions, fit


def build(
    spec: ModelSpec, view: TrainView, seed: int = 0, overrides: Mapping[str, Any] | None = None
) -> Recommender:
    """An untrained model in its toy configuration, on the CPU.

    Args:
        spec: the registered model.
        view: training data.
        seed: seed of the initial weights.
        overrides: options that replace those of the toy configuration.
    """
    config = spec.config(**{**spec.toy, **(overrides or {})})
    with seeds.torch_seed(seed, "init"):
        model: Recommender = spec.cls(config, view)
    return model


def train(
    spec: ModelSpec, model: Recommender, view: TrainView, seed: int = 0, epochs: int | None = None
) -> Recommender:
    """Train (or solve) a model with the library's training loop, on the CPU, and return it.

    There is no validation: all epochs run.

    Args:
        spec: the registered model.
        model: an untrained instance.
        view: training data.
        seed: seed of training.
        epochs: number of epochs; None takes the configuration's.
    """
    config = model.config
    options = TrainOptions(seed=seed, device="cpu")
    if isinstance(config, TrainedConfig):
        options = TrainOptions(
            seed=seed,
            epochs=config.epochs if epochs is None else epochs,
            batch_size=config.batch_size,
            device="cpu",
        )
    fit(model, view, options)
    return model


def batches(spec: ModelSpec, view: TrainView, batch_size: int, seed: int = 0) -> list[Batch]:
    """One epoch of batches with what the model needs, and nothing else.

    Args:
        spec: the registered model.
        view: training data.
        batch_size: pairs, or users where the model needs histories, in a batch.
        seed: seed of the order and of the negatives.
    """
    data: PairBatches | UserBatches = (
        UserBatches(view, batch_size)
        if "history" in spec.needs
        else PairBatches(view, batch_size, "negatives" in spec.needs)
    )
    return list(data.epoch(seeds.torch_generator(seed, "batches"), torch.device("cpu")))


def prepare(task: Task, batch: Batch, seed: int = 0) -> None:
    """Call a task's hooks as the trainer does, so that a loss can be computed.

    Args:
        task: in any state; put into training mode.
        batch: passed to the hook after a step.
        seed: seed of the hooks' generators.
    """
    task.recommender.train()
    task.on_epoch(0, seeds.torch_generator(seed, "epoch", 0))
    task.after_step(0, batch, seeds.torch_generator(seed, "steps", 0))


def queries(spec: ModelSpec, view: TrainView, users: Tensor, *, unseen: bool = False) -> Queries:
    """Queries for training users, with their histories where the model needs them.

    Args:
        spec: the registered model.
        view: training data, the source of the histories.
        users: rows, int64.
        unseen: query the users without their ids (`user` is -1).
    """
    who = torch.full_like(users, -1) if unseen else users
    if "history" not in spec.needs:
        return Queries(who)
    matrix = Interactions(view.users.numpy(), view.items.numpy()).csr(view.n_users, view.n_items)
    return Queries(who, from_scipy(matrix[users.numpy()]))


def score_all(spec: ModelSpec, model: Recommender, view: TrainView) -> Tensor:
    """Scores of all users and items in evaluation mode, (n_users, n_items).

    Args:
        spec: the registered model.
        model: trained or not.
        view: training data, the source of the histories.
    """
    with torch.inference_mode():
        return model.scorer().score(queries(spec, view, torch.arange(view.n_users))).clone()


def auc(scores: Tensor, held_out: Interactions, view: TrainView) -> float:
    """Probability that a held-out item scores above an unobserved one, averaged over users.

    Ties count one half. Training items are not compared. A model without knowledge reaches 0.5.

    Args:
        scores: of all users and items, (n_users, n_items).
        held_out: the interactions to find.
        view: training data.

    Limits: memory grows with n_users n_items^2, so the data must be small.
    """
    shape = (view.n_users, view.n_items)
    wanted = held_out.csr(*shape).toarray() > 0
    seen = Interactions(view.users.numpy(), view.items.numpy()).csr(*shape).toarray() > 0
    other = ~wanted & ~seen
    values = scores.numpy()
    # (n_users, n_items, n_items): toys only.
    above = (values[:, :, None] > values[:, None, :]) + 0.5 * (
        values[:, :, None] == values[:, None, :]
    )
    pairs = wanted[:, :, None] & other[:, None, :]
    counts = pairs.sum(axis=(1, 2))
    each = (above * pairs).sum(axis=(1, 2)) / np.maximum(counts, 1)
    return float(each[counts > 0].mean())
