"""The training loop: clear all gradients, loss, backward, step.

It depends on `Task` alone, not on models, data sources or metrics; validation is a function that
the caller passes. Lightning Fabric handles devices and precision. The logger `modalign.train`
reports epochs (debug) and the end of training (info).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from modalign.core import devices, seeds
from modalign.core.interfaces import Batch, Phase, Recommender, Task
from modalign.core.view import TrainView
from modalign.core.vital_signs import PREFIX, gradient_shares
from modalign.errors import TrainingError
from modalign.train import checkpoint, optim
from modalign.train.batches import PairBatches, UserBatches
from modalign.train.callbacks import Callback
from modalign.train.checkpoint import TrainState

log = logging.getLogger("modalign.train")

Validate = Callable[[Recommender], Mapping[str, float]]


@dataclass(frozen=True)
class TrainOptions:
    """Options of the loop; the task defines what is learned.

    Attributes:
        seed: all randomness of training derives from it.
        epochs: maximum number of epochs.
        patience: number of evaluations without an improvement after which training stops.
        eval_every: number of epochs between evaluations.
        batch_size: number of pairs or users in a batch.
        metric: the validation metric that selects the best epoch; higher is better.
        device: "auto", "cpu", "cuda", "cuda:N".
        precision: "32-true" or "bf16-mixed".
        checkpoint_every: minimum number of seconds between checkpoints.
    """

    seed: int = 1
    epochs: int = 1000
    patience: int = 20
    eval_every: int = 1
    batch_size: int = 2048
    metric: str = "recall@20"
    device: str = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    checkpoint_every: float = 30.0


def fit(
    task: Task,
    view: TrainView,
    options: TrainOptions,
    validate: Validate | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint_path: Path | None = None,
    fingerprint: str = "",
    resume: bool = False,
) -> TrainState:
    """Train a task until validation stops improving, and restore its best weights.

    Args:
        task: the task to train; moved to the chosen device.
        view: training data.
        options: see `TrainOptions`.
        validate: measures the recommender; without it all epochs run and the last weights are
            the result.
        callbacks: called at the start, after every epoch and at the end.
        checkpoint_path: file for the state that `resume` reads; None writes no checkpoints.
        fingerprint: identifies data, model, configuration and seed in the checkpoint.
        resume: continue from `checkpoint_path` if it exists.

    Returns:
        The final state: history, best epoch, best metric, seconds.

    Raises:
        TrainingError: a loss became NaN or infinite.
        RunError: the checkpoint is unreadable or of another experiment.
    """
    loop = _TrainingLoop(task, view, options, validate, callbacks, checkpoint_path, fingerprint)
    return loop.run(resume)


class _TrainingLoop:
    def __init__(
        self,
        task: Task,
        view: TrainView,
        options: TrainOptions,
        validate: Validate | None,
        callbacks: Sequence[Callback],
        path: Path | None,
        fingerprint: str,
    ) -> None:
        self.task, self.view, self.options, self.validate = task, view, options, validate
        self.callbacks, self.path, self.fingerprint = callbacks, path, fingerprint
        # With it comes torch's compiler: seconds that only those who train should wait.
        from lightning_fabric import Fabric

        device = devices.resolve(options.device)
        self.fabric = Fabric(
            accelerator=device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision=options.precision,
        )
        self.device = device
        self.model = task.recommender
        self.saved = 0
        devices.keep_freed_memory(held_by(self.model))
        # A task may train more than its model, and a checkpoint must contain all of it.
        self.kept: torch.nn.Module = task if isinstance(task, torch.nn.Module) else self.model
        self.kept.to(device)
        self.model.to(device)
        self.phases: list[Phase] = list(task.phases())
        self.optimizers: list[Any] = [
            self.fabric.setup_optimizers(optim.build(phase)) for phase in self.phases
        ]

    def run(self, resume: bool) -> TrainState:
        state = TrainState(metric=self.options.metric)
        if resume and self.path is not None and self.path.is_file():
            state = self._load()
            log.info("resumed after epoch %d from %s", state.epoch, self.path)
        if not self.phases:
            return self._solve(state)
        options = self.options
        data: PairBatches | UserBatches = (
            UserBatches(self.view, options.batch_size)
            if "history" in self.model.needs
            else PairBatches(self.view, options.batch_size, self.task.n_negatives)
        )
        self._start(state, options.epochs)
        saved = time.monotonic()
        try:
            while state.epoch < options.epochs and state.bad < options.patience:
                began = time.monotonic()
                record = self._epoch(state, data)
                state.epoch += 1
                if state.epoch % options.eval_every == 0 or state.epoch == options.epochs:
                    self._validate(state, record)
                state.seconds += time.monotonic() - began
                record["seconds"] = time.monotonic() - began
                state.history.append(record)
                log.debug("%s", ", ".join(f"{name} {value:.4g}" for name, value in record.items()))
                for one in self.callbacks:
                    one.on_epoch(record, state)
                if self.path is not None and time.monotonic() - saved > options.checkpoint_every:
                    self._save(state)
                    saved = time.monotonic()
            if self.path is not None:
                self._save(state)
        except (KeyboardInterrupt, OSError) as error:
            if self.path is not None:
                error.add_note(f"training is kept up to epoch {self.saved}, of {state.epoch} done")
            raise
        finally:
            # A partial epoch is never checkpointed: the last checkpoint stays.
            self._end(state)
        if state.best:
            self.model.load_state_dict(state.best)
        best = f"best {state.metric} {state.best_metric:.4f} in epoch {state.best_epoch}"
        log.info("%s of %d", best if state.best else "no validation", state.epoch)
        return state

    def _solve(self, state: TrainState) -> TrainState:
        began = time.monotonic()
        record: dict[str, float] = {"epoch": 0}
        validate, metric = self.validate, self.options.metric
        if validate is None:
            self.model.solve(self.view)
        else:
            state.chosen = dict(
                self.model.choose(self.view, lambda: dict(validate(self.model))[metric])
            )
        self.model.to(self.device)
        self._validate(state, record)
        state.seconds = record["seconds"] = time.monotonic() - began
        state.history = [record]
        self._start(state, 0)
        self._end(state)
        return state

    def _start(self, state: TrainState, epochs: int) -> None:
        for one in self.callbacks:
            one.on_start(state, epochs)

    def _end(self, state: TrainState) -> None:
        for one in self.callbacks:
            one.on_end(state)

    def _epoch(self, state: TrainState, data: PairBatches | UserBatches) -> dict[str, float]:
        seed, epoch = self.options.seed, state.epoch
        self.model.train()
        self.task.on_epoch(epoch, seeds.torch_generator(seed, "epoch", epoch))
        for phase, optimizer in zip(self.phases, self.optimizers, strict=True):
            optim.decay(optimizer, phase, epoch)
        steps_rng = seeds.torch_generator(seed, "steps", epoch)
        totals: dict[str, Tensor] = {}
        n = 0
        batch: Batch | None = None
        for batch in self._batches(data, epoch):
            for name, part in self._checked_step(batch, state.step, epoch).items():
                totals[name] = totals[name] + part if name in totals else part
            self.task.after_step(state.step, batch, steps_rng)
            state.step += 1
            n += 1
        means = {f"loss/{name}": float(total) / n for name, total in totals.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss part {name[5:]!r} became {value} in epoch {epoch + 1}; "
                    "try a smaller learning rate"
                )
        return {"epoch": epoch + 1, **means, **self._shares(batch), **self.task.diagnostics()}

    def _checked_step(self, batch: Batch, step: int, epoch: int) -> Mapping[str, Tensor]:
        """A step; an error that numbers which are not finite lead to says so."""
        try:
            return self.step(batch, step)
        except ValueError as error:
            known = "finite numbers" in str(error)  # of the transport, about its costs
            if not known and all(bool(one.isfinite().all()) for one in self.model.parameters()):
                raise
            raise TrainingError(
                f"numbers became NaN or infinite in epoch {epoch + 1}; try a smaller learning rate"
            ) from error

    def _shares(self, batch: Batch | None) -> dict[str, float]:
        """How much each part of the loss gives to the gradient of the watched parameters."""
        watched = self.model.watched_parameters()
        if batch is None or not watched:
            return {}
        with self.fabric.autocast():
            parts = self.task.loss(batch, self.phases[0].name)
        shares = gradient_shares(parts, watched)
        return {f"{PREFIX}gradient/{name}": share for name, share in shares.items()}

    def _batches(self, data: PairBatches | UserBatches, epoch: int) -> Iterator[Batch]:
        rng = seeds.torch_generator(self.options.seed, "batches", epoch)
        return data.epoch(rng, self.device)

    def step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One optimizer step of every phase that runs in this step."""
        seen: dict[str, Tensor] = {}
        for phase, optimizer in zip(self.phases, self.optimizers, strict=True):
            if step % phase.every:
                continue
            # Another phase's loss may have given these parameters a gradient: clear all.
            for one in self.optimizers:
                one.zero_grad(set_to_none=True)
            with self.fabric.autocast():
                parts = self.task.loss(batch, phase.name)
            self.fabric.backward(sum_of(parts))
            optimizer.step()
            seen.update({name: value.detach() for name, value in parts.items()})
        return seen

    def _validate(self, state: TrainState, record: dict[str, float]) -> None:
        if self.validate is None:
            return
        for one in self.optimizers:
            one.zero_grad(set_to_none=True)  # no longer needed, and as large as the model
        measured = dict(self.validate(self.model))
        record.update({f"valid/{name}": value for name, value in measured.items()})
        record.update(self.task.after_validation(measured))
        value = measured[self.options.metric]
        if value > state.best_metric:
            state.best_metric, state.best_epoch, state.bad = value, state.epoch, 0
            state.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        else:
            state.bad += 1

    def _save(self, state: TrainState) -> None:
        assert self.path is not None
        checkpoint.save(
            self.path,
            state,
            self.kept.state_dict(),
            [one.state_dict() for one in self.optimizers],
            self.fingerprint,
        )
        self.saved = state.epoch

    def _load(self) -> TrainState:
        assert self.path is not None
        state, model, optimizers = checkpoint.load(self.path, self.fingerprint, self.device)
        try:
            self.kept.load_state_dict(model)
            for optimizer, saved in zip(self.optimizers, optimizers, strict=True):
                optimizer.load_state_dict(saved)
            if state.best:
                shapes = {name: one.shape for name, one in self.model.state_dict().items()}
                if {name: one.shape for name, one in state.best.items()} != shapes:
                    raise ValueError("the weights of the best epoch do not fit")
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise checkpoint.refuse_shape(self.path, error) from error
        self.saved = state.epoch
        return state


def held_by(model: torch.nn.Module) -> int:
    """Bytes of the parameters and buffers."""
    return sum(one.nbytes for one in (*model.parameters(), *model.buffers()))


def sum_of(parts: Mapping[str, Tensor]) -> Tensor:
    """The loss: the sum of its named parts, in their order."""
    values = list(parts.values())
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
