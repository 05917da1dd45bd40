"""Callbacks of training: a progress bar, JSON lines, TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from modalign.errors import ConfigError
from modalign.train.checkpoint import TrainState


class Callback(Protocol):
    """Called at the start of training, after every epoch and at the end."""

    def on_start(self, state: TrainState, epochs: int) -> None:
        """Before the first epoch, or the next one of a resumed run."""

    def on_epoch(self, record: Mapping[str, float], state: TrainState) -> None:
        """After an epoch, with its losses and metrics."""

    def on_end(self, state: TrainState) -> None:
        """After the last epoch, or when training was interrupted."""


class ProgressBar:
    """A progress bar with the loss parts, the validation metric and the remaining time.

    The remaining time is that of all epochs; early stopping may end training sooner.
    """

    def __init__(self, console: Console | None = None, label: str = "training") -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            # Only the note is shortened on a narrow terminal.
            TextColumn(
                "{task.fields[note]}",
                table_column=Column(overflow="ellipsis", no_wrap=True, ratio=1),
            ),
            console=console or Console(stderr=True),
        )
        self._label = label

    def on_start(self, state: TrainState, epochs: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task(
            self._label, total=epochs, completed=state.epoch, note=""
        )
        if epochs:  # a model with a closed-form solution has none
            self._progress.start()

    def on_epoch(self, record: Mapping[str, float], state: TrainState) -> None:
        """Move it."""
        parts = " ".join(f"{k[5:]} {v:.4g}" for k, v in record.items() if k.startswith("loss/"))
        best = f"best {state.metric} {max(state.best_metric, 0):.4f} (epoch {state.best_epoch})"
        note = f"{best}  {parts}"
        self._progress.update(self._task, completed=state.epoch, note=note)

    def on_end(self, state: TrainState) -> None:
        """Take it away."""
        self._progress.stop()


class JsonLines:
    """`metrics.jsonl`: one line per epoch; a resumed run drops lines past its checkpoint."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_start(self, state: TrainState, epochs: int) -> None:
        """Write what the state already holds."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text("".join(json.dumps(record) + "\n" for record in state.history))

    def on_epoch(self, record: Mapping[str, float], state: TrainState) -> None:
        """Append a line."""
        with self._path.open("a") as file:
            file.write(json.dumps(dict(record)) + "\n")

    def on_end(self, state: TrainState) -> None:
        """Nothing to close."""


class TensorBoard:
    """Scalars of every epoch for TensorBoard.

    Raises:
        ConfigError: the extra `track` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "the package tensorboard",
                "an environment without it",
                'run pip install "modalign[track]", or omit --tensorboard',
            ) from error
        self._make: Any = lambda purge: SummaryWriter(str(folder), purge_step=purge)

    def on_start(self, state: TrainState, epochs: int) -> None:
        """Open the event file."""
        self._writer = self._make(state.epoch)

    def on_epoch(self, record: Mapping[str, float], state: TrainState) -> None:
        """Write the epoch's scalars."""
        for name, value in record.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(record["epoch"]))

    def on_end(self, state: TrainState) -> None:
        """Close the event file."""
        self._writer.close()
