"""Tables of metrics and progress bars for the terminal; the rest is shared with the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from modalign_serve.command.terminal import err, out, plain, print_json, say, table

__all__ = [
    "aligned", "counting", "downloading", "err", "metric_table", "out", "plain", "print_json",
    "say", "table",
]  # fmt: skip


def metric_table(title: str, metrics: Mapping[str, float]) -> RenderableType:
    """`{"recall@20": ...}` with a row for each metric and a column for each K."""
    pairs = [name.split("@") for name in metrics]
    ks = sorted({int(k) for _, k in pairs})
    kinds = dict.fromkeys(kind for kind, _ in pairs)
    rows = [[kind, *aligned([metrics.get(f"{kind}@{k}") for k in ks])] for kind in kinds]
    return table(title, ["", *(f"@{k}" for k in ks)], rows, numbers=range(1, len(ks) + 1))


def aligned(values: Sequence[float | None]) -> list[str]:
    """A row of one kind: four places, or one where the numbers are large."""
    places = 4 if max((abs(v) for v in values if v is not None), default=0) < 10 else 1
    return ["" if value is None else f"{value:,.{places}f}" for value in values]


@contextmanager
def counting(verb: str, name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with counts and the time left on standard error; yields what to tell it."""
    with Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=err,
    ) as bar:
        task = bar.add_task(f"{verb} {name}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar with bytes, speed and the time left; yields what to tell it."""
    with Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=err,
    ) as bar:
        task = bar.add_task(f"downloading {name}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
