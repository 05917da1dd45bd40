"""Tables, bars and JSON for people and programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

out = Console()
err = Console(stderr=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write("\n")


def say(text: str, console: Console = err) -> None:
    """A sentence as it is: ids, paths and titles are no markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def plain(text: Any) -> str:
    """A cell of a table as it is: titles may hold square brackets, which rich would read."""
    return escape(str(text))


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    numbers: Sequence[int] = (),
    cut: Sequence[int] = (),
) -> RenderableType:
    """A plain table.

    Args:
        title: above it.
        columns: their headings; all empty for none. The first column is never broken.
        rows: cells; texts may hold markup, so pass foreign ones through `plain`.
        numbers: indices of columns of numbers: to the right, never broken; headings may be.
        cut: indices of columns that are cut with an ellipsis where the terminal is narrow.
    """
    made = Table(box=box.SIMPLE_HEAD, show_header=any(columns), show_edge=False)
    width = _room(columns, rows, cut) if cut else None
    for index, name in enumerate(columns):
        number = index in numbers
        cells = [Text.from_markup(str(row[index])).cell_len for row in rows] if number else []
        made.add_column(
            plain(name),
            justify="right" if number else "left",
            overflow="ellipsis" if index in cut else "fold",
            no_wrap=bool(cut) or index == 0,
            max_width=width if index in cut else None,
            min_width=max(cells, default=None),
        )
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return Group(Text(title, "bold"), made, "")


def _room(columns: Sequence[str], rows: Sequence[Sequence[Any]], cut: Sequence[int]) -> int:
    """The width that each cut column may have so that the others stay whole."""
    taken = 0
    for index, name in enumerate(columns):
        cells = [Text.from_markup(str(row[index])).cell_len for row in rows]
        taken += 3 + (0 if index in cut else max([len(name), *cells]))
    return max((out.width - taken) // len(cut), 8)


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
