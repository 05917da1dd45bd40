"""Tables and JSON for people and programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

out = Console()
err = Console(stderr=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write("\n")


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Sequence[int] = ()
) -> Table:
    """A plain table; columns whose index is in `numbers` stand right."""
    made = Table(
        title=title,
        box=box.SIMPLE_HEAD if any(columns) else box.SIMPLE,
        show_header=any(columns),
        title_justify="left",
        title_style="bold",
    )
    for index, name in enumerate(columns):
        made.add_column(
            name, justify="right" if index in numbers else "left", overflow="fold", no_wrap=False
        )
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return made


def metric_table(title: str, runs: Mapping[str, Mapping[str, float]]) -> Table:
    """Metrics side by side: one row per metric@K, one column per run."""
    names = list(dict.fromkeys(name for metrics in runs.values() for name in metrics))
    rows = [
        [name, *(f"{m[name]:.4f}" if name in m else "" for m in runs.values())] for name in names
    ]
    return table(title, ["metric", *runs], rows, numbers=range(1, len(runs) + 1))


def progress(description: str) -> Progress:
    """A bar with counts and time left on standard error."""
    return Progress(
        TextColumn(f"[bold]{description}[/] {{task.description}}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=err,
    )
