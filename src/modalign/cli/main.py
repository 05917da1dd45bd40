"""`modalign`: the commands, and the exit code of every way to fail."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from modalign.cli import (
    data,
    describing,
    distilling,
    encoding,
    explaining,
    exporting,
    models,
    picturing,
    profiling,
    results,
    sweeping,
    training,
)
from modalign.cli.render import show_logs
from modalign_serve.command import commands, mistakes, terminal

QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Encoders' libraries print beside the progress bars by default; a variable that is set wins."""


class _InOrder(TyperGroup):
    """Commands in the order of their use: that below, but for the group `data` after `demo`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: name != "demo")


def _example(*lines: str) -> str:
    shown = "\n\n".join(f"    modalign {line}" for line in lines)
    return f"**Example{'s' * (len(lines) > 1)}**\n\n{shown}"


app = typer.Typer(
    name="modalign",
    cls=_InOrder,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data", rich_help_panel="Data")
for _panel, _command, _epilog in (
    ("Start here", training.demo, _example("demo --out demo")),
    ("Data", encoding.encode, encoding.EPILOG),
    ("Data", describing.describe, describing.EPILOG),
    ("Models", models.models, models.EPILOG),
    ("Models", training.train, training.TRAIN_EPILOG),
    ("Models", distilling.distill, distilling.EPILOG),
    ("Models", sweeping.sweep, sweeping.SWEEP_EPILOG),
    ("Models", sweeping.ablate, sweeping.ABLATE_EPILOG),
    ("Results", results.evaluate, _example("evaluate runs/cm3 --mask train --k 10,20,50")),
    ("Results", results.compare, _example("compare runs/cm3 runs/lightgcn")),
    ("Results", profiling.profile, profiling.EPILOG),
    (
        "Results",
        results.recommend,
        _example("recommend runs/cm3 --user 42 -k 10", "recommend runs/cm3 --all --out lists.csv"),
    ),
    ("Results", results.similar, _example("similar runs/cm3 --item 50 -k 5")),
    ("Results", explaining.explain, explaining.EPILOG),
    ("Results", results.report, _example("report runs/cm3 runs/lightgcn --out report.html")),
    ("Results", picturing.figures, picturing.EPILOG),
    ("Serving", exporting.export, exporting.EPILOG),
):
    app.command(rich_help_panel=_panel, epilog=_epilog)(_command)
commands.register(
    app,
    commands.Names("modalign", "serve", "bench-serve", "serve-key", "serve-feedback"),
    "Service",
)


@app.callback(
    help="Multimodal recommendation: from a table of interactions and the items' pictures and "
    "texts to a trained, measured recommender.\n\n"
    "A first tour: `modalign demo --out demo`. Each command has its own `--help` with examples."
)
def program_options(
    context: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print the messages of every epoch, too.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")
    ] = False,
    version: terminal.Version = False,
) -> None:
    """Options before the command."""
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    context.with_resource(show_logs(level))


def run() -> None:
    """Entry point. A user's mistake: one message, exit code 2. Ctrl-C: 130."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    sys.exit(mistakes.run(app, "modalign"))


if __name__ == "__main__":
    run()
