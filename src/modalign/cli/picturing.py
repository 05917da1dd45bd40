"""`modalign figures`: pictures of how runs differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modalign.cli.options import Data, Json, Seed
from modalign.cli.render import err, out, print_json, say
from modalign.errors import ConfigError

EPILOG = """**Example**

    modalign figures runs/teacher runs/student --out figures

    modalign figures --flow --out figures
"""


def figures(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders; the others are compared with the first one."),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("figures"),
    flow: Annotated[
        bool,
        typer.Option("--flow", help="Draw only the figures that need no run (gradient flows)."),
    ] = False,
    pairs: Annotated[
        int, typer.Option(min=1, help="Maximum number of observed and of random pairs to score.")
    ] = 20_000,
    seed: Seed = 1,
    data: Data = None,
    json: Json = False,
) -> None:
    """Draw what runs have learnt: vectors, scores, items of each degree, vital signs over options.

    Each figure is a PNG, an SVG and a file with its data; index.html shows all with captions.
    A run whose model has no user and item vectors (EASE) is left out of the figures that need
    them; the page names it. Figures that none of the runs allows are listed with what they need.
    """
    from modalign.report.paper_figures.write import write_figures

    if bool(runs) == flow:
        fix = "name finished runs, or give --flow for the gradient flows alone"
        raise ConfigError("run folders, or --flow without any", "both" if flow else "neither", fix)
    with err.status("drawing"):
        found = write_figures(runs or [], folder, pairs=pairs, seed=seed, data=data)
    if json:
        print_json({"out": str(folder), **found})
        return
    for note in found["notes"]:
        say(note, out)
    missing = found["not drawn"]
    if runs and missing:
        say(f"not drawn: {', '.join(missing)}; the page says what they need", out)
    say(f"{len(found['figures'])} figures written to {folder / 'index.html'}", out)
