"""Tables of metrics and progress bars for the terminal; the rest is shared with the server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import ConsoleRenderable, RenderableType
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from modalign_serve.command.terminal import err, out, plain, print_json, printable, say, table

__all__ = [
    "aligned", "counting", "downloading", "err", "metric_table", "out", "plain", "print_json",
    "printable", "say", "show_logs", "table", "training",
]  # fmt: skip


class _Messages(RichHandler):
    """Messages may quote titles and ids: what a terminal would obey is escaped."""

    def render_message(self, record: logging.LogRecord, message: str) -> ConsoleRenderable:
        """The message of a record, safe to show."""
        return super().render_message(record, printable(message, keep="\n\t"))


@contextmanager
def show_logs(level: int) -> Iterator[None]:
    """Print messages of the library from this level on to standard error, above progress bars."""
    logger = logging.getLogger("modalign")
    handler = _Messages(console=err, show_time=False, show_path=False, rich_tracebacks=True)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def metric_table(title: str, metrics: Mapping[str, float]) -> RenderableType:
    """A table of `{"recall@20": ...}` with a row for each metric and a column for each K."""
    pairs = [name.split("@") for name in metrics]
    ks = sorted({int(k) for _, k in pairs})
    kinds = dict.fromkeys(kind for kind, _ in pairs)
    rows = [[kind, *aligned([metrics.get(f"{kind}@{k}") for k in ks])] for kind in kinds]
    return table(title, ["", *(f"@{k}" for k in ks)], rows, numbers=range(1, len(ks) + 1))


def aligned(values: Sequence[float | None]) -> list[str]:
    """The numbers of a row with four decimals, or with one if they are large."""
    places = 4 if max((abs(v) for v in values if v is not None), default=0) < 10 else 1
    return ["" if value is None else f"{value:,.{places}f}" for value in values]


def counting(verb: str, name: str) -> AbstractContextManager[Callable[[int, int | None], None]]:
    """A progress bar with counts on standard error; yields a function of (done, total)."""
    return _bar(
        f"{verb} {name}", MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True)
    )


def downloading(name: str) -> AbstractContextManager[Callable[[int, int | None], None]]:
    """A progress bar with bytes and speed; yields a function of (done, total)."""
    return _bar(
        f"downloading {name}", DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    )


def training(label: str) -> list[Any]:
    """The callback that shows the progress of training, or none under --quiet.

    Args:
        label: what is trained.
    """
    from modalign.train.callbacks import shown

    return shown(logging.getLogger("modalign").isEnabledFor(logging.INFO), label, err)


@contextmanager
def _bar(text: str, *columns: ProgressColumn) -> Iterator[Callable[[int, int | None], None]]:
    shown = TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), *columns
    with Progress(*shown, console=err) as bar:
        task = bar.add_task(plain(text), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
