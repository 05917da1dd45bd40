"""`modalign profile`: what queries to trained models cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modalign.cli.options import Data, Device, HowMany, Json
from modalign.cli.render import counting, out, plain, print_json, say, table
from modalign.cli.summaries import labels_of

if TYPE_CHECKING:
    from modalign.experiments.cost import Latency, Profile

WORTH_A_P99 = 100
"""Minimum number of calls for a meaningful 99th percentile."""
EPILOG = """**Examples**

    modalign profile runs/teacher runs/student

    modalign profile runs/cm3 --batch 1024 --threads 2 --json
"""


def profile(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; the later ones are compared with the first.")
    ],
    batch: Annotated[int, typer.Option(min=1, help="Users in a batch.")] = 256,
    k: HowMany = 20,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    repeats: Annotated[
        int,
        typer.Option(
            min=1, help="Calls to time; fewer, but at least 20, if they take over ten seconds."
        ),
    ] = 200,
    data: Data = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure latency (p50, p99), memory and parameters, and what later runs save over the first.

    Each run is measured in its own process, for one user and for a batch, with seen items
    hidden: anew (the whole forward pass, then the top k) and from tables computed before, as in
    a service.
    """
    from modalign.experiments import cost

    with counting("measuring", "runs") as tell:
        found = cost.profile(
            runs,
            data=data,
            batch=batch,
            k=k,
            threads=threads,
            device=device,
            repeats=repeats,
            progress=tell,
        )
    if json:
        print_json(found.to_dict())
        return
    show(found)


def show(found: Profile) -> None:
    """Print what a profile holds: latencies, sizes, and ratios where there are two runs."""
    names = labels_of([run.run for run in found.runs])
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    title = f"Milliseconds to the top {found.k} and peak memory on {found.device}, {threads}"
    many = f"{found.batch:,} users"
    columns = ["run", "asked", "one user p50", "p99", f"{many} p50", "p99", "MiB"]
    rows = [
        [
            plain(name) if asked == "anew" else "",
            asked,
            *map(_short, cells),
            "" if mib is None else f"{mib:,.1f}",
        ]
        for name, run in zip(names, found.runs, strict=True)
        for asked, cells, mib in (
            ("anew", _four(run.anew_one, run.anew_batch), run.anew_mib),
            ("tables", _four(run.tables_one, run.tables_batch), run.tables_mib),
        )
    ]
    out.print(table(title, columns, rows, numbers=range(2, 7)))
    columns = ["run", "model", "trainable", "and features"]
    rows = [
        [
            plain(name),
            run.model,
            f"{run.parameters.trainable:,}",
            f"{run.parameters.with_features:,}",
        ]
        for name, run in zip(names, found.runs, strict=True)
    ]
    out.print(table("Parameters", columns, rows, numbers=(2, 3)))
    if found.ratios:
        _show_ratios(found, names, many)
    say("anew: the whole forward pass for each call; tables: computed before, as in a service")
    fewest = min(
        one.calls
        for run in found.runs
        for one in (run.anew_one, run.anew_batch, run.tables_one, run.tables_batch)
    )
    if fewest < WORTH_A_P99:
        say(f"only {fewest} calls were timed: p99 is little more than the slowest call")


def _show_ratios(found: Profile, names: list[str], many: str) -> None:
    columns = ["run", "asked for", "anew", "tables", "tables to anew", "trainable", "and features"]
    rows = []
    for name, one in zip(names[1:], found.ratios, strict=True):
        of_one = (one.anew_one, one.tables_one, one.served_one, one.parameters, one.with_features)
        of_many = (one.anew_batch, one.tables_batch, one.served_batch, None, None)
        rows += [[plain(name), "one user", *map(_times, of_one)], ["", many, *map(_times, of_many)]]
    title = f"Times faster and smaller than {names[0]}"
    out.print(table(title, columns, rows, numbers=range(2, 7)))


def _four(one: Latency, many: Latency) -> tuple[float, float, float, float]:
    return one.p50, one.p99, many.p50, many.p99


def _times(value: float | None) -> str:
    return "" if value is None else f"{_short(value)}x"


def _short(value: float) -> str:
    """Three digits that count, none after the point from a hundred up."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
