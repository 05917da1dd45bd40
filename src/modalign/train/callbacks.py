"""Callbacks of training: progress as a bar or as lines, JSON lines, TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.text import Text

from modalign.errors import ConfigError
from modalign.train.checkpoint import TrainState

SHORTEST_BAR, LONGEST_BAR = 5, 24


class Callback(Protocol):
    """Called at the start of training, after every epoch and at the end."""

    def on_start(self, state: TrainState, epochs: int) -> None:
        """Before the first epoch, or the next one of a resumed run."""

    def on_epoch(self, record: Mapping[str, float], state: TrainState) -> None:
        """After an epoch, with its losses and metrics."""

    def on_end(self, state: TrainState) -> None:
        """After the last epoch, or when training was interrupted."""


Showing = bool | Literal["auto", "bar", "lines"]
"""How training shows its progress: a bar, plain lines, not at all (False), or what fits (True);
"auto" shows a bar in a notebook or at a terminal, and otherwise nothing."""


def shown(progress: Showing, label: str, console: Console | None = None) -> list[Callback]:
    """The callback that shows the progress of training, or none.

    Args:
        progress: see `Showing`.
        label: what is trained.
        console: where to; None takes standard error.

    Raises:
        ConfigError: no such way to show it.

    Example:
        >>> shown(False, "bpr")
        []
        >>> [type(one).__name__ for one in shown("lines", "bpr")]
        ['ProgressLines']
    """
    if progress not in get_args(get_args(Showing)[1]) and not isinstance(progress, bool):
        ways = "True, False, 'auto', 'bar' or 'lines' as progress"
        raise ConfigError(ways, repr(progress), "choose one of these")
    console = console or Console(stderr=True)
    fits = console.is_terminal or console.is_jupyter
    if progress is False or (progress == "auto" and not fits):
        return []
    bar = progress == "bar" or (progress != "lines" and fits)
    return [ProgressBar(console, label) if bar else ProgressLines(console, label)]


def _minutes(seconds: float | None) -> str:
    """A duration as minutes and seconds.

    Example:
        >>> _minutes(3723), _minutes(62.3), _minutes(None)
        ('1:02:03', '1:02', '-:--')
    """
    if seconds is None or not math.isfinite(seconds):
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Watch:
    """How far training is, and what it has reached."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.done = self.total = self.first = 0
        self.now = self.best = ""
        self._began = time.monotonic()

    def start(self, state: TrainState, epochs: int) -> None:
        self.done = self.first = state.epoch
        self.total = epochs
        self._began = time.monotonic()
        self._best(state)

    def epoch(self, record: Mapping[str, float], state: TrainState) -> None:
        self.done = state.epoch
        value = record.get(f"valid/{state.metric}")
        if value is not None:
            self.now = f"{state.metric} {value:.4f}"
        self._best(state)

    def _best(self, state: TrainState) -> None:
        if state.best_epoch:
            self.best = f"best {state.best_metric:.4f} (epoch {state.best_epoch})"

    @property
    def left(self) -> str:
        """Time left for all epochs; early stopping may end training sooner."""
        made = self.done - self.first
        took = time.monotonic() - self._began
        return _minutes(took / made * (self.total - self.done) if made else None)


class _Line(ProgressColumn):
    """All of the progress in one line that fits the terminal."""

    def __init__(self, watch: _Watch, console: Console) -> None:
        super().__init__()
        self.watch, self.console = watch, console

    def render(self, task: Any) -> Text:
        """The line; on a narrow terminal the end is left out, and then the bar."""
        watch, width = self.watch, self.console.width
        n = len(str(watch.total))
        counted = f"epoch {watch.done:{n}d}/{watch.total}"
        tail = f"{watch.left:>5} left"
        label = watch.label[: max(1, width - len(counted) - len(tail) - 3)]
        head = f"{label} {counted}"
        best = watch.best.partition(" (")[0]
        for end in (f"{watch.now}, {watch.best}", f"{watch.now}, {best}", watch.now, ""):
            end = end.strip(", ")
            room = width - len(head) - len(tail) - len(end) - 5
            if room >= SHORTEST_BAR or not end:
                break
        length = max(0, min(LONGEST_BAR, room))
        full = round(length * watch.done / watch.total) if watch.total else 0
        fill, empty = ("━", "╌") if (self.console.encoding or "").startswith("utf") else ("#", "-")
        line = Text(overflow="ellipsis", no_wrap=True)
        line.append(head, "bold")
        line.append(" ")
        line.append(fill * full, "magenta")
        line.append(empty * (length - full), "dim")
        line.append(f" {tail}")
        if end:
            line.append(f"  {end}")
        return line


class ProgressBar:
    """One line: the model, the epoch, a bar, the time left, the validation metric and its best.

    The time left is that of all epochs; early stopping may end training sooner.
    """

    def __init__(self, console: Console | None = None, label: str = "training") -> None:
        console = console or Console(stderr=True)
        self._watch = _Watch(label)
        self._progress = Progress(_Line(self._watch, console), console=console)

    def on_start(self, state: TrainState, epochs: int) -> None:
        """Show the line."""
        self._watch.start(state, epochs)
        self._task = self._progress.add_task("", total=epochs, completed=state.epoch)
        if epochs:  # a model with a closed-form solution has none
            self._progress.start()

    def on_epoch(self, record: Mapping[str, float], state: TrainState) -> None:
        """Move it."""
        self._watch.epoch(record, state)
        self._progress.update(self._task, completed=state.epoch)

    def on_end(self, state: TrainState) -> None:
        """Leave it where it is."""
        self._progress.stop()


class ProgressLines:
    """The same as plain lines, for logs: of the first epoch, then at least `every` seconds apart.

    Args:
        console: where to; None takes standard error.
        label: what is trained.
        every: minimum number of seconds between two lines.
    """

    def __init__(
        self, console: Console | None = None, label: str = "training", every: float = 10.0
    ) -> None:
        self._console = console or Console(stderr=True)
        self._watch, self._every = _Watch(label), every
        self._said: float | None = None
        self._shown = 0

    def on_start(self, state: TrainState, epochs: int) -> None:
        """Count from here."""
        self._watch.start(state, epochs)
        self._shown = state.epoch

    def on_epoch(self, record: Mapping[str, float], state: TrainState) -> None:
        """Print a line if it is time for one."""
        self._watch.epoch(record, state)
        now = time.monotonic()
        if self._said is None or now - self._said >= self._every:
            self._said = now
            self._print()

    def on_end(self, state: TrainState) -> None:
        """Print the last epoch."""
        if self._watch.done > self._shown:
            self._print()

    def _print(self) -> None:
        watch = self._watch
        self._shown = watch.done
        parts = [f"{watch.label}: epoch {watch.done} of {watch.total}", watch.now, watch.best]
        line = ", ".join(part for part in [*parts, f"{watch.left} left"] if part)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


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
