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
    figures,
    models,
    profiling,
    results,
    serving,
    sweeping,
    training,
)
from modalign.cli.render import show_logs
from modalign_serve.command import mistakes, terminal

ORDER = (
    "demo", "data", "encode", "describe", "models", "train", "distill", "sweep", "ablate",
    "evaluate", "compare", "profile", "recommend", "similar", "explain", "report", "figures",
    "export",
    "serve", "bench-serve", "serve-key", "serve-feedback",
)  # fmt: skip

QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Encoders' libraries print beside the progress bars by default; a variable that is set wins."""


class _InOrder(TyperGroup):
    """Commands in the order of their use."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    name="modalign",
    cls=_InOrder,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data.app, name="data", rich_help_panel="Data")
encoding.register(app)
describing.register(app)
models.register(app)
training.register(app)
distilling.register(app)
sweeping.register(app)
results.register(app)
profiling.register(app)
explaining.register(app)
figures.register(app)
exporting.register(app)
serving.register(app)


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
